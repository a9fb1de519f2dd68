"""Checkpoints and results that were tampered with, each in its own way: refused in one line, nothing made."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape import InputError, load, weights_of
from landscape.storage.checkpoints import read_checkpoint
from landscape.storage.files import existing
from samrec import checkpoint
from samrec.config import configure
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.methods import initial_learner
from samrec.task import initial_weights
from samrec.training.engines.solo import Solo
from samrec.training.log import read_log
from samrec.training.loop import train
from tests.mutations import nested, shared
from tests.results import plane, trace


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    """The last.pt of a small run, of which each test has its own copy."""
    folder = tmp_path_factory.mktemp("tampered")
    (folder / "d.txt").write_text("1 1 2 3 4 5\n2 2 3 4 1\n3 5 4 1 2\n")
    small = {"dim": 2, "heads": 1, "layers": 1, "max_length": 3, "epochs": 1, "eval_every": 1}
    return train(configure({"data": str(folder / "d.txt"), **small}), folder / "run", "cpu").out / "last.pt"


def rewritten(source, target, change):
    """Copy an archive with members as `change(name, content)` has them; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return target


def refused(path, message, read=read_checkpoint):
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert len(str(error.value)) <= 300


def test_a_flipped_bit_is_no_number(last, tmp_path):
    content = bytearray(last.read_bytes())
    content[content.index(archive_numbers(last)) + 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    torch.load(tmp_path / "a.pt", weights_only=True)  # which sees nothing
    refused(tmp_path / "a.pt", "not what was written")


def archive_numbers(path):
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("/data/0"))


def test_compressed_overlapping_and_encrypted_members(last, tmp_path):
    with zipfile.ZipFile(last) as old, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(tmp_path / "a.pt", "compressed in another way")
    content = bytearray(last.read_bytes())
    directory = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", directory + 4)
    overlapping, encrypted, larger = (bytearray(content) for _ in range(3))
    overlapping[second + 42 : second + 46] = struct.pack("<I", 10)
    encrypted[second + 8] |= 1
    larger[second + 20 : second + 28] = struct.pack("<II", 2**31, 2**31)
    for bent, message in (
        (overlapping, "overlap"),
        (encrypted, "encrypted"),
        (larger, "overlap|after the file"),
    ):
        (tmp_path / "a.pt").write_bytes(bent)
        refused(tmp_path / "a.pt", message)


def test_what_torch_wrote_before_archives_is_refused(tmp_path):
    torch.save({"task": "samrec"}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "a.pt", "not a complete archive of torch.save")


def test_tensors_that_claim_more_than_they_hold(last, tmp_path):
    torch.save({"a": torch.ones(()).expand(10**6, 10**6)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "claimed to hold 1,000,000,000,000 elements")
    torch.save({"a": torch.ones(3, 7)}, tmp_path / "b.pt")
    for old, new in ((b"K\x15", b"J\xff\xff\xff\x7f"), (b"K\x03K\x07", b"J\xff\xff\xff\x7fK\x07")):
        path = rewritten(
            tmp_path / "b.pt",
            tmp_path / "c.pt",
            lambda name, content, old=old, new=new: (
                content.replace(old, new, 1) if "pkl" in name else content
            ),
        )
        refused(path, "claimed to hold")
    short = rewritten(
        last, tmp_path / "d.pt", lambda name, content: content[:-4] if "data/0" in name else content
    )
    refused(short, "claimed to hold")


def with_pickle(folder, pickled):
    """Return an archive of torch.save's with another pickle in it."""
    torch.save({"a": torch.ones(3)}, folder / "a.pt")
    return rewritten(
        folder / "a.pt",
        folder / "b.pt",
        lambda name, content: pickled if name.endswith("data.pkl") else content,
    )


BEGIN, END = b"\x80\x02", b"."
PAIR = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
DEEP = b")" + b"\x85" * 200_000
LISTS = b"]q\x00" + b"".join(
    b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)
)


@pytest.mark.parametrize(
    "pickled",
    [
        BEGIN + b"}" + PAIR + b"K\x01s" + END,
        BEGIN + b"}" + DEEP + b"K\x01s" + END,
        BEGIN + b"}(" + DEEP + b"K\x01u" + END,
        BEGIN + b"\x8f(" + DEEP + b"\x90" + END,
        BEGIN + b"(" + DEEP + b"\x91" + END,
        BEGIN + LISTS + b")R" + END,
        BEGIN + b"cbuiltins\nbytearray\n" + b"\x8a\x05\x00\x00\x00\x00\x10\x85R" + END,
        BEGIN + b"ctorch\nTensor\n" + b"\x8a\x05\x00\x00\x00\x00\x10\x85R" + END,
        BEGIN + b"ccollections\nOrderedDict\n" + PAIR + b"\x85R" + END,
        pickle.dumps(print, 2),
    ],
    ids=["shared", "deep", "items", "set", "frozenset", "call", "bytearray", "tensor", "ordered", "function"],
)
def test_pickles_that_torch_reads_and_nothing_plain_needs(pickled, tmp_path):
    """`torch.load(weights_only=True)` takes 2^60 steps, all of the C stack, or as much memory as they say."""
    refused(with_pickle(tmp_path, pickled), "is never loaded")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(" + DEEP + b"K\x01d",  # a dictionary of protocol 0: its keys would be hashed
        b"K\x01r\xff\xff\xff\xff",  # Python's unpickler in C makes room for so many memos
        b"\x96\xff\xff\xff\xff\xff\x00\x00\x00",  # a bytearray of a terabyte
        b"X\xff\xff\xff\xffabc",
        b"B\xff\xff\xff\xffabc",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8b\xff\xff\xff\x7f1",
        b"\x82\x01",  # a class by its number in copyreg
        b"I" + b"9" * 5000 + b"\n",
    ],
    ids=["dict", "memo", "bytearray", "text", "bytes", "frame", "long", "extension", "digits"],
)
def test_opcodes_that_take_more_than_they_hold(opcodes, tmp_path):
    for reader in (read_checkpoint, weights_of):
        refused(with_pickle(tmp_path, BEGIN + opcodes + END), "is not|not a state dict", reader)


def test_a_pickle_changes_nothing_in_this_process(tmp_path):
    """Nor a function that it may name, whose defaults would negate the next file's numbers."""
    state = b"N}X\x0c\x00\x00\x00__defaults__}X\x03\x00\x00\x00neg\x88s\x85s\x86b"
    with_pickle(
        tmp_path, BEGIN + b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + state + b"s" + END
    )
    refused(tmp_path / "b.pt", "is never loaded")
    assert read_checkpoint(tmp_path / "a.pt")["a"].tolist() == [1, 1, 1]


def test_shapes_of_more_axes_than_any_tensor_has(tmp_path):
    """The product of a million large numbers, which a file of 2 MB can name, takes for ever."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    large = b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"q\xff" + b"h\xff" * 999 + b"t"
    path = rewritten(
        tmp_path / "a.pt",
        tmp_path / "b.pt",
        lambda name, content: (
            content.replace(b"K\x03\x85", large).replace(b"K\x01\x85", b"(" + b"h\xff" * 1000 + b"t")
            if "pkl" in name
            else content
        ),
    )
    refused(path, "impossible shape")


@pytest.mark.parametrize("read", [read_checkpoint, weights_of])
def test_what_is_checked_is_what_is_loaded(read, tmp_path):
    """torch.load takes these members for others than zipfile does."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "other.pt") as other, zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        for name in ("DATA.PKL", "DATA/0"):
            archive.writestr(f"a/{name}", other.read(f"other/{name.lower()}"))
    assert read(tmp_path / "a.pt")["a"].tolist() == [1, 1, 1]
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "other.pt").read_bytes() + (tmp_path / "a.pt").read_bytes())
    with suppress(InputError):  # two directories: the last is read, or none
        assert read(tmp_path / "a.pt")["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [nested(300), shared(60)], ids=["deep", "shared"])
def test_containers_without_end(value, tmp_path):
    torch.save({"task": "samrec", "format": value}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "nested without end")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "x" * 10**6, "not a samrec checkpoint"),
        ("format", [1], "no format"),
        ("epoch", -1, "damaged checkpoint: epoch"),
        ("epoch", torch.ones(2), "damaged checkpoint: epoch"),
        ("best", (1, "a"), "damaged checkpoint: best"),
        ("valid", {"ndcg@10": None}, "damaged checkpoint: valid"),
        ("weights", {"item.weight": 1.0}, "damaged checkpoint: weights"),
        ("config", {"data": "d.txt", "layers": 10**9}, "do not fit its settings"),
        ("config", {"data": "d.txt", "layers": torch.ones(2)}, "damaged checkpoint"),
        ("config", torch.ones(2), "damaged checkpoint"),
        ("sums", 3, "damaged checkpoint"),
    ],
)
def test_fields_of_other_types(last, tmp_path, key, value, message):
    torch.save({**torch.load(last, weights_only=True), key: value}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", message, checkpoint.load)


@pytest.mark.parametrize("field", ["num_items", "dim", "max_length"])
@pytest.mark.parametrize("size", [10**12, 10**30])
def test_sizes_of_which_nothing_is_allocated(last, tmp_path, field, size):
    content = torch.load(last, weights_only=True)
    changed = {field: size} if field == "num_items" else {"config": {**content["config"], field: size}}
    torch.save({**content, **changed}, tmp_path / "a.pt")
    for use in (lambda path: checkpoint.load(path).model(), initial_weights):
        expected = "do not fit its settings|impossibly large model"
        if field != "num_items":  # it has a bound
            expected = f"damaged checkpoint: setting {field}: must be less than or equal to 65536, not 10"
        refused(tmp_path / "a.pt", expected, use)


def state_changes():
    yield "missing", lambda state: state.pop("state")
    yield "groups", lambda state: state.update(param_groups=[])
    yield "no moment", lambda state: state["state"][0].pop("exp_avg")
    yield "shape", lambda state: state["state"][0].update(exp_avg=torch.ones(7))
    yield "number", lambda state: state["state"][0].update(exp_avg=1.0)
    yield "text", lambda state: state.update(steps="x")
    yield "infinite", lambda state: state.update(steps=float("inf"))
    yield "list", lambda state: state.update(state=[1, 2])


@pytest.mark.parametrize(("name", "change"), state_changes(), ids=[name for name, _ in state_changes()])
def test_optimizers_of_another_run(last, tmp_path, name, change):
    content = torch.load(last, weights_only=True)
    change(content["optimizer"])
    torch.save(content, tmp_path / "a.pt")
    found = checkpoint.load(tmp_path / "a.pt")
    split = leave_one_out(read(last.parents[1] / "d.txt"))
    engine = Solo(found.config, initial_learner(found.config, split), torch.device("cpu"), 1)
    refused([found], "optimizer does not fit its settings", engine.load)


def test_results_that_claim_or_unpack_to_more_than_they_hold(tmp_path, monkeypatch):
    good = trace(1.0).save(tmp_path / "a.npz")
    claim = io.BytesIO()
    np.save(claim, np.zeros(3))
    claimed = claim.getvalue().replace(b"(3,)", b"(3000000000000,)")
    parts = {"samples": claimed[: 10 + len(claimed) - 24 - 10] + bytes(24)}
    for name, content in {**parts, "header": b"\x93NUMPY" + bytes(50)}.items():
        path = rewritten(
            good,
            tmp_path / "b.npz",
            lambda n, c, name=name, content=content: content if n == f"{name}.npy" else c,
        )
        refused(path, "not a readable result", load)
    with (
        zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("x.npy", "w") as file,
    ):
        file.write(bytes(2**22))
    refused(tmp_path / "c.npz", r"not a readable result file \(KeyError\)", load)  # there is no header
    monkeypatch.setattr("landscape.storage.archives.LARGEST", 2**20)
    refused(tmp_path / "c.npz", "not an archive that landscape wrote, or a damaged one", load)


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": np.zeros((2, 3))},
        {"losses": np.zeros((5, 5), complex)},
        {"losses": np.full((5, 5), "x")},
        {"center": "0"},
        {"settings": {"theta_norm": "2"}},
        {"settings": {}},
        {"directions": [{"kind": "random"}] * 2},
        {"marks": [{"name": "a", "at": [1.0]}]},
        {"certificate": {"reached": True}},
        {"evaluations": 1.5},
    ],
    ids=range(10),
)
def test_fields_of_a_result_that_do_not_fit(changes, tmp_path):
    refused(replace(plane(), **changes).save(tmp_path / "a.npz"), "not a readable result", load)


def test_a_table_that_unpacks_to_far_more(tmp_path, monkeypatch):
    monkeypatch.setattr("landscape.storage.archives.LARGEST", 2**20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(bytes(2**22)))
    refused(tmp_path / "a.csv.gz", "far more than its size", read)


def test_a_log_that_no_training_wrote(tmp_path):
    for text, message in (
        ('{"loss": 1}\n', "line 1 is not a training-log entry: epoch"),
        ('{"epoch": 1, "valid": {}}\n', "no ndcg@10"),
        ("[1]\n", "line 1 is not a training-log entry"),
    ):
        (tmp_path / "m.jsonl").write_text(text)
        refused(tmp_path / "m.jsonl", message, read_log)
    (tmp_path / "m.jsonl").write_bytes(b'{"epoch": 1, "loss": 0.5}\n{"epo\xff')
    assert read_log(tmp_path / "m.jsonl") == [{"epoch": 1, "loss": 0.5}]


def test_names_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a regular file", lambda path: existing(path, "data file"))
    refused(tmp_path / "a\x00b", "null byte", lambda path: existing(path, "data file"))

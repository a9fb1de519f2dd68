"""Whatever a file holds, its reader returns, or says in one short line what is wrong: soon, in little memory.

Hypothesis draws the files: the same ones in every run of the suite, others in each `make soak`
(`pytest -m soak`), FUZZ a reader or 10,000. One that a reader fails on is shrunk, stays in the
folder of the test, and is tried first by the next soak.
"""

import gzip
import io
import json
import os
import re
import resource
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from safetensors.torch import save

from landscape import InputError, load, weights_of
from landscape.curvature.history import read_history
from landscape.report.report import INDEX, Compared, Comparison, read_index, write_index
from landscape.storage.apart import SERVE
from landscape.surface.export import export, read_hdf5
from landscape.surface.point_log import PointLog
from samrec import checkpoint
from samrec.cli.recommend import _ids_in
from samrec.config import configure, read_settings
from samrec.data.attributes import read_attributes
from samrec.data.interactions import Interactions
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.methods import initial_learner
from samrec.sweeps.jobs import Job
from samrec.training.engines.solo import Solo
from samrec.training.log import read_log
from samrec.training.loggers import _known
from samrec.training.loop import train
from tests.mutations import damaged, redescribed, remeasured, resaved, rewritten, rezipped
from tests.results import density, facts, hessian, line, plane, sharpness, trace

SOME, MANY = 60, int(os.environ.get("FUZZ", "10000"))
OURS = settings(  # `attempt` has its own limits, which lines that are traced for an explanation would break
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},
    derandomize=False,
)
SECONDS, MIB = 2.0, 200
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
happened: set[str] = set()


def hook(event: str, about: tuple[object, ...]) -> None:
    """Note what a file must not cause; the process that reads Parquet and HDF5 runs no other program."""
    own = event == "subprocess.Popen" and list(about[1])[:3] == [sys.executable, "-c", SERVE]
    if event in FORBIDDEN and not own:
        happened.add(event)


sys.addaudithook(hook)  # there is no removing
Mutation = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of files: what it does with one, the file's name, and how sound ones are changed."""

    read: Callable[[Path], object]
    name: str
    mutations: tuple[Mutation, ...] = (damaged,)


def use_checkpoint(path: Path) -> None:
    """Read it, build its model, and let a run continue from it."""
    found = checkpoint.load(path)
    found.model()
    split = leave_one_out(Interactions.from_histories(HISTORIES, "here"))
    if found.optimizer and found.config.dim <= 8 and found.config.layers == 1:
        Solo(found.config, initial_learner(found.config, split), torch.device("cpu"), 1).load([found])


def use_result(path: Path) -> None:
    found = load(path)
    for name in ("statement", "error", "why_not_a_minimum", "moment_error", "posteriors"):
        getattr(found, name, None)
    if type(found).__name__ == "Slice":
        export(found, path.with_suffix(".csv"))


def use_log(path: Path) -> None:
    read_log(path)
    Job({}, CONFIG, path.parent).result()


def use_points(path: Path) -> None:
    found = PointLog(path, "abc", 2)
    assert all(len(step) == 2 and isinstance(loss, float) for step, loss in found.known.items())


def data_of(path: Path) -> None:
    leave_one_out(read(path))


def use_index(path: Path) -> None:
    path.with_name("shard.safetensors").write_bytes(SHARD)
    weights_of(path)


SHARD = save({"a": torch.ones(3, 2), "b": torch.ones(3)})
HISTORIES = [[1, 2, 3, 4, 5], [2, 3, 4, 1], [5, 4, 1, 2]]
CONFIG = configure({"data": "d.txt"})
ROWS = [(user, item, 10 * at) for user, items in enumerate(HISTORIES) for at, item in enumerate(items)]
JSON = (damaged, rewritten)
READERS = {
    "checkpoint": Reader(use_checkpoint, "a.pt", (damaged, rezipped, resaved, resaved)),
    "weights": Reader(weights_of, "a.ckpt", (damaged, rezipped, resaved, resaved)),
    "safetensors": Reader(weights_of, "a.safetensors"),
    "lightning": Reader(weights_of, "l.ckpt", (damaged, rezipped, resaved, resaved)),
    "index": Reader(use_index, "a.safetensors.index.json", JSON),
    "monitor": Reader(read_history, "monitor.jsonl", JSON),
    "users": Reader(_ids_in, "users.txt"),
    "loggers": Reader(_known, "loggers.json", JSON),
    "zip": Reader(data_of, "a.zip", (damaged, rezipped)),
    "best": Reader(use_checkpoint, "best.safetensors", (damaged, redescribed, redescribed)),
    "result": Reader(use_result, "a.npz", (damaged, rezipped, remeasured, remeasured)),
    "hdf5": Reader(read_hdf5, "a.h5"),
    "sequences": Reader(data_of, "a.txt"),
    "pairs": Reader(data_of, "b.txt"),
    "csv": Reader(data_of, "a.csv"),
    "parquet": Reader(data_of, "a.parquet"),
    "inter": Reader(data_of, "a.inter"),
    "jsonl": Reader(data_of, "a.jsonl", JSON),
    "gzip": Reader(data_of, "a.json.gz"),
    "movielens": Reader(data_of, "a.dat"),
    "attributes": Reader(
        lambda path: read_attributes(path, Interactions.from_histories(HISTORIES, "here")), "a.json", JSON
    ),
    "settings": Reader(lambda path: configure(read_settings(path)), "config.toml"),
    "log": Reader(use_log, "metrics.jsonl", JSON),
    "points": Reader(use_points, "points.jsonl", JSON),
    "comparison": Reader(lambda path: read_index(path.parent), INDEX, JSON),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    return sound_files(tmp_path_factory.mktemp("sound"))


def sound_files(folder: Path) -> dict[str, list[bytes]]:
    """Sound files of each reader."""
    lines = "".join(" ".join(map(str, (user, *items))) + "\n" for user, items in enumerate(HISTORIES))
    (folder / "d.txt").write_text(lines)
    small = {"dim": 2, "heads": 1, "layers": 1, "max_length": 3, "epochs": 1, "eval_every": 1}
    data = os.path.relpath(folder / "d.txt")  # the same in every run
    run = train(configure({"data": data, "method": "samrec", "every": 2, **small}), folder / "run", "cpu").out
    last, best = (unnamed(run / name) for name in ("last.pt", "best.pt"))
    for number, result in enumerate((plane(), line(), hessian(), trace(1.0), sharpness(), density())):
        result.save(folder / f"{number}.npz")
    export(plane(), folder / "a.h5")
    frame = pl.DataFrame(ROWS, schema=["user", "item", "timestamp"], orient="row")
    frame.write_parquet(folder / "a.parquet")
    table = "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)
    objects = "".join(f'{{"user": "u{u}", "item": {i}, "timestamp": {t}}}\n' for u, i, t in ROWS)
    compared = Compared(name="a", path="a.pt", facts=facts(0.2, 0.3))
    write_index(Comparison(title="t", checkpoints=[compared]), folder)
    return {
        "checkpoint": [last, best],
        "weights": [best],
        "safetensors": [SHARD],
        "lightning": [lightning()],
        "index": [b'{"metadata": {}, "weight_map": {"a": "shard.safetensors", "b": "shard.safetensors"}}'],
        "monitor": [MONITOR],
        "users": [b"u1\nu2\n7\n"],
        "loggers": [b'{"wandb": "abc", "mlflow": "def"}'],
        "zip": [zipped({"ratings.csv": f"user,item,timestamp\n{table}".encode()})],
        "best": [sorted_by_name((run / "best.safetensors").read_bytes())],
        "result": [(folder / f"{number}.npz").read_bytes() for number in range(6)],
        "hdf5": [(folder / "a.h5").read_bytes()],
        "sequences": [lines.encode()],
        "pairs": ["".join(f"{u} {i}\n" for u, i, _ in ROWS).encode()],
        "csv": [
            f"user,item,timestamp\n{table}".encode(),
            "".join(f"{u},{i}\n" for u, i in [("user", "item"), *((u, i) for u, i, _ in ROWS)]).encode(),
        ],
        "parquet": [(folder / "a.parquet").read_bytes()],
        "inter": [("user_id:token\titem_id:token\ttimestamp:float\n" + table.replace(",", "\t")).encode()],
        "jsonl": [objects.encode()],
        "gzip": [gzip.compress(objects.encode(), mtime=0)],
        "movielens": ["".join(f"{u}::{i}::5::{t}\n" for u, i, t in ROWS).encode()],
        "attributes": [b'{"1": [3, 4], "2": [], "5": [4]}'],
        "settings": [(run / "config.toml").read_bytes()],
        "log": [re.sub(rb'"seconds": [^,]+', b'"seconds": 0.25', (run / "metrics.jsonl").read_bytes())],
        "points": [b'{"fingerprint": "abc"}\n{"way": "one"}\n[0.0, 0.5, 1.25]\n[1.0, 0.5, 2.5]\n'],
        "comparison": [(folder / INDEX).read_bytes()],
    }


MONITOR = (
    b'{"monitor": 1, "settings": {"tol": 0.01, "k": 1}, "provenance": {"torch": "2"}}\n'
    b'{"step": 0, "loss": 1.5, "gradient_norm": 0.5, "eigenvalues": [2.0], "residuals": [0.001]}\n'
    b'{"step": 4, "loss": 1.0, "gradient_norm": 0.25, "eigenvalues": [3.0], "residuals": [0.002]}\n'
)


def unnamed(path: Path) -> bytes:
    """A checkpoint without the name under which it was written, which is drawn by chance."""
    target = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), target)
    return target.getvalue()


def sorted_by_name(content: bytes) -> bytes:
    """Safetensors whose metadata, which come in any order, stand in one."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def lightning() -> bytes:
    """What Lightning saves, with the classes of hyperparameters and optimizer left out."""
    target = io.BytesIO()
    torch.save(
        {
            "epoch": 1,
            "global_step": 2,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": {"model.a": torch.ones(3, 2), "model.b": torch.ones(3)},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
            "hyper_parameters": {"dim": 2},
        },
        target,
    )
    return target.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def attempt(reader: Reader, path: Path, content: bytes) -> str:
    """Read a file; return what is wrong with how that went, or nothing."""
    path.write_bytes(content)
    happened.clear()
    started, before = time.process_time(), peak()
    try:
        reader.read(path)
    except InputError as error:
        if len(str(error)) > 300 or not str(error).isprintable():
            return f"says {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    if (seconds := time.process_time() - started) > SECONDS:
        return f"took {seconds:.1f} s"
    if (grown := peak() - before) > MIB:
        return f"took {grown} MiB"
    return ", ".join(sorted(happened))


def peak() -> int:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (10 if sys.platform == "linux" else 20)


class Content(bytes):
    """Of a file; of a large one, Hypothesis shows how it begins."""

    def __repr__(self) -> str:
        return f"{self[:1000]!r}, {len(self)} bytes"


@st.composite
def changed(draw: st.DrawFn, reader: Reader, sound: list[bytes]) -> Content:
    """A file that a reader may be given: one that is sound, changed in one way."""
    mutation, content = draw(st.sampled_from(reader.mutations)), draw(st.sampled_from(sound))
    return Content(mutation(draw(st.randoms(use_true_random=False)), content))


def tried(name: str, sound: list[bytes], folder: Path, how: settings) -> int:
    """Try changed files; return how many: fewer than asked for where Hypothesis finds no others."""
    reader, count = READERS[name], 0

    @how
    @given(changed(reader, sound))
    def no_fault(content: bytes) -> None:
        nonlocal count
        count += 1
        with warnings.catch_warnings(action="ignore"):  # one line each
            assert not attempt(reader, folder / reader.name, content)

    no_fault()
    return count


@pytest.mark.parametrize("name", READERS)
def test_sound_files_are_read(name, sound, tmp_path):
    path = tmp_path / READERS[name].name
    for content in sound[name]:
        path.write_bytes(content)
        READERS[name].read(path)


@pytest.mark.parametrize("name", READERS)
def test_readers(name, sound, tmp_path):
    assert tried(name, sound[name], tmp_path, settings(OURS, max_examples=SOME, derandomize=True)) >= SOME


@pytest.mark.soak
@pytest.mark.parametrize("name", READERS)
def test_readers_for_long(name, sound, tmp_path):
    failed = DirectoryBasedExampleDatabase(f".hypothesis/{name}")
    assert tried(name, sound[name], tmp_path, settings(OURS, max_examples=MANY, database=failed)) >= MANY

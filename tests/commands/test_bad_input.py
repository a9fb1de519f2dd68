"""Bad input is one line and exit code 2; nothing is lost, half-written or run."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import RUN


def refused(landscape, *arguments, message, tmp_path):
    """The command ends with code 2 and one line, and leaves no file."""
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    code, out, err = landscape(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("landscape: ")
    assert message in err
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ("1 2 3\n2 a b\n", "line 2: expected whole numbers"),
        ("1 2 0\n", "line 1: item id 0"),
        ("1 2 -1\n", "line 1: item id -1"),
        ("1 2 3\n2 4\n", "no user has three items"),
    ],
)
def test_bad_data(landscape, tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_text(content)
    arguments = ["train", "--data", tmp_path / "a.txt", "--out", tmp_path / "run", "--format", "sequences"]
    refused(landscape, *arguments, message=message, tmp_path=tmp_path)


def test_divergence(landscape, data_file, tmp_path):
    arguments = ["train", "--data", data_file, "--out", tmp_path / "run", *RUN, "--lr", "1e30"]
    refused(landscape, *arguments, message="training diverged: the loss is", tmp_path=tmp_path)
    assert not (tmp_path / "run").exists()


class Trap:
    """A pickle that would leave a mark if it were run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def bad_checkpoints(folder, good):
    """Yield (name, what the message says) of files that are no checkpoints."""
    (folder / "empty.pt").write_bytes(b"")
    yield "missing.pt", "No such file"
    yield "empty.pt", "is empty"
    (folder / "text.pt").write_text("hello")
    yield "text.pt", "not a readable checkpoint"
    (folder / "cut.pt").write_bytes(good.read_bytes()[:5000])
    yield "cut.pt", "not a readable checkpoint"
    torch.save({"weights": {}}, folder / "other.pt")
    yield "other.pt", "names no task"
    torch.save({"task": "os:system"}, folder / "task.pt")
    yield "task.pt", "names the task 'os:system', which is not installed; add --task"
    torch.save([1, 2], folder / "list.pt")
    yield "list.pt", "expected a dictionary, found list"
    torch.save({"a": Trap(folder / "mark")}, folder / "trap.pt")
    yield "trap.pt", "never loaded"
    (folder / "pickle.pt").write_bytes(pickle.dumps(Trap(folder / "mark")))
    yield "pickle.pt", "never loaded"
    content = torch.load(good, weights_only=True)
    torch.save({**content, "format": "samrec checkpoint 99"}, folder / "format.pt")
    yield "format.pt", "expected 'samrec checkpoint 2'"
    torch.save({**content, "config": {**content["config"], "dim": 16}}, folder / "shape.pt")
    yield "shape.pt", "do not fit its settings"
    torch.save({key: value for key, value in content.items() if key != "weights"}, folder / "keys.pt")
    yield "keys.pt", "damaged checkpoint"
    weights = {name: t * torch.nan for name, t in content["weights"].items()}
    torch.save({**content, "weights": weights}, folder / "nan.pt")
    yield "nan.pt", "not finite"


def test_bad_checkpoints(landscape, runs, tmp_path):
    for name, message in list(bad_checkpoints(tmp_path, runs / "sasrec" / "best.pt")):
        refused(landscape, "hessian", "--ckpt", tmp_path / name, message=message, tmp_path=tmp_path)
    assert not (tmp_path / "mark").exists()  # no code was run


def test_a_bad_checkpoint_beside_a_good_one_leaves_nothing(landscape, runs, tmp_path):
    pair = ["--ckpt", runs / "sasrec" / "best.pt", "--ckpt", tmp_path / "missing.pt"]
    for command in ("surface", "hessian", "sharpness", "compare"):
        refused(landscape, command, *pair, "--out", tmp_path, message="No such file", tmp_path=tmp_path)


def test_data_that_are_not_the_checkpoints(landscape, runs, tmp_path):
    (tmp_path / "other.txt").write_text("1 1 2 3 4\n2 2 3 4 5\n")
    for command in ("evaluate", "hessian"):
        arguments = [command, "--ckpt", runs / "sasrec" / "best.pt", "--data", tmp_path / "other.txt"]
        refused(landscape, *arguments, message="is not the data of the checkpoint", tmp_path=tmp_path)


def test_checkpoints_of_different_data_are_not_compared(landscape, answer, runs, tmp_path):
    (tmp_path / "other.txt").write_text("1 1 2 3 4\n2 2 3 4 1\n")
    other = answer("train", "--data", tmp_path / "other.txt", "--out", tmp_path / "run", *RUN)["out"]
    arguments = ["hessian", "--ckpt", runs / "sasrec" / "best.pt", "--ckpt", f"{other}/best.pt"]
    refused(landscape, *arguments, message="have different data", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--loss", "bce"], ["--loss", "ce"]),
        (
            ["--loss", "gbce", "--negatives", "2"],
            ["--loss", "gbce", "--negatives", "2", "--calibration", "0.3"],
        ),
    ],
)
def test_checkpoints_of_different_losses_are_not_compared(landscape, answer, one, other, data_file, tmp_path):
    outs = [
        answer("train", "--data", data_file, *loss, "--out", tmp_path / name, *RUN)["out"]
        for name, loss in (("one", one), ("other", other))
    ]
    arguments = ["hessian", "--ckpt", f"{outs[0]}/best.pt", "--ckpt", f"{outs[1]}/best.pt"]
    refused(landscape, *arguments, message="have different losses", tmp_path=tmp_path)


def test_a_demo_of_another_seed_is_not_overwritten(landscape, tmp_path):
    (tmp_path / "interactions.txt").write_text("1 1 2 3\n")
    refused(landscape, "demo", "--out", tmp_path, message="a demo with another seed", tmp_path=tmp_path)


def test_data_that_have_moved(landscape, answer, data_file, tmp_path):
    moved = shutil.copy(data_file, tmp_path / "here.txt")
    out = answer("train", "--data", moved, "--out", tmp_path / "run", *RUN)["out"]
    Path(moved).rename(tmp_path / "there.txt")
    refused(
        landscape, "evaluate", "--ckpt", f"{out}/best.pt", message="say where with --data", tmp_path=tmp_path
    )
    assert answer("evaluate", "--ckpt", f"{out}/best.pt", "--data", tmp_path / "there.txt")["users"] == 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(landscape, both, data_file, tmp_path):
    for arguments in (["train", "--data", data_file, "--out", tmp_path / "run"], ["hessian", *both]):
        message = "device cuda was asked for, but this machine has none"
        refused(landscape, *arguments, "--device", "cuda", message=message, tmp_path=tmp_path)


def test_other_bad_input(landscape, both, data_file, tmp_path):
    out = ["--out", tmp_path / "out"]
    for arguments, message in (
        (["train", *out], "nothing to train on"),
        (
            ["train", "--data", data_file, "--rho", "0.1", *out],
            "rho is not a setting of sasrec, only of samrec",
        ),
        (["train", "--config", data_file, *out], "is not TOML"),
        (["train", "--config", "no.toml", *out], "landscape: cannot read TOML file no.toml: No such file"),
        (["train", "--data", data_file, "--shard-items", *out], "here is one"),
        (["surface", *both, "--radius", "-1", *out], "must be positive"),
        (["surface", *both, "--exclude", "nothing", *out], "no parameter matches"),
        (["surface", *both[:2], *both[:2], *out], "given twice"),
        (["sharpness", *both, "--measure", "blunt"], "no sharpness measure"),
        (["hessian", *both, "--task", "nowhere:nothing"], "no task"),
        (["report", tmp_path / "nothing"], "holds no comparison"),
        (["train", "--data", data_file, "--out", data_file / "run"], "is a file"),
        (["surface", *both, "--out", data_file], "is a file"),
        (["compare", *both, "--out", data_file / "a" / "b"], "is a file"),
        (["hessian", *both, "--out", data_file], "is a file"),
    ):
        refused(landscape, *arguments, message=message, tmp_path=tmp_path)

"""`kill -9` at random moments: the same command goes on, ends as if nothing had been, and reads nothing torn.

One kill a command, and fifty in `make soak`.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import landscape as ll
from samrec.checkpoint import load
from samrec.training.log import read_log
from tests.forked import ended, started
from tests.samrec.training.test_training import same_weights

COMMANDS = ("train", "surface", "hessian", "sweep")
SETTINGS = {
    "dim": 8,
    "max-length": 8,
    "batch-size": 16,
    "eval-every": 2,
    "dropout": 0.3,
    "epochs": 12,
    "save-every": 4,
}
FEW = ("--users", 40, "--device", "cpu")


def whole(out):
    """Read every file that lies there: none is torn."""
    for path in Path(out).rglob("*"):
        if path.name.startswith(".part."):
            continue  # dropped by the next run
        if path.suffix == ".npz":
            ll.load(path)
        elif path.suffix == ".pt":
            load(path)
        elif path.suffix == ".safetensors":
            assert same_weights(load(path), load(path.with_suffix(".pt")))
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))


def same_run(a, b):
    for name in ("last.pt", "best.pt", "best.safetensors", "epochs/epoch-0008.pt"):
        first, second = load(a / name), load(b / name)
        assert same_weights(first, second)
        assert (first.epoch, first.best, first.valid) == (second.epoch, second.best, second.valid)
    logs = [[{**line, "seconds": 0} for line in read_log(out / "metrics.jsonl")] for out in (a, b)]
    assert logs[0] == logs[1]


def same_surface(a, b):
    first, second = (ll.load(out / "sasrec.surface.npz") for out in (a, b))
    # One point after another or one in each thread add up float32 in another order.
    np.testing.assert_allclose(first.losses, second.losses, rtol=1e-5)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)


def same_spectrum(a, b):
    for part, key in (("hessian", "eigenvalues"), ("trace", "samples")):
        first, second = (getattr(ll.load(out / f"sasrec.{part}.npz"), key) for out in (a, b))
        # How many graphs are kept follows from the free memory, and each strategy has a rounding of its own.
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5 * np.abs(second).max())


def same_sweep(a, b):
    for run in (path.name for path in b.glob("method=*")):
        assert same_weights(load(a / run / "last.pt"), load(b / run / "last.pt"))
    tests = [[run["test"] for run in json.loads((out / "results.json").read_text("utf-8"))] for out in (a, b)]
    assert tests[0] == tests[1]


@pytest.fixture
def commands(data_file, runs):
    """Each command's arguments, and how its results are compared."""
    options = [part for name, value in SETTINGS.items() for part in (f"--{name}", value)]
    fixed = [f"{name.replace('-', '_')}={value}" for name, value in (SETTINGS | {"epochs": 4}).items()]
    sasrec = ("--ckpt", runs / "sasrec" / "best.pt", *FEW)
    return {
        "train": (["train", "--data", data_file, *options, "--device", "cpu", "--resume"], same_run),
        "surface": (["surface", *sasrec, "--dim", 1, "--grid", 301], same_surface),
        "hessian": (["hessian", *sasrec, "--top", 3, "--tol", 1e-5, "--trace"], same_spectrum),
        "sweep": (  # each of whose runs is a process that imports torch
            ["sweep", "--data", data_file, "--device", "cpu", "--vary", "method=samrec"]
            + [part for setting in fixed for part in ("--set", setting)],
            same_sweep,
        ),
    }


def kill(arguments, same, tmp_path, times, seed):
    """Kill a command so many times, at moments spread over the length of a run; often several in one run."""
    unbroken, said, draw = tmp_path / "unbroken", tmp_path / "said.txt", random.Random(seed)
    seconds = ended([*arguments, "--out", unbroken], said)
    kills, attempts = 0, 0
    while kills < times:
        out = tmp_path / f"attempt-{attempts}"
        running = started([*arguments, "--out", out], said)
        running.join(draw.uniform(0, seconds))
        if running.is_alive():
            running.kill()
            running.join()
            kills += 1
            whole(out)
            if kills < times and draw.random() < 0.7:
                continue  # the next process goes on from here
        ended([*arguments, "--out", out], said)
        whole(out)
        same(out, unbroken)
        assert not list(out.rglob(".part.*"))
        attempts += 1


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_goes_on_and_equals_one_that_was_not(commands, tmp_path, name):
    kill(*commands[name], tmp_path, times=1, seed=name)


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_killed_for_long(commands, tmp_path, name):
    arguments, same = commands[name]
    two = ["method=sasrec,samrec" if part == "method=samrec" else part for part in arguments]
    kill(two, same, tmp_path, times=50, seed=f"{name} for long")

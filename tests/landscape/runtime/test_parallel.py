"""Several processes are one: `torchrun` gives the results of a single process."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.report.report import read_comparison
from landscape.runtime.ranks import ALONE, Ranks
from samrec.checkpoint import load
from samrec.data.packing import TrainingBatches
from samrec.data.synthetic import markov, write_sequences
from samrec.training import loop
from tests import ranks
from tests.commands.test_compare_command import MEASUREMENTS
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def torchrun(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of three batches, a run on them, and one that stands in the middle."""
    path = tmp_path_factory.mktemp("ranks")
    write_sequences(markov(users=600, items=60, mean_length=8, seed=0).interactions, path / "data.txt")
    loop.train(ranks.config(path, epochs=2), path / "run", "cpu")
    ranks.curve(path, "two-resumed", method="samrec", every=2, epochs=2)
    ranks.curve(path, "two-items", **ranks.ITEMS, epochs=2)
    return path


@pytest.fixture(scope="module")
def two(folder):
    """What two ranks printed, said and found."""
    running = torchrun("-m", "tests.ranks", "together", folder)
    printed, said = running.communicate(timeout=900)
    assert (folder / "two.json").exists(), said
    return (
        [json.loads(line) for line in printed.splitlines()],
        said,
        json.loads((folder / "two.json").read_text()),
    )


@pytest.fixture(scope="module")
def one(folder):
    """The same by one process."""
    return ranks.measured(folder, "one")


def numbers(value):
    """All numbers in a nest of dictionaries and lists, but for times and what was chosen by them."""
    if isinstance(value, dict):
        return [n for key, item in value.items() if key != "seconds" for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def contents(folder):
    """What is known of the trainings of a comparison, and all arrays of its results."""
    comparison, measured = read_comparison(folder)
    return comparison.checkpoints, {
        (part, name): value
        for part, result in vars(measured["run"]).items()
        if result is not None  # no monitor watched this training
        for name, value in vars(result).items()
        if isinstance(value, np.ndarray)
    }


@pytest.mark.parametrize("number", range(len(ranks.COMMANDS)))
def test_shares_of_the_batches_of_the_users_or_of_the_items_give_what_all_do(folder, two, answer, number):
    arguments = [word for word in ranks.COMMANDS[number] if word != "--shard-items"]
    whole = answer(*arguments, "--ckpt", folder / "run" / "best.pt", "--device", "cpu")
    assert len(numbers(whole)) > 10
    # far below 1e-6 of it an eigenvalue's residual is rounding, which differs
    np.testing.assert_allclose(numbers(two[0][number]), numbers(whole), rtol=1e-6, atol=1e-6)


def test_a_comparison_by_ranks_is_that_of_one_process_which_takes_it_over(folder, two, answer, monkeypatch):
    compare = ["compare", "--ckpt", folder / "run" / "best.pt", *ranks.COMPARE, "--device", "cpu", "--out"]
    for haste in ranks.HASTE:
        monkeypatch.setattr(*haste)
    whole = answer(*compare, folder / "alone")
    for name in MEASUREMENTS:
        monkeypatch.setattr(ll, name, None)
    again = answer(*compare, folder / "compared")
    assert again == two[0][-1] | {"report": again["report"]}
    np.testing.assert_allclose(numbers(again), numbers(whole), rtol=1e-6, atol=1e-6)
    (mine, parts), (theirs, others) = (contents(folder / out) for out in ("alone", "compared"))
    assert theirs == mine
    assert parts.keys() == others.keys()
    for name, part in parts.items():
        # a small entry is a sum of large ones, whose rounding it has; residuals are relative, and small of 1
        largest = np.abs(part).max(initial=1)
        np.testing.assert_allclose(others[name], part, rtol=0, atol=1e-6 * largest, err_msg=name)
    assert {file.name for file in (folder / "compared").iterdir()} == {
        file.name for file in (folder / "alone").iterdir()
    }


def test_points_dealt_to_ranks_are_the_plane_of_one(one, two):
    np.testing.assert_allclose(two[2]["plane"]["losses"], one["plane"]["losses"], rtol=1e-6)
    assert two[2]["plane"]["all"] == one["plane"]["all"] == 81


@pytest.mark.parametrize("run", ["sasrec", "samrec", "resumed", "negatives sharded", "items sharded"])
def test_rows_dealt_to_ranks_train_as_one(one, two, run):
    """Fifty steps with dropout, validation, and runs that one process began and two ended."""
    mine, theirs = one[run], two[2][run]
    assert len(mine) == 6
    np.testing.assert_allclose(numbers(theirs), numbers(mine), rtol=1e-6)


def test_a_checkpoint_of_sharded_items_is_one_processs(folder, one, two):
    """Weights, moments, and the direction that SAM keeps, of all items."""
    mine, theirs = (load(folder / f"{name}-items" / "last.pt") for name in ("one", "two"))
    for a, b in zip(tensors(mine), tensors(theirs), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-8)


def tensors(checkpoint):
    optimizer = checkpoint.optimizer
    moments = [t for kept in optimizer["state"].values() for t in kept.values()]
    return [*checkpoint.weights.values(), *moments, *optimizer["directions"], optimizer["inverse"]]


def test_ranks_that_climb_alone_are_micro_batches_that_do(one, two):
    np.testing.assert_allclose(two[2]["steps"], one["steps"], rtol=1e-6, atol=1e-9)
    assert two[2]["alike"]


def test_one_object_a_command_and_one_line_an_error(two):
    printed, said, found = two
    first = ["checkpoints", "checkpoints", "path", "path", "out", "report"]
    assert [next(iter(each)) for each in printed] == first
    lines = [line for line in said.splitlines() if line.startswith("landscape: ")]
    assert lines == [
        "landscape: the frozen loss has 1 batches for 2 ranks, which need one each; "
        "start fewer processes, or take more --users"
    ]
    assert "exitcode  : 2" in said
    bound, *methods = found["refused"]
    assert bound == (
        "bound runs in one process; torchrun is for surface, hessian, sharpness, compare, evaluate, train"
    )
    assert all("use one process" in refused for refused in methods[:2])
    assert methods[2] == "with ascent rank, each rank needs all items; do not shard them"


def test_a_rank_that_is_killed_costs_its_unfinished_points(folder, one):
    running = torchrun("--max-restarts", "1", "-m", "tests.ranks", "dying", folder)
    _, said = running.communicate(timeout=900)
    assert running.returncode == 0, said
    restarted = json.loads((folder / "killed.json").read_text())
    assert restarted["reused"] >= 5
    assert restarted["reused"] + restarted["all"] == 81
    alone = ranks.plane(folder, "killed")  # reads the files of both
    assert alone["all"] == 1
    assert alone["losses"] == restarted["losses"]
    np.testing.assert_allclose(alone["losses"], one["plane"]["losses"], rtol=1e-6)


def test_a_signal_ends_all_ranks_after_one_step(folder):
    out = folder / "stopped"
    settings = ["--epochs", 10**6, "--patience", 10**6, "--dim", 8, "--max-length", 8, "--device", "cpu"]
    running = torchrun("-m", "landscape", "train", "--data", folder / "data.txt", "--out", out, *settings)
    while not (out / "last.pt").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    printed, said = running.communicate(timeout=900)
    assert said.count("landscape: stopped by SIGTERM in epoch ") == 1, said
    assert printed == ""
    last = load(out / "last.pt")
    assert f"in epoch {last.epoch + 1}, after step {len(last.sums)} of 3" in said


def test_shares_are_even_and_leave_nothing_out():
    for total in (0, 1, 5, 8):
        shares = [Ranks(rank, 3).share(total) for rank in range(3)]
        assert [i for share in shares for i in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    queue = ALONE.queue(5)
    assert [list(queue.take(3)), queue.left, list(queue.take(3)), list(queue.take(3))] == [
        [0, 1, 2],
        2,
        [3, 4],
        [],
    ]


def test_dealt_rows_keep_their_histories(split):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu"), negatives=2).of_users(
        split.trained[:20], 20, (0,)
    )
    parts = [batch.dealt(rank, 3) for rank in range(3)]
    assert sum(part.used.sum() for part in parts) == batch.used.sum()
    for rank, part in enumerate(parts):
        assert torch.equal(part.negatives, batch.negatives[:, rank::3])
        ends = batch.inputs.last // 6 % 3 == rank
        for name in ("items", "segments"):
            whole, own = (getattr(packed, name).flatten() for packed in (batch.inputs, part.inputs))
            assert torch.equal(whole[batch.inputs.last[ends]], own[part.inputs.last[ends]])


def test_ascent_rank_is_of_several_ranks(folder, tmp_path):
    with pytest.raises(InputError, match="ascent rank is for several processes"):
        loop.train(ranks.config(folder, method="samrec", ascent="rank"), tmp_path / "run", "cpu")
    with pytest.raises(ValueError, match="every reuses one direction, but ascent rank"):
        ranks.config(folder, method="samrec", ascent="rank", every=2)

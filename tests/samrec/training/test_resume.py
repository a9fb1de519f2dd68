"""Runs that are stopped, by a signal or without one, and go on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from landscape.errors import InputError, Stopped
from samrec.checkpoint import load, trajectory
from samrec.training import loop
from samrec.training.engines.solo import Solo
from samrec.training.engines.stacked import Stacked
from samrec.training.log import read_log
from samrec.training.stopping import SIGNALS, stopping
from tests.conftest import ROOT
from tests.samrec.training.test_training import at_step, same_weights, small

EPOCHS = 6  # of four steps


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [2, 14, 16, 24])
@pytest.mark.parametrize("settings", [{}, {"method": "samrec", "every": 3}])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_bit_for_bit(
    data_file, tmp_path, monkeypatch, number, step, settings
):
    """In the middle of an epoch, in its last step, and in the last step of all, which is no stop."""
    config = small(data_file, **settings)
    whole = loop.train(config, tmp_path / "whole", "cpu")
    before = signal.getsignal(number)
    at_step(step, lambda: os.kill(os.getpid(), number), monkeypatch)
    if step == 4 * EPOCHS:
        loop.train(config, tmp_path / "run", "cpu")
    else:
        with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name} in epoch") as caught:
            loop.train(config, tmp_path / "run", "cpu")
        assert caught.value.signal == number
        last = load(tmp_path / "run" / "last.pt")
        assert (last.epoch, len(last.sums)) == divmod(step, 4)
        monkeypatch.undo()
        loop.train(config, tmp_path / "run", "cpu", resume=True)
    assert signal.getsignal(number) is before
    for name in ("last.pt", "best.pt"):
        a, b = load(whole.out / name), load(tmp_path / "run" / name)
        assert same_weights(a, b)
        assert (a.epoch, a.best, a.valid) == (b.epoch, b.best, b.valid)
    logs = [read_log(o / "metrics.jsonl") for o in (whole.out, tmp_path / "run")]
    assert [line.get("loss") for line in logs[0]] == [line.get("loss") for line in logs[1]]


@pytest.mark.parametrize("number", [1, 2])
def test_the_seconds_of_an_epoch_are_those_of_all_its_parts(data_file, tmp_path, monkeypatch, number):
    """Of one run and of several: stopped twice within an epoch, each of whose steps takes a second."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    engine = Solo if number == 1 else Stacked
    step = engine.step

    def slow(*arguments):
        now[0] += 1
        return step(*arguments)

    configs = [small(data_file, epochs=2, seed=seed) for seed in range(number)]
    outs = [tmp_path / str(seed) for seed in range(number)]
    for stops in (2, 1):
        with monkeypatch.context() as patched:
            patched.setattr(engine, "step", slow)
            at_step(stops, lambda: os.kill(os.getpid(), signal.SIGTERM), patched, engine)
            with pytest.raises(Stopped):
                loop.train_together(configs, outs, "cpu", resume=True)
        now[0] += 100
    monkeypatch.setattr(engine, "step", slow)
    outcomes = loop.train_together(configs, outs, "cpu", resume=True)
    assert [outcome.seconds_per_epoch for outcome in outcomes] == [4] * number  # of the whole epoch alone
    for out in outs:
        assert [line["seconds"] for line in read_log(out / "metrics.jsonl") if "loss" in line] == [4, 4]


@pytest.mark.parametrize("happens", [lambda: os.kill(os.getpid(), signal.SIGTERM), KeyboardInterrupt])
@pytest.mark.parametrize("step", [2, 14, 16])
def test_a_trajectory_is_that_of_an_unbroken_run(data_file, tmp_path, monkeypatch, happens, step):
    config = small(data_file, save_every=4)
    whole = trajectory(loop.train(config, tmp_path / "whole", "cpu").out)
    at_step(step, happens, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "run", "cpu")
    monkeypatch.undo()
    loop.train(config, tmp_path / "run", "cpu", resume=True)
    parts = trajectory(tmp_path / "run")
    assert [p.name for p in parts] == [p.name for p in whole] == [f"epoch-000{n}.pt" for n in (0, 4, 6)]
    for a, b in zip(map(load, whole), map(load, parts), strict=True):
        assert same_weights(a, b)
        assert (a.epoch, a.best, a.valid) == (b.epoch, b.best, b.valid)


def test_a_resumed_run_may_keep_more_of_its_trajectory(data_file, tmp_path):
    """What it kept stays, but for epochs that it trains anew: a kill may come between two files."""
    config, out = small(data_file, epochs=4, save_every=3), tmp_path / "run"
    loop.train(config, out, "cpu")
    (out / "epochs" / "epoch-0005.pt").write_bytes(b"trained, and killed before last.pt")
    (out / "epochs" / ".part.epoch-0006.pt.x.pt").write_bytes(b"half of it")
    loop.train(config.model_copy(update={"epochs": 6, "save_every": 2}), out, "cpu", resume=True)
    assert {p.name for p in (out / "epochs").iterdir()} == {f"epoch-000{n}.pt" for n in (0, 3, 4, 6)}
    assert [load(path).epoch for path in trajectory(out)] == [0, 3, 4, 6]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_in_its_first_epoch_is_begun_anew(data_file, tmp_path, resume):
    out = tmp_path / "run"
    (out / "epochs").mkdir(parents=True)
    for name in ("epoch-0000.pt", "epoch-0001.pt", ".part.epoch-0002.pt.x.pt"):
        (out / "epochs" / name).write_bytes(b"of other settings")
    (out / "metrics.jsonl").write_text('{"epoch": 1, "loss": 9, "seconds": 1}\n')
    loop.train(small(data_file, epochs=3, save_every=3), out, "cpu", resume)
    assert {p.name for p in (out / "epochs").iterdir()} == {"epoch-0000.pt", "epoch-0003.pt"}
    assert [line["epoch"] for line in read_log(out / "metrics.jsonl") if "loss" in line] == [1, 2, 3]


def test_a_second_signal_acts_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with stopping() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stopped_run_that_has_diverged_keeps_the_last_good_state(data_file, tmp_path, monkeypatch):
    def diverge():
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(Solo, "_step", lambda self, parts: torch.tensor([float("nan"), 1.0, 1.0]))

    at_step(14, diverge, monkeypatch)
    with pytest.raises(ValueError, match="loss is nan in epoch 4, step 2"):
        loop.train(small(data_file), tmp_path / "run", "cpu")
    assert load(tmp_path / "run" / "last.pt").epoch == 3


@pytest.mark.parametrize("step", [3, 4, 12])
def test_runs_that_train_together_are_stopped_after_their_step_too(data_file, tmp_path, monkeypatch, step):
    """Also in the last step of an epoch that is not validated, after which they do not save by themselves."""
    configs = [small(data_file, seed=seed) for seed in (0, 1)]
    whole, parts = ([tmp_path / f"{name}-{seed}" for seed in (0, 1)] for name in ("whole", "parts"))
    loop.train_together(configs, whole, "cpu")
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch, Stacked)
    with pytest.raises(Stopped):
        loop.train_together(configs, parts, "cpu")
    monkeypatch.undo()
    assert [(c.epoch, len(c.sums)) for c in (load(out / "last.pt") for out in parts)] == 2 * [divmod(step, 4)]
    loop.train_together(configs, parts, "cpu", resume=True)
    for a, b in zip(whole, parts, strict=True):
        assert same_weights(load(a / "last.pt"), load(b / "last.pt"))
        logs = [read_log(out / "metrics.jsonl") for out in (a, b)]
        assert [line.get("loss") for line in logs[0]] == [line.get("loss") for line in logs[1]]


@pytest.mark.parametrize("step", [6, 8])
def test_a_signal_stops_runs_of_which_one_has_diverged(data_file, tmp_path, monkeypatch, step):
    """A sweep would go on with each of them alone, as if there had been none."""
    outs = [tmp_path / "diverged", tmp_path / "good"]
    taken = Stacked._step

    def diverge():
        os.kill(os.getpid(), signal.SIGTERM)
        lost = torch.tensor([[float("nan")], [0.0]])
        monkeypatch.setattr(Stacked, "_step", lambda self, parts: taken(self, parts) + lost)

    at_step(step, diverge, monkeypatch, Stacked)
    with pytest.raises(Stopped) as caught:
        loop.train_together([small(data_file, seed=seed) for seed in (0, 1)], outs, "cpu")
    assert caught.value.signal == signal.SIGTERM
    assert "loss is nan" in str(caught.value.__cause__)
    if step % 4:
        assert (load(outs[1] / "last.pt").epoch, len(load(outs[1] / "last.pt").sums)) == divmod(step, 4)


def command(data_file, out, *more):
    settings = [
        "--dim",
        "8",
        "--max-length",
        "8",
        "--batch-size",
        "16",
        "--eval-every",
        "2",
        "--dropout",
        "0.3",
    ]
    return [
        *(sys.executable, "-m", "landscape", "train", "--data", data_file, "--out", out, "--device", "cpu"),
        *settings,
        *more,
    ]


@pytest.mark.slow
def test_the_command_says_where_it_stopped(data_file, tmp_path):
    out = tmp_path / "run"
    running = subprocess.Popen(
        command(data_file, out, "--epochs", "100000", "--patience", "100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    while not (out / "last.pt").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.terminate()
    printed, said = running.communicate(timeout=300)
    assert running.returncode == 128 + signal.SIGTERM
    assert printed == ""
    assert said.startswith("landscape: stopped by SIGTERM in epoch ")
    assert said.endswith("continue with --resume\n")
    assert said.count("\n") == 1
    assert load(out / "last.pt").epoch > 0


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_resume_that_is_refused_changes_nothing(data_file, tmp_path):
    """Not the log, nor what is kept of epochs after the checkpoint."""
    out = loop.train(small(data_file, save_every=2), tmp_path / "run", "cpu").out
    damaged = torch.load(out / "epochs" / "epoch-0002.pt") | {"optimizer": {"state": {}, "param_groups": []}}
    torch.save(damaged, out / "last.pt")
    before = files(out)
    with pytest.raises(InputError, match="optimizer"):
        loop.train(small(data_file, save_every=2), out, "cpu", resume=True)
    assert files(out) == before


def test_the_best_epoch_of_another_run_is_not_evaluated_as_this_ones(data_file, tmp_path):
    config = small(data_file)
    out, other = (
        loop.train(c, tmp_path / name, "cpu").out
        for name, c in (("run", config), ("other", small(data_file, seed=9)))
    )
    (out / "best.pt").write_bytes((other / "best.pt").read_bytes())
    with pytest.raises(InputError, match="is not the best epoch of this run"):
        loop.train(config, out, "cpu", resume=True)

"""What an earlier run left in a folder: of this run, it is carried on or made anew; of another, it stays."""

import pytest

from landscape import InputError
from samrec.checkpoint import load
from samrec.config import configure, read_settings
from samrec.sweeps import processes
from samrec.sweeps.jobs import plan
from samrec.sweeps.sweep import sweep
from samrec.training.loop import train

SMALL = {"dim": 2, "heads": 1, "layers": 1, "max_length": 3, "epochs": 1, "eval_every": 1, "save_every": 1}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "d.txt").write_text("1 1 2 3 4 5\n2 2 3 4 1\n3 5 4 1 2\n")
    return configure({"data": str(tmp_path / "d.txt"), **SMALL})


@pytest.fixture
def left(config, tmp_path):
    """Train, and leave what a kill before the first last.pt would leave, at most."""

    def leave(**changes):
        out = train(config.model_copy(update=changes), tmp_path / "run", "cpu").out
        (out / "last.pt").unlink()
        return out

    return leave


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"dim": 4}, {"lr": 0.5}], ids=str)
@pytest.mark.parametrize("also", ["best.pt", "epochs/epoch-0001.pt"])
def test_a_checkpoint_of_another_run_is_neither_taken_for_this_ones_nor_lost(changes, also, config, left):
    out = left(**changes)
    for path in {*out.rglob("*.pt")} - {out / also}:
        path.unlink()
    before = contents(out)
    for resume in (False, True):
        with pytest.raises(InputError, match=f"{also} is of another run; move it"):
            train(config, out, "cpu", resume)
    assert contents(out) == before


def test_a_checkpoint_of_other_data_is_of_another_run(config, left, tmp_path):
    out = left()
    (tmp_path / "d.txt").write_text("1 1 2 3 5 4\n2 2 3 4 1\n3 5 4 1 2\n")
    with pytest.raises(InputError, match=r"best\.pt is of another run"):
        train(config, out, "cpu")


def test_what_is_no_checkpoint_is_not_lost(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pt").write_text("mine")
    with pytest.raises(InputError, match=r"best\.pt is of another run"):
        train(config, tmp_path / "run", "cpu")
    assert contents(tmp_path / "run") == {
        (tmp_path / "run" / "best.pt").relative_to(tmp_path / "run"): b"mine"
    }


def test_what_this_run_left_is_made_anew(config, left):
    out = left()
    best = load(out / "best.pt")
    again = train(config, out, "cpu", resume=True)
    assert (load(out / "best.pt").best, again.best_epoch) == (best.best, 1)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_refusal_for_memory_changes_nothing(config, left):
    out = left()
    before = contents(out)
    with pytest.raises(InputError, match="--max-memory"):
        train(config, out, "cpu", max_memory=0)
    assert contents(out) == before


def test_settings_of_another_run_are_replaced(config, left):
    out = left(lr=0.5)
    for path in out.rglob("*.pt"):
        path.unlink()
    train(config, out, "cpu")
    assert configure(read_settings(out / "config.toml")) == config


@pytest.mark.parametrize("given", [None, 0.5])
def test_a_sweep_tells_its_runs_how_much_memory_there_is(given, config, tmp_path, monkeypatch):
    calls = []

    class Ended:
        returncode = 0
        poll = wait = terminate = lambda self: 0

    monkeypatch.setattr(processes.subprocess, "Popen", lambda command, **_: calls.append(command) or Ended())
    sweep(plan({"data": config.data}, {"seed": ["0"]}, tmp_path / "sweep"), "cpu", 1, max_memory=given)
    (command,) = calls
    assert command[-2:] == (["--max-memory", "0.5"] if given else ["cpu", "--json"])

"""Commands that other packages add: found, listed, run, and nothing lost where they cannot be loaded."""

import json
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
import typer

from landscape.cli import app
from landscape.cli.options import by_ranks
from landscape.errors import InputError, Stopped
from landscape.runtime.ranks import Ranks
from tests.conftest import ROOT

WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "samrec":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Absent())
from landscape.cli.app import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["landscape", *arguments]
    try:
        main()
    except SystemExit as ended:
        print(f"code {ended.code}", flush=True)
assert not any(name.partition(".")[0] == "samrec" for name in sys.modules)
"""


def test_where_samrec_cannot_be_imported_the_measurements_work(tmp_path):
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "mine.pt")
    mine = ["--ckpt", str(tmp_path / "mine.pt"), "--task", "tests.tasks:regression", "--json"]
    runs = [
        ["--help"],
        ["hessian", *mine, "--top", "1"],
        ["surface", *mine, "--grid", "2", "--out", str(tmp_path / "out")],
        ["sharpness", *mine, "--measure", "sam"],
        ["train", "--data", "d.txt"],
    ]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(runs)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    listed, *found, refused = ran.stdout.split("code ")[:-1]
    assert all(name in listed for name in app.MEASUREMENTS)
    assert "│ train " not in listed
    for answered in found:
        code, _, printed = answered.partition("\n")
        assert code == "0"
        assert len(json.loads(printed)["checkpoints"]) == 1
    assert refused == "0\n"
    assert ran.stdout.endswith("code 2\n")
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("landscape: ")]
    assert "the command train cannot be loaded from samrec: No module named" in line


@pytest.fixture
def added(monkeypatch):
    """Let a package add a function, or whatever else stands under a name in this module, as commands."""

    def add(**named):
        points = [EntryPoint(name, f"{__name__}:{value}", app.GROUP) for name, value in named.items()]
        monkeypatch.setattr(app, "entry_points", lambda group: points)

    app._commands.cache_clear()
    yield add
    app._commands.cache_clear()


@by_ranks
def greet(name: str = "you") -> None:
    """Greet
    somebody."""
    print(f"hello {name}")


def stop() -> None:
    """Stop."""
    raise Stopped("stopped, as asked", signal.SIGTERM)


several = typer.Typer(help="Say one of several things.", add_completion=False)
several.command()(greet)
several.command()(stop)


def test_a_function_and_an_app_become_commands(landscape, added, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    added(greet="greet", several="several")
    listed = landscape("--help")[1]
    assert "from tests" in listed
    assert "Greet somebody." in listed
    assert "Say one of several things." in listed
    assert landscape("greet", "--name", "her")[:2] == (0, "hello her\n")
    assert landscape("several", "greet")[:2] == (0, "hello you\n")


def test_nothing_that_is_added_replaces_a_measurement(landscape, added):
    added(hessian="greet")
    assert "eigenvalues" in landscape("hessian", "--help")[1]
    assert landscape("--help")[1].count("hessian ") == 1
    assert app._commands()["hessian"].panel is None


def test_what_is_broken_costs_its_own_command_alone(landscape, added):
    added(greet="greet", lost="no_such_name")
    code, out, _ = landscape("--help")
    assert code == 0
    assert "greet" in out
    assert "lost" not in out
    code, out, err = landscape("lost")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "the command lost cannot be loaded from tests: module" in err


def test_a_command_that_a_signal_stopped_ends_with_its_code(landscape, added):
    added(stop="stop", several="several")
    for arguments in (["stop"], ["several", "stop"]):
        assert landscape(*arguments) == (128 + signal.SIGTERM, "", "landscape: stopped, as asked\n")


def test_a_command_says_itself_whether_ranks_share_it(added, monkeypatch, capsys):
    added(greet="greet", stop="stop")
    monkeypatch.setattr(app.parallel, "ranks", lambda: Ranks(0, 2))
    with pytest.raises(
        InputError, match=r"stop runs in one process; torchrun is for surface, .*compare, greet$"
    ):
        app.app(["stop"])
    app.app(["greet"], standalone_mode=False)
    assert capsys.readouterr().out == "hello you\n"

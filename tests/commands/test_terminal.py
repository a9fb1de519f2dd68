"""What commands print in a terminal of 80 and of 120 columns: no cell is broken, and files are named."""

import fcntl
import io
import os
import pty
import struct
import sys
import termios
import threading
from pathlib import Path

import pytest
from rich.cells import cell_len

import landscape as ll
from landscape.cli import app
from landscape.cli.output import show
from landscape.runtime.table import Table
from tests.conftest import RUN


class Terminal:
    """A pseudo-terminal in place of a standard stream, and what was written to it."""

    def __init__(self, columns):
        self.reader, writer = pty.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self.input = os.dup(0)
        os.dup2(writer, 0)  # rich asks standard input for the size
        self.parts = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        try:
            while part := os.read(self.reader, 65536):
                self.parts.append(part)
        except OSError:
            pass  # the writer has been closed

    def close(self):
        os.dup2(self.input, 0)
        os.close(self.input)
        self.stream.close()
        self.thread.join()
        os.close(self.reader)
        return b"".join(self.parts).decode().replace("\r\n", "\n")


@pytest.fixture
def within(monkeypatch):
    """Call a function in a terminal of some columns; return what it printed."""

    def run(columns, function):
        with monkeypatch.context() as patch:
            patch.delenv("COLUMNS", raising=False)
            patch.setenv("TERM", "xterm")
            screen = Terminal(columns)
            patch.setattr(sys, "stdout", screen.stream)
            try:
                function()
            finally:
                printed = _plain(screen.close())
        return printed

    return run


@pytest.fixture
def terminal(monkeypatch, within):
    """Run a command in a terminal of 80 columns; return what it printed.

    The tables that it was made of are checked there, and shown and checked again in one of 120 columns.
    """

    def run(*arguments):
        made, kept = [], Table.__init__

        def keep(self, *parts, **labels):
            kept(self, *parts, **labels)
            made.append(self)

        def command():
            with pytest.raises(SystemExit) as ended:
                app.main()
            assert ended.value.code == 0

        with monkeypatch.context() as patch:
            patch.setattr(Table, "__init__", keep)
            patch.setattr(sys, "argv", ["landscape", *map(str, arguments)])
            printed = within(80, command)
        assert made
        check(printed, made, 80)
        check(within(120, lambda: show(False, {}, *made)), made, 120)
        return printed

    return run


def _plain(text):
    """Return text without what makes a terminal bold."""
    parts = text.split("\x1b[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


QUICK = ["--users", 8]
COMMANDS = {
    "hessian": [
        "--top",
        3,
        "--tol",
        0.1,
        "--trace",
        "--probes",
        2,
        "--density",
        "--steps",
        4,
        "--by-group",
        "--out",
        "OUT",
    ],
    "sharpness": ["--measure", "sam", "--measure", "asam", "--measure", "average", "--out", "OUT/t.csv"],
    "surface": ["--grid", 3, "--out", "OUT"],
    "path": ["--grid", 3, "--metric", "valid-loss", "--metric", "HR@10", "--out", "OUT"],
    "compare": ["--grid", 2, "--top", 1, "--no-density", "--out", "OUT"],
    "bound": ["--samples", 4, "--out", "OUT"],
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A folder for each command, in which a second run finds what the first has measured."""
    return tmp_path_factory.mktemp("outputs")


def check(printed, tables, columns):
    """No line is longer than the terminal, and each cell stands whole on one line."""
    lines = printed.splitlines()
    assert max(map(cell_len, lines)) <= columns
    for table in (table for table in tables if table.columns):
        label = max(cell_len(row[0]) for row in table.rows)
        for row in [table.columns, *table.rows]:
            for cell in row:
                for part in cell.split("\n"):
                    fits = cell_len(part) + label + 8 <= columns
                    assert not fits or any(part.strip() in line for line in lines), part
        for index in range(1, len(table.columns)):  # no empty columns
            assert any(row[index] for row in table.rows), table.columns


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_measurement_fits_the_terminal(terminal, both, outputs, few_measures, command):
    out = outputs / command
    users = [] if command == "bound" else QUICK
    options = [str(part).replace("OUT", str(out)) for part in COMMANDS[command]]
    printed = terminal(command, *both, *users, *options)
    joined = "".join(printed.split())
    for file in (
        f for f in out.iterdir() if not f.name.startswith(".") and f.suffix in (".npz", ".png", ".csv")
    ):
        assert command == "compare" or "".join(file.name.split()) in joined, file.name
    if command == "hessian":
        assert "residual" in printed
    if command == "compare":
        assert "report.html" in joined


def test_the_trainer_fits_the_terminal(terminal, runs, data_file, tmp_path):
    small = [part for part in RUN if part not in {"--device", "cpu"}]
    out, dry = tmp_path / "run", ["--dry-run", "--out", tmp_path / "s"]
    for arguments in (
        ["train", "--data", data_file, "--out", out, *small, "--epochs", 1, "--eval-every", 1],
        ["evaluate", "--ckpt", runs / "sasrec", "--noise", 0.2],
        ["baselines", "--data", data_file],
        ["data", "info", data_file],
        ["data", "list"],
        ["sweep", "--data", data_file, "--set", "method=samrec", "--vary", "rho=0.1,0.2", *dry],
    ):
        terminal(*arguments)


@pytest.mark.slow
def test_a_page_and_a_file_are_named(terminal, outputs, tmp_path):
    folder, surface = outputs / "compare", outputs / "surface" / "sasrec.surface.npz"
    if not surface.exists():
        pytest.skip("the commands above were not run")
    printed = terminal("export", surface, tmp_path / "a.csv")
    assert "a.csv" in "".join(printed.split())
    assert "report.html" in "".join(terminal("report", folder).split())


@pytest.mark.parametrize("labels", [1, 2])
def test_a_table_that_is_too_wide_becomes_several_with_the_same_labels(labels):
    from rich.console import Console

    named, numbers = [f"label {i}" for i in range(labels)], [f"{i}.5 ± 0.25" for i in range(9)]
    head = [*([""] * labels), *(f"column {i}" for i in range(9))]
    table = Table("Title", head, [[*named, *numbers]], labels)
    console = Console(width=60, record=True, file=io.StringIO())
    for part in table.rich(60):
        console.print(part)
    said = console.export_text()
    assert said.count("Title") == 1
    assert [said.count(label) for label in named] == [3] * labels
    assert all(f"{i}.5 ± 0.25" in said for i in range(9))
    assert max(map(len, said.splitlines())) <= 60
    assert len(list(table.rich(200))) == 2  # the title, and one table


def test_a_single_cell_that_has_no_room_is_all_that_is_broken():
    from rich.console import Console

    wide = "x" * 100
    console = Console(width=60, record=True, file=io.StringIO())
    for part in Table("", ["", "a", "b"], [["label", wide, "short cell"]]).rich(60):
        console.print(part)
    said = console.export_text()
    assert said.count("x") == 100
    assert "short cell" in said


def test_a_folder_of_a_run_is_its_best_checkpoint(answer, runs, tmp_path, landscape):
    options = ["--top", 1, "--tol", 0.1, *QUICK]
    by_folder = answer("hessian", "--ckpt", runs / "sasrec", *options)["checkpoints"][0]
    assert by_folder["path"] == str(runs / "sasrec" / "best.pt")
    code, _, err = landscape("evaluate", "--ckpt", tmp_path)
    assert code == 2
    assert "is a folder without best.pt" in err


def test_capitals_in_a_metric_are_understood(runs):
    path, metrics = runs / "sasrec" / "best.pt", ("hr@10", "HR@10", "NDCG@10", "MRR")
    values = [ll.objectives_of([path], ll.TaskOptions(metric=metric))[0].value() for metric in metrics]
    assert values[0] == values[1]
    assert len(set(values)) > 1


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train", "--learning-rate", 1], "--lr"),
        (["train", "--hidden-size", 1], "--dim"),
        (["train", "--max-len", 1], "--max-length"),
        (["hessian", "--checkpoint", "a.pt"], "--ckpt"),
    ],
)
def test_an_option_by_another_name_is_suggested(landscape, arguments, meant):
    code, _, err = landscape(*arguments)
    assert code == 2
    assert f"Did you mean {meant}" in " ".join(err.split()) or f"{meant}" in err


def test_a_plain_run_warns_of_nothing(landscape, both, tmp_path):
    for command in (
        ["surface", *both, "--grid", 3, *QUICK, "--out", tmp_path / "s"],
        ["evaluate", *both[:2]],
    ):
        code, _, err = landscape(*command)
        assert (code, err) == (0, "")
    assert Path(tmp_path / "s" / "surface.png").exists()

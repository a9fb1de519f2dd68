"""Progress: one line on a terminal, a line every 30 s elsewhere, none when it is not wanted."""

import io
import re
import sys

import numpy as np
import pytest
import torch
from rich.cells import cell_len

import landscape as ll
from landscape.curvature.solver import Fall
from landscape.runtime import progress

MODEL = torch.nn.Linear(1, 1)


def loss(model, batch):
    return model(batch).sum(), 1


@pytest.fixture(autouse=True)
def spoken():
    progress.hush(False)
    yield
    progress.hush(False)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_plain_line_every_30_seconds(clock, capsys):
    with progress.stage("samrec", 3, 7), progress.bar("Hessian", 100) as advance:
        for _ in range(100):
            clock[0] += 0.75
            advance("loss 0.31")
    assert capsys.readouterr().err == (
        "landscape: samrec, 3 of 7: Hessian 40/100 · 0:30 · 0:45 left · loss 0.31\n"
        "landscape: samrec, 3 of 7: Hessian 80/100 · 1:00 · 0:15 left · loss 0.31\n"
    )


def test_what_is_quick_says_nothing(clock, capsys):
    with progress.bar("trace", 10) as advance:
        for _ in range(10):
            clock[0] += 2.9
            advance()
    assert capsys.readouterr() == ("", "")


def test_what_was_done_before_does_not_count_as_fast(clock, capsys):
    with progress.bar("sweep", 10, done=8) as advance:
        clock[0] += 3600
        advance()
    assert capsys.readouterr().err == "landscape: sweep 9/10 · 1:00:00 · 1:00:00 left\n"


@pytest.mark.parametrize("take", [ll.streamed, lambda source: ll.Objective(MODEL, source, loss)])
def test_batches_are_counted_while_they_are_read_even_where_they_do_not_end(take, clock, capsys, monkeypatch):
    class Slow:
        def __iter__(self):
            while True:
                clock[0] += 7
                yield torch.ones(1)

    for module in ("batches", "streams"):
        monkeypatch.setattr(f"landscape.objective.{module}.MANY", 12)
    with pytest.raises(ll.InputError, match="do not end after 12"):
        take(Slow())
    (first, second) = capsys.readouterr().err.splitlines()
    assert first.startswith("landscape: reading batches 5 · 0:")
    assert second.startswith("landscape: reading batches 10 · 1:")


def test_batches_in_a_list_are_not_counted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN", 0.0)
    ll.Objective(MODEL, [torch.ones(1)] * 3, loss)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [30, 80])
def test_a_bar_without_a_total_counts(columns, monkeypatch):
    lines = drawn(columns, ("A", 1, 1), "reading", None, "", monkeypatch)
    assert "3/?" in lines[-1]
    assert max(map(cell_len, lines)) <= columns


def test_quiet_is_for_nothing_at_all(clock, capsys, monkeypatch):
    progress.hush(True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar("trace", 10) as advance:
        clock[0] += 100
        advance("text")
        advance(total=5)
    assert capsys.readouterr() == ("", "")


def test_every_command_can_be_quiet(landscape, both, clock, monkeypatch):
    options = ["--top", 1, "--tol", 0.1, "--users", 8]
    monkeypatch.setattr(progress, "PLAIN", 0.0)
    assert "sasrec" in landscape("hessian", *both[:2], *options)[2]
    assert landscape("hessian", *both[:2], *options, "--quiet")[2] == ""
    for command in (["data", "info"], ["train"], ["report"]):
        assert "--quiet" in landscape(*command, "--help")[1]


def test_a_notebook_has_one_line_that_goes_away(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    with progress.bar("surface", 3) as advance:
        for _ in range(3):
            clock[0] += 1.5
            advance()
    out = capsys.readouterr().out
    assert "\n" not in out
    assert [part.strip() for part in out.split("\r") if part.strip()] == [
        "surface 1/3 · 0:02 · 0:03 left",
        "surface 2/3 · 0:03 · 0:02 left",
        "surface 3/3 · 0:04 · 0:00 left",
    ]
    assert out.endswith("\r" + " " * progress.WIDTH + "\r")


class Screen(io.StringIO):
    def isatty(self):
        return True


def drawn(columns, place, label, total, text, monkeypatch):
    """The lines that a bar draws on a terminal of some columns."""
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with progress.stage(*place), progress.bar(label, total) as advance:
        for _ in range(3):
            advance(text)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    return [line for part in text.split("\r") for line in part.split("\n") if line.strip()]


@pytest.mark.parametrize("columns", [20, 40, 60, 80])
@pytest.mark.parametrize("name", ["A", "a-run-with-a-name-that-never-ends", "模型" * 9, "[bold]\x1b[2J"])
@pytest.mark.parametrize(("label", "total"), [("Hessian", 5000), ("relative flatness of item", 10**6)])
def test_a_bar_takes_one_line(columns, name, label, total, monkeypatch):
    lines = drawn(columns, (name, 11, 12), label, total, "epoch 12 · loss 0.3123 · valid 0.12", monkeypatch)
    assert lines
    assert max(map(cell_len, lines)) <= columns
    if columns >= 40:
        assert all(f"/{total}" in line for line in lines)  # not one line is a second one of a bar
        assert columns >= 72 or all(re.search(r" [\d:-]+$", line) for line in lines)  # the time left is whole


def test_of_a_long_name_a_narrow_terminal_shows_both_ends_and_what_is_measured(monkeypatch):
    place = ("a-run-with-a-name-that-never-ends", 11, 12)
    (line, *_) = drawn(40, place, "Hessian", 500, "", monkeypatch)
    assert re.match(r"a-run-\w* … .*12: Hessian ", line)
    (line, *_) = drawn(40, ("A", 1, 1), "surface 51 × 51", 2601, "loss 0.3", monkeypatch)
    assert line.startswith("A: surface 51 × 51 ")


def test_a_forecast_is_right_where_residuals_fall_evenly():
    fall = Fall()
    assert fall.forecast(10, np.array([1e4])) is None
    for products in range(11, 30):
        excess = 1e4 * 10 ** -(0.1 * (products - 10))
        assert fall.forecast(products, np.array([excess, 1e-3])) == pytest.approx(50, abs=1)
    assert fall.forecast(50, np.array([0.5])) == 50


def test_lanczos_forecasts_its_products(monkeypatch):
    totals = []
    values = torch.linspace(1, 100, 200, dtype=torch.float64)
    matrix = torch.diag(values)

    class Matrix:
        shape, dtype, device = (200, 200), torch.float64, torch.device("cpu")

        def __call__(self, vector):
            return matrix @ vector

    from contextlib import contextmanager

    @contextmanager
    def bar(label, total, done=0):
        yield lambda text="", *, total=None: totals.append(total) if total else None

    monkeypatch.setattr(progress, "bar", bar)
    found = ll.top_eigenpairs(Matrix(), 2, tol=1e-6)
    print(totals)
    half = totals[len(totals) // 2]
    assert 0.6 * found.products < half < 1.6 * found.products  # the limit is 300

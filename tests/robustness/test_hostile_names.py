"""Names come from paths and from files: they are shown as they are, and never acted on."""

import io
import warnings

import numpy as np
import pytest

from landscape import InputError, PathProfile
from landscape.cli.output import Table, show
from landscape.plots.curves import curves_figure, eigenvalue_figure
from landscape.plots.interactive import interactive_figure, save_html
from landscape.plots.paths import path_figure
from landscape.plots.spectra import spectrum_figure
from landscape.plots.surfaces import band_figure, metric_figure, surface_figure
from landscape.tasks import FactCurve
from tests.results import COMMON, density, hessian, line, plane

NAMES = [r"$\frac{", "a$b_c$", "_hidden", "[bold]x[/]", ":smile:", "\x1b[2J", "a\nb", "%{x}", "\x9b1m"]


def way():
    t = np.linspace(0, 1, 5)
    metrics = {"a$b_c$": {"positions": [0.0, 1.0], "values": [1.0, 2.0], "standard_errors": [0.1, 0.1]}}
    rest = {"distance": 1.0, "length": 1.0, "bend": np.empty(0), "certificate": None, "metrics": metrics}
    known = {"ends": [0.0, 0.0], "height": 0.0, "at": 0.0, "standard_error": None}
    return PathProfile(kind="linear", positions=t, losses=t, **known, **rest, **COMMON)


def figures():
    """Each kind of figure, with all the names."""
    marks = [{"name": name, "at": [k / 10, 0.0], "loss": 0.1} for k, name in enumerate(NAMES)]
    between = [{"kind": "difference", "norm": 1.0}] * 2
    on_a_line = [{**mark, "at": mark["at"][:1]} for mark in marks]
    yield surface_figure({name: plane(marks=marks, directions=between) for name in NAMES[:2]})
    yield surface_figure({name: line(marks=on_a_line, directions=between[:1]) for name in NAMES})
    yield band_figure({name: [line(), line(2.0)] for name in NAMES})
    yield metric_figure({metric: {name: [line(), line(2.0)] for name in NAMES} for metric in NAMES[:2]})
    yield eigenvalue_figure({name: hessian() for name in NAMES})
    curve = FactCurve(NAMES[0], NAMES[1], (1.0, 2.0), (1.0, None))
    yield curves_figure({NAMES[0]: dict.fromkeys(NAMES, curve)})
    yield spectrum_figure({name: density() for name in NAMES}, {name: hessian() for name in NAMES})
    yield path_figure({name: way() for name in NAMES})


def test_figures_show_names_as_they_are():
    from matplotlib.text import Text

    for figure in figures():
        figure.draw_without_rendering()
        written = [t for t in figure.findobj(Text) if "mathdefault" not in t.get_text()]
        assert not any(t._preprocess_math(t.get_text())[1] for t in written)
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
        assert all(len(legend.get_texts()) >= len(NAMES) for legend in legends)


def test_a_page_shows_names_as_they_are(tmp_path):
    names = [*NAMES, "<script>alert(1)</script>", "</script>", "{{ 7 * 7 }}"]
    figure = interactive_figure({name: line() for name in names})
    text = save_html(figure, tmp_path / "a.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text
    assert not any("%{x}" in trace.hovertemplate.split("<br>")[0] for trace in figure.data)


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_is_told_nothing_by_a_name(name, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(False, {}, Table(name, [name], [[name], ["\ud800"]]), Table(name, [], []))
    show(True, {name: "\x9b2J\u2028\ud800"})
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\x9b" not in out
    if name in ("[bold]x[/]", ":smile:"):
        assert name in out
    assert all(c.isprintable() for c in str(InputError(name)))


def test_messages_are_one_short_line():
    said = str(InputError("a" * 10**6 + "\n" + "z" * 10**6))
    assert len(said) == 300
    assert said.startswith("aaa")
    assert said.endswith("zzz")
    assert str(InputError("short")) == "short"


def test_warnings_are_one_line(capsys):
    from landscape.cli.app import _one_line

    with warnings.catch_warnings():
        _one_line("a\x1b[2J\nb")
    assert capsys.readouterr().err == "landscape: warning: a\\x1b[2J\\nb\n"


def test_progress_shows_a_name_as_it_is(monkeypatch):
    from landscape.runtime import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.bar("[bold]\x1b[2J", 1) as advance:
        advance("[/red]\x9b")
    assert "[bold]\\x1b[2J" in terminal.getvalue()
    assert "\x9b" not in terminal.getvalue()

"""Results that claim nonsense: refused as they are loaded, or shown; tables and pictures never raise."""

import io
import json
import re
import zipfile
from contextlib import suppress
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from landscape import Bound, InputError, Slice, load
from landscape.curvature.trace import Diagonal, FrobeniusNorm
from landscape.flatness.comparison import compare
from landscape.flatness.notation import PLAIN
from landscape.flatness.words import notes, summary
from landscape.plots.interactive import interactive_figure
from landscape.plots.labels import axis_label, mark_label
from landscape.report.report import INDEX, read_index, render
from landscape.surface.geometry import Quadratic
from landscape.surface.slice import Certificate
from samrec.training.log import read_log
from tests.results import COMMON, density, facts, folder_of, hessian, line, plane, sharpness, trace
from tests.robustness.test_hostile_names import way

LONG = np.longdouble("1e4000")
DIGITS = 10**400


def certified(**changes):
    known = Certificate(True, 1e-3, 1e-3, 1e-3, 100, 1, 0.01, 1e-4, 1e-7, 0.1, 0.1, 40)
    settings = COMMON["settings"] | {"split": 1}
    return plane(certificate=replace(known, **changes), deviations=np.ones((5, 40)), settings=settings)


def bound():
    names = ("prior_sigmas", "kls", "losses", "loss_limits", "bounds", "kl_allowed")
    tables = {name: np.full((1, 2), 0.4) for name in names}
    known = {"loss": 0.5, "units": 10, "guess": 0.5, "distance": 1.0, "kinds": ["a"]}
    return Bound(**known, sigmas=np.array([0.1, 0.2]), **tables, **{**COMMON, "settings": {"delta": 0.05}})


KINDS = {
    "plane": plane,
    "line": line,
    "certified": certified,
    "hessian": hessian,
    "trace": lambda: trace(1.0),
    "sharpness": sharpness,
    "density": density,
    "path": way,
    "bound": bound,
    "norm": lambda: FrobeniusNorm(value=1.0, standard_error=0.1, samples=np.ones(3), **COMMON),
    "diagonal": lambda: Diagonal(values=np.ones(3), standard_errors=np.ones(3), **COMMON),
    "model": lambda: Quadratic(center=1.0, gradient=np.ones(2), hessian=np.eye(2), **COMMON),
}
# with all that a plane, a line or a path may hold
MARKS = [{"name": "a", "at": [0.0, 0.1], "loss": 1.0, "own_end": 2.0}]
FOUND = [
    {"kind": "eigenvector", "norm": 1.0, "eigenvalue": 2.0},
    {"kind": "principal component", "norm": 1.0, "explained_variance": 0.5},
]
WAY = {"trajectory": {"losses": [1.0, 2.0], "distances": [0.0, 1.0]}, "reused": 3}
FULL = {
    "marked plane": lambda: plane(
        marks=MARKS,
        directions=FOUND,
        trajectory=np.zeros((2, 2)),
        settings=COMMON["settings"] | WAY,
    ),
    "path elsewhere": lambda: replace(way(), settings={"own_end": 1.0}),
}
REFUSED = [
    ("plane", "losses", 1e308, "losses holds a number that is not from -1e+100 to 1e+100"),
    ("plane", "losses", LONG, "(TypeError)"),
    ("plane", "coordinates", np.inf, "coordinates holds a number that is not finite"),
    ("plane", "settings", {"theta_norm": DIGITS}, "settings holds a number"),
    ("plane", "cosine", 2.0, "cosine holds a number that is not from -1.01 to 1.01"),
    ("plane", "directions", [{"kind": "random", "norm": np.inf}] * 2, "directions holds a number"),
    ("line", "marks", [{"name": "a", "at": [1e308]}], "marks holds a number"),
    ("line", "center", -1e308, "center holds a number"),
    ("line", "evaluations", -1, "evaluations holds a number that is not from 0"),
    ("certified", "certificate", Certificate(True, 1, 1, 1, 1, 1, 1, 1, 1e308, 1, 1, 1), "float64 holds"),
    ("hessian", "eigenvalues", np.nan, "eigenvalues holds a number that is not finite"),
    ("hessian", "residuals", -1.0, "residuals holds a number that is not from 0"),
    ("hessian", "products", DIGITS, "products holds a number"),
    ("trace", "standard_error", -1.0, "standard_error holds a number that is not from 0"),
    ("sharpness", "weight_norm", -1.0, "weight_norm holds"),
    ("density", "weights", np.nan, "weights holds a number that is not finite"),
    ("density", "weights", 2.0, "weights holds a number that is not from"),
    ("density", "weights", 0.0, "(ValueError)"),
    ("path", "positions", 2.0, "positions holds a number that is not from 0 to 1"),
    ("bound", "sigmas", 0.0, "sigmas holds a number that is not from 1e-100"),
    ("bound", "kls", -1.0, "kls holds a number that is not from 0"),
    ("model", "seconds", -1.0, "seconds holds"),
]
SHOWN = [
    ("plane", "losses", np.inf),
    ("plane", "losses", 5e-324),
    ("plane", "losses", 1e100),
    ("line", "losses", 1e100),
    ("line", "center", 5e-324),
    ("line", "center", np.nan),
    ("hessian", "eigenvalues", 1e100),
    ("hessian", "gradient_norm", np.inf),
    ("trace", "value", 5e-324),
    ("trace", "samples", np.inf),
    ("sharpness", "loss", 1e100),
    ("sharpness", "by_draw", np.inf),
    ("sharpness", "by_draw", 5e-324),
    ("density", "nodes", 1e-50),
    ("density", "nodes", 1e100),
    ("path", "losses", np.nan),
    ("path", "height", -np.inf),
    ("bound", "bounds", np.inf),
    ("bound", "prior_sigmas", 1e-100),
    ("norm", "samples", 1e100),
    ("diagonal", "values", np.nan),
    ("model", "hessian", 1e100),
]


def changed(kind, name, value):
    result = KINDS[kind]()
    old = getattr(result, name)
    if isinstance(old, np.ndarray):
        value = np.full(old.shape, value)
    elif isinstance(old, tuple):
        value = tuple(np.full(part.shape, value) for part in old)
    return replace(result, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value", "message"), REFUSED)
def test_what_is_out_of_range_is_refused(kind, name, value, message, tmp_path):
    path = changed(kind, name, value).save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"is not a readable result file.*" + re.escape(message)) as error:
        load(path)
    assert len(str(error.value)) <= 300


def places(value, at=()):
    """Yield the path to each value in what JSON holds, of a list's entries to the first two."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, part in inner:
        yield (*at, key)
        yield from places(part, (*at, key))


def replaced(value, at, new):
    """Return what JSON holds with another value at a place; without it if that is `...`."""
    first, *rest = at
    other = value.copy()
    if rest or new is not ...:
        other[first] = replaced(value[first], rest, new) if rest else new
    else:
        del other[first]
    return other


@pytest.mark.parametrize("kind", KINDS | FULL)
def test_each_value_of_a_stored_result_may_be_another(kind, tmp_path):
    """It is refused as it is loaded, or shown: a string for a number, nothing for a list, or none at all."""
    with zipfile.ZipFile((KINDS | FULL)[kind]().save(tmp_path / "a.npz")) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    header = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
    for at in places(header["values"]):
        for new in ("x", None, [1], {"a": 1}, -1, ...):
            changed = header | {"values": replaced(header["values"], at, new)}
            np.save(written := io.BytesIO(), json.dumps(changed))
            with zipfile.ZipFile(tmp_path / "b.npz", "w") as damaged:
                for name, content in (members | {"header.npy": written.getvalue()}).items():
                    damaged.writestr(name, content)
            with suppress(InputError):
                found = load(tmp_path / "b.npz")
                assert repr(found), (at, new)
                assert found._repr_html_()
                if isinstance(found, Slice):
                    labels = [axis_label(found, axis) for axis in range(len(found.directions))]
                    assert all(map(str, [*labels, *map(mark_label, found.marks)]))


@pytest.mark.parametrize(("kind", "name", "value"), SHOWN)
def test_what_is_strange_is_shown(kind, name, value, tmp_path):
    found = load(changed(kind, name, value).save(tmp_path / "a.npz"))
    assert repr(found)
    assert found._repr_html_()
    found.to_frame("polars")
    with suppress(InputError, AttributeError):  # nothing to draw, or a kind that is not drawn
        np.ravel(found.plot())[0].figure.savefig(io.BytesIO(), dpi=20)
        plt.close("all")
    if kind in ("plane", "line") and np.isfinite(found.losses).any():
        interactive_figure({"a": found, "b": KINDS[kind]()})
    measured = {"hessian": hessian(), "trace": trace(2.0), "sharpness": sharpness()}
    pair = {part: {"a": one, "b": found if part == kind else one} for part, one in measured.items()}
    contrasts = compare(pair["sharpness"])
    assert PLAIN.table(contrasts)
    assert notes(contrasts) is not None
    assert summary(pair["hessian"], pair["trace"], contrasts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_a_result_has_a_range(kind, tmp_path):
    """A field that is a number, alone or in whatever, is refused at 10^200."""
    for name, value in vars(KINDS[kind]()).items():
        if isinstance(value, float | np.ndarray) and np.size(value):
            path = changed(kind, name, 1e200).save(tmp_path / "a.npz")
            with pytest.raises(InputError, match=f"{name} holds a number"):
                load(path)


@pytest.mark.parametrize("number", ["1e308", "-1e300", "9" * 400])
def test_a_comparison_of_nonsense(number, tmp_path):
    folder = folder_of(tmp_path, ["a"], facts=facts(0.2, 0.3))
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace("0.25", number, 1))
    with pytest.raises(InputError, match=r"compare\.json"):
        read_index(folder)
    with pytest.raises(InputError, match=r"compare\.json"):
        render(folder)


@pytest.mark.parametrize("number", ["1e308", "-1e300", "9" * 400])
def test_a_log_of_nonsense(number, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"epoch": 1, "loss": {number}}}\n')
    with pytest.raises(InputError, match="line 1 is not a training-log entry: loss"):
        read_log(path)

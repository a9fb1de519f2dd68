"""What every public result shows: a short text, a table in a notebook, a data frame, a picture."""

import dataclasses
import html.parser
import math
import re
import subprocess
import sys
from functools import cache

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

import landscape as ll
from landscape import plots
from landscape.flatness.measures import MEASURES
from landscape.plots.canvas import apart
from landscape.plots.faces import FACES
from landscape.plots.tables import of_estimate, of_spectra
from landscape.statistics import interval
from landscape.storage.display import Brief, Drawn, Shown, Turned
from tests.conftest import ROOT, Quadratic
from tests.results import LONG, density, hessian, line, measured, plane, sharpness, trace

MATRIX = torch.diag(torch.tensor([5.0, 2.0, 1.0, -0.5], dtype=torch.float64))


def objective(shift=0.0):
    at = torch.tensor([1.0, 0.5, 0.25, 0.1], dtype=torch.float64) + shift
    return ll.Objective(Quadratic(MATRIX, at.reshape(2, 2)), [None], lambda model, _: (model(), 1))


def monitor():
    """A monitor that has measured twice."""
    model, pairs = torch.nn.Linear(2, 1), [(torch.randn(8, 2), torch.randn(8, 1))]
    made = ll.Monitor(model, pairs, torch.nn.functional.mse_loss, k=2, at_most=None)
    for _ in range(2):
        made.step()
    return made


@cache
def results():
    """A result of every public kind, from what makes it where that is quick."""
    a, b = objective(), objective(0.3)
    share = ll.Objective(
        torch.nn.Linear(1, 1),
        [torch.linspace(0, 1, 8)[:, None]],
        lambda model, x: (torch.sigmoid(model(x)).sum(), len(x)),
        per_example=lambda model, x: (torch.sigmoid(model(x))[:, 0], torch.ones(len(x))),
    )
    frame = ll.between_frame(a, {"b": b.theta}, 1, "a")
    return {
        "Slice": ll.plane(a, radius=1.0, tol=1e-2),
        "line": line(),
        "Surfaces": ll.surfaces({"a": a, LONG: b}, grid=5),
        "band": ll.surfaces({"a": a}, dim=1, grid=5, seeds=3),
        "Quadratic": ll.quadratic_model(a, frame.directions),
        "Eigenpairs": ll.top_eigenpairs(a, 3),
        "not converged": hessian(),
        "Spectrum": ll.spectrum(a, top=3, trace=True, density=True, by_group=True, steps=4),
        "bare spectrum": ll.spectrum(a, top=1),
        "SpectralDensity": density(),
        "Trace": ll.trace(a),
        "FrobeniusNorm": ll.frobenius_norm(a),
        "Diagonal": ll.diagonal(a),
        "PathProfile": ll.barrier(a, b, grid=5),
        "Sharpness": sharpness(),
        "every measure": sharpness(measures=tuple(MEASURES)),
        "Comparison": ll.compare({"a": sharpness(), LONG: sharpness(2.0), "c": sharpness(0.5)}),
        "Bound": ll.pac_bayes_bound(share, sigmas=(0.1, 1.0), samples=4),
        "SharpnessHistory": (watched := monitor()).history,
        "Objective": a,
        "Operator": ll.hessian(a),
        "ParamSpace": a.params,
        "Frame": frame,
        "Direction": ll.random_direction(a.params),
        "Basin": ll.basins(plane())[0],
        "Certificate": ll.plane(a, radius=1.0, tol=1e-2).certificate,
        "Measurement": sharpness().measures["sam"],
        "FactCurve": ll.FactCurve("loss", "epoch", tuple(range(500)), (0.123456789,) * 500),
        "FactRow": ll.FactRow("test", (0.1,) * 7),
        "FactTable": ll.FactTable("Ranking", ("a",) * 9, (ll.FactRow("test", (0.1,) * 9),) * 9),
        "Facts": ll.Facts((), (ll.FactCurve("loss", "epoch", tuple(range(500)), (0.1,) * 500),) * 2),
        "TaskOptions": ll.TaskOptions(),
        "Monitor": watched,
        "SharpnessRecord": watched.records[0],
    }


NAMES = [  # the kinds are known before any is made
    "Slice", "line", "Surfaces", "band", "Quadratic", "Eigenpairs", "not converged", "Spectrum",
    "bare spectrum", "SpectralDensity", "Trace", "FrobeniusNorm", "Diagonal", "PathProfile", "Sharpness",
    "every measure", "Comparison", "Bound", "SharpnessHistory", "Objective", "Operator",
    "ParamSpace", "Frame", "Direction",
    "Basin", "Certificate", "Measurement", "FactCurve", "FactRow", "FactTable", "Facts", "TaskOptions",
    "Monitor", "SharpnessRecord",
]  # fmt: skip
SHOWN = NAMES[: NAMES.index("Objective")]


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_every_public_kind_of_object_is_tried():
    public = {name for name in ll.__all__ if isinstance(getattr(ll, name), type)} - {"InputError"}
    assert public <= {type(result).__name__ for result in results().values()}
    assert list(results()) == NAMES
    assert set(FACES) == {type(results()[name]) for name in SHOWN}


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_at_most_six_lines_and_500_characters(name):
    said = repr(results()[name])
    assert len(said) <= 500
    assert len(said.splitlines()) <= 6
    assert type(results()[name]).__name__ in said
    assert said.isprintable() or "\n" in said
    assert max(map(len, said.splitlines())) <= 120
    assert " at 0x" not in said
    assert not re.search(r"\d{10}", said)  # nobody reads sixteen digits


def test_a_short_text_still_says_the_numbers():
    assert "λ₁ 5 (" in repr(results()["Eigenpairs"])
    assert "The measured checkpoint: 1 of 2 eigenvalues have not converged" in repr(
        results()["not converged"]
    )
    assert repr(results()["Sharpness"]).startswith("Sharpness (")  # and not twice
    assert "7.00 ± 0.58" in repr(trace(7.0))
    a = results()["Objective"]
    assert repr(a) == (
        f"Objective: 4 parameters (float64), 1 batch of weight 1 in all, on cpu; L(θ) = {a.value():.6g}"
    )


class Tables(html.parser.HTMLParser):
    """The texts of all cells, and whether each tag that opens closes."""

    def __init__(self):
        super().__init__()
        self.cells, self.open, self.order = [], [], []

    def handle_starttag(self, tag, attrs):
        self.order.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["td"], ["th"]):
            self.cells.append(data)


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_shows_the_table_of_the_command_line(name):
    found = Tables()
    found.feed(results()[name]._repr_html_())
    assert not found.open
    assert found.order[:2] == ["p", "table"]  # the title stands above
    (first, *_) = FACES[type(results()[name])].tables(results()[name])
    assert set(found.cells) >= {cell for row in first.rows for cell in row if cell}


@pytest.mark.parametrize("value", [7.0, -1.23456, 1e-6 / 7, 12345.6])
def test_an_interval_that_is_written_holds_the_interval(value):
    found = trace(value, noise=abs(value) / 7)
    written = dict(of_estimate(found, "").rows)["95% interval"]
    low, high = map(float, written.split(" to "))
    assert low <= found.interval[0] < found.interval[1] <= high


@pytest.mark.parametrize(("reached", "mark"), [(None, ""), (True, ""), (False, " (not converged)")])
def test_an_estimate_that_misses_its_tolerance_says_so(reached, mark):
    found = trace(7.0)
    found = dataclasses.replace(found, settings={**found.settings, "reached": reached})
    assert dict(of_estimate(found, "").rows)["value"] == f"7.00 ± 0.58{mark}"


def test_the_first_eigenvalue_of_a_block_is_not_called_the_largest():
    """Power iteration finds the largest in magnitude, which may be the most negative."""
    sharp = torch.diag(torch.tensor([1.0, -5.0, 0.5, 0.1], dtype=torch.float64))
    at = torch.ones(2, 2, dtype=torch.float64)
    steep = ll.Objective(Quadratic(sharp, at), [None], lambda model, _: (model(), 1))
    found = ll.spectrum(steep, top=1, method="power", by_group=True)
    whole, blocks = of_spectra({"m": found})[:2]
    assert dict(whole.rows)["λ₁"].startswith("-5 ")
    assert dict(zip(blocks.columns, blocks.rows[0], strict=True))["λ₁"].startswith("-5 ")


def test_a_name_in_a_table_is_no_markup():
    hostile = "<script>alert(1)</script>"
    shown = ll.compare({hostile: sharpness(), "b": sharpness()})._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_frame_of_either_library_holds_the_same_numbers(name, library):
    pytest.importorskip(library)
    result = results()[name]
    frame = result.to_frame(library)
    columns = FACES[type(result)].columns(result)
    assert type(frame).__module__.startswith(library)
    assert list(frame.columns) == list(columns)
    assert len(frame) == len(next(iter(columns.values()))) > 0


def test_a_frame_holds_the_losses_at_their_places():
    result = plane()
    frame = result.to_frame("polars")
    for alpha, beta, loss in frame.sample(5, seed=0).iter_rows():
        i, j = (
            np.flatnonzero(axis == at)[0] for axis, at in zip(result.coordinates, (alpha, beta), strict=True)
        )
        assert result.losses[i, j] == loss


def test_without_pandas_a_frame_is_one_of_polars(monkeypatch):
    monkeypatch.setattr("landscape.storage.display.find_spec", lambda name: None)
    assert type(trace(1.0).to_frame()).__module__.startswith("polars")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ll.InputError, match="pandas is not installed"):
        trace(1.0).to_frame("pandas")
    with pytest.raises(ll.InputError, match="choose pandas or polars"):
        trace(1.0).to_frame("excel")


def test_xarray_has_the_losses_by_name_of_the_axis(monkeypatch):
    xarray = pytest.importorskip("xarray")
    result = plane()
    array = result.to_xarray()
    assert isinstance(array, xarray.DataArray)
    assert array.dims == ("alpha", "beta")
    assert float(array.sel(alpha=1.0, beta=-0.5)) == result.losses[4, 1]
    assert line().to_xarray().dims == ("alpha",)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ll.InputError, match="pip install xarray"):
        result.to_xarray()


@pytest.mark.parametrize(
    "name", [n for n in SHOWN if n not in ("Quadratic", "Trace", "FrobeniusNorm", "Diagonal", "Bound")]
)
def test_plot_draws_on_the_axes_that_are_given_or_on_its_own(name):
    result = results()[name]
    assert isinstance(result, Drawn)
    own = np.ravel(result.plot())
    assert all(axes.figure.number in pyplot.get_fignums() for axes in own)
    figure = Figure()
    given = figure.subplots(1, len(own), squeeze=False)[0]
    drawn = result.plot(ax=given[0] if len(own) == 1 else given, title="Mine")
    assert list(np.ravel(drawn)) == list(given)
    titles = [axes.get_title() for axes in given] if len(own) == 1 else [figure.get_suptitle()]
    assert "Mine" in titles
    with pytest.raises(ll.InputError, match=f"has {len(own)} panel"):
        result.plot(ax=list(Figure().subplots(1, len(own) + 1)))


def test_what_has_no_picture_says_so_by_having_no_plot():
    for name in ("Quadratic", "Trace", "FrobeniusNorm", "Diagonal", "Bound"):
        assert not hasattr(results()[name], "plot")


def test_planes_are_solid_and_lines_are_not():
    axes = results()["Slice"].plot_3d()
    assert axes.name == "3d"
    assert len(results()["Surfaces"].plot_3d()) == 2
    with pytest.raises(ll.InputError, match="no third dimension"):
        line().plot_3d()
    with pytest.raises(ll.InputError, match="three dimensions"):
        plane().plot_3d(ax=Figure().subplots())
    assert plane().interactive().data[0].type == "surface"
    assert len(results()["Surfaces"].interactive().data) == 2


def test_title_colour_map_levels_and_size_are_arguments():
    axes = plane().plot(cmap="viridis", levels=[0.0, 0.5, 1.0], size=(5, 4), title="A plane")
    filled = next(c for c in axes.collections if c.filled)
    assert filled.get_cmap().name == "viridis"
    assert filled.levels.tolist() == [0.0, 0.5, 1.0]
    assert axes.get_title() == "A plane"
    assert axes.figure.get_size_inches().tolist() == [5, 4]


@pytest.mark.parametrize("figure", [plots.surface_figure(plane()), plots.surface_figure({"a": line()})])
def test_a_figure_that_pyplot_does_not_know_shows_itself(figure):
    image, told = figure._repr_png_()
    assert image[1:4] == b"PNG"
    assert told["width"] == pytest.approx(110 * figure.get_figwidth(), abs=1)
    assert not pyplot.get_fignums()


def test_a_plot_leaves_the_settings_of_matplotlib_alone():
    with mpl.rc_context({"font.size": 13.0, "axes.spines.top": True, "figure.dpi": 71.0}):
        before = dict(mpl.rcParams)
        plane().plot()
        apart(plots.forest)(ll.compare({"a": sharpness(), "b": sharpness(2.0)}))
        assert dict(mpl.rcParams) == before


def test_measuring_needs_no_library_that_draws():
    code = (
        "import sys, torch, landscape as ll\n"
        "for name in ('matplotlib', 'pandas', 'polars', 'xarray', 'plotly'): sys.modules[name] = None\n"
        "o = ll.Objective(torch.nn.Linear(2, 1), [torch.ones(3, 2)], lambda m, x: (m(x).square().sum(), 3))\n"
        "print(o, ll.trace(o, probes=2), ll.trace(o, probes=2)._repr_html_())"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert all(said in ran.stdout for said in ("Objective: 3 parameters", "Trace: estimate", ">probes</td>"))


def test_mixins_are_three_and_every_result_has_one():
    for kind in FACES:
        assert issubclass(kind, Shown)
        assert dataclasses.is_dataclass(kind)
    assert {kind for kind in FACES if issubclass(kind, Turned)} == {ll.Slice, ll.Surfaces}
    assert issubclass(ll.Direction, Brief)


def test_a_forest_has_a_row_per_measure_and_the_first_checkpoint_at_one():
    draws = np.random.default_rng(0).normal(1.0, 0.01, 20)
    none = np.empty(0)
    a, b = (measured({"sam": (f * draws.mean(), f * draws, none), "asam": 2.0}) for f in (1.0, 3.0))
    axes = plots.forest({"a": a, "b": b})
    assert [label.get_text() for label in axes.get_yticklabels()] == ["L(θ)", "sam", "asam *"]
    marks = {drawn.get_ydata()[0]: drawn for drawn in axes.lines if drawn.get_marker() == "o"}
    assert marks[1].get_xdata()[0] == pytest.approx(3.0)
    assert marks[1].get_markerfacecolor() != "white"
    assert marks[2].get_markerfacecolor() == "white"  # without draws, no interval
    assert axes.get_xscale() == "log"


def test_the_intervals_of_a_single_checkpoint_are_students_t():
    draws = np.array([1.0, 1.1, 1.3])
    axes = plots.forest(measured({"sam": (draws.mean(), draws, np.empty(0))}))
    (bar,) = [drawn for drawn in axes.lines if drawn.get_linestyle() == "-"]
    low, high = interval(draws.mean(), draws.std(ddof=1) / 3**0.5, 3)
    assert bar.get_xdata() == pytest.approx([low, high])


def test_a_forest_hides_no_value_that_a_logarithm_has_no_place_for():
    draws = np.array([-0.2, 1.0, 1.1])
    rows = {"sam": (draws.mean(), draws, np.empty(0)), "asam": -0.25, "keskar": math.nan, "average": 0.0}
    axes = plots.forest(measured(rows))
    written = [(text.get_text(), text.xy[1]) for text in axes.texts if text.get_text()]
    assert written == [("-0.250", 2), ("nan", 3), ("0.00", 4)]
    (arrow,) = [text for text in axes.texts if text.arrow_patch]  # the interval holds 0, and goes on
    assert arrow.xy == (0, 1)
    (bar,) = [drawn for drawn in axes.lines if drawn.get_linestyle() == "-"]
    low, _ = axes.get_xlim()
    assert low > 0.1 * bar.get_xdata()[0]


def test_a_forest_names_a_checkpoint_whose_first_row_has_no_ratio():
    a, b, c = (measured({"sam": f}, loss=loss) for f, loss in ((1.0, -0.2), (2.0, 0.1), (3.0, 0.2)))
    axes = plots.forest({"a": a, "b": b, "c": c})
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "c"]


def test_a_trajectory_has_its_own_losses_and_its_distance_from_the_plane():
    """A way in two of four dimensions lies on its plane, and one that swings out of them does not."""
    here = objective()
    flat = [here.theta + torch.tensor([t, t**2, 0.0, 0.0], dtype=torch.float64) for t in (0.0, 0.5, 1.0)]
    bent = [point + torch.tensor([0.0, 0.0, (-0.1) ** i, 0.0]) for i, point in enumerate(flat)]
    for points, on_the_plane in ((flat, True), (bent, False)):
        frame = ll.trajectory_frame(here, points)
        result = ll.evaluate_slice(here, frame, grid=5)
        known = result.settings["trajectory"]
        assert known["losses"] == pytest.approx([here.value(point) for point in points])
        drawn = [
            here.theta + sum(x * d.vector for x, d in zip(at, frame.directions, strict=True))
            for at in frame.trajectory
        ]
        apart = [float((a - b).norm()) for a, b in zip(points, drawn, strict=True)]
        assert known["distances"] == pytest.approx(apart, abs=1e-9)
        assert (max(apart) < 1e-9) == on_the_plane
        upper, lower = plots.trajectory(result)
        assert upper.lines[0].get_ydata() == pytest.approx(known["losses"])
        assert lower.lines[0].get_ydata() == pytest.approx(known["distances"])
    with pytest.raises(ll.InputError, match="no trajectory with losses"):
        plots.trajectory(plane())

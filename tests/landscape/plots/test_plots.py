from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import landscape as ll
from landscape import InputError
from landscape.plots import canvas
from landscape.plots.curves import curves_figure, eigenvalue_figure
from landscape.plots.interactive import interactive_figure
from landscape.plots.levels import Scale, contours
from landscape.plots.monitor import sharpness_figure
from landscape.plots.solid import trajectory_figure
from landscape.plots.spectra import broadened, spectrum_ridge_figure
from landscape.plots.style import MISSING, save_figure
from landscape.plots.surfaces import loss_range, metric_figure, quadratic_figure, surface_figure
from landscape.plots.tables import _slice
from landscape.surface.geometry import Quadratic
from landscape.tasks import FactCurve
from tests.results import COMMON, hessian, line, plane, read_tick, shown


def panels(figure):
    return [axes for axes in figure.axes if axes.get_xlabel().startswith("step along")]


def test_planes_share_levels_colours_and_axes():
    """A flat plane beside a steep one must look flat."""
    figure = surface_figure({"flat": plane(0.1), "steep": plane(10.0)})
    flat, steep = (next(c for c in axes.collections if c.filled) for axes in panels(figure))
    np.testing.assert_array_equal(flat.levels, steep.levels)
    assert flat.get_clim() == steep.get_clim()
    assert len({axes.get_xlim() for axes in panels(figure)}) == 1


def test_a_logarithmic_scale_is_shared_and_says_what_it_is_of():
    figure = surface_figure({"flat": plane(0.1), "steep": plane(10.0)}, log=True)
    assert len({next(c for c in axes.collections if c.filled).get_clim() for axes in panels(figure)}) == 1
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "loss, coloured by\nlog₁₀(L − Lmin + 0.01), Lmin = -2"  # and Lmax = 12
    for at, label in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True):  # the ticks are losses
        assert at == pytest.approx(np.log10(float(label.get_text()) + 2 + 0.01), abs=0.01)
    assert len(bar.get_yticks()) >= 4
    with pytest.raises(InputError, match="log is for planes"):
        surface_figure({"a": line()}, log=True)


def test_a_corner_that_sets_the_range_does_not_leave_the_rest_in_one_colour():
    """A ResNet's plane with its BatchNorm statistics kept goes from 0.04 to 85, in one corner."""
    steep = plane(10.0)
    x, y = np.meshgrid(*steep.coordinates, indexing="ij")
    spike = replace(steep, losses=np.exp(6 * (x - y)))

    def label(figure):
        return figure.axes[-1].get_ylabel()

    assert "log" in label(surface_figure({"spike": spike}))
    assert "log" in label(surface_figure({"spike": spike, "flat": replace(steep, losses=0 * x)}))
    for linear in ({"steep": steep}, {"flat": plane(0.1), "steep": steep}, {"flat": plane(0.0)}):
        assert "log" not in label(surface_figure(linear))
    assert "log" not in label(surface_figure({"spike": spike}, log=False))
    assert "log" not in label(surface_figure({"spike": spike}, levels=[0, 1, 2]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("log", [False, True])
def test_planes_fill_their_figure_and_the_colour_bar_stands_beside_them(count, log):
    figure = surface_figure({f"m{i}": plane(1 / (1 + i)) for i in range(count)}, log=log)
    figure.draw_without_rendering()
    *planes, bar = ([axes.get_window_extent(), axes.get_tightbbox()] for axes in figure.axes)
    height = figure.bbox.height / figure.dpi
    assert height - max(box.y1 for _, box in planes) / figure.dpi < 0.2
    assert min(box.y0 for _, box in planes) / figure.dpi < 0.2
    assert 0 < (bar[0].x0 - planes[-1][0].x1) / figure.dpi < 0.3


@pytest.mark.parametrize("curved", [0.2, 1.0, 5.0])
def test_no_label_of_a_contour_is_cut_by_the_frame(curved):
    axis = np.linspace(-1, 1, 41)
    values = axis[:, None] ** 2 + curved * np.abs(axis) ** 3 + 0.3 * axis[:, None] * axis
    figure = Figure(figsize=(2.5, 2.5))
    axes = figure.subplots()
    contours(axes, [axis, axis], values, values.min(), values.max())
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    boxes = [label.get_window_extent() for label in axes.texts]
    assert len(boxes) >= 3
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)


def test_a_line_stands_above_what_its_quadratic_model_misses():
    result = line()
    model = Quadratic(center=1.0, gradient=np.zeros(1), hessian=np.eye(1), **COMMON)
    upper, lower = quadratic_figure(result, model).axes
    shown = {drawn.get_label(): drawn.get_ydata() for drawn in upper.lines}
    np.testing.assert_array_equal(shown["quadratic model"], model.at(result.coordinates))
    np.testing.assert_array_equal(lower.lines[-1].get_ydata(), shown["loss"] - shown["quadratic model"])


def test_a_plane_is_drawn_with_x_to_the_right():
    result = plane()  # steep along x (axis 0), gentle along y
    figure = interactive_figure({"a": result})
    (surface,) = figure.data
    assert surface.z[2][4] == result.losses[4, 2]  # plotly: z[row of y][column of x]
    assert np.ptp(surface.z[2]) > np.ptp([row[2] for row in surface.z])


def test_interactive_planes_share_their_scale():
    figure = interactive_figure({"flat": plane(0.1), "steep": plane(10.0)})
    ranges = [tuple(figure.layout[scene].zaxis.range) for scene in ("scene", "scene2")]
    assert ranges[0] == ranges[1]
    assert {figure.layout[scene].aspectmode for scene in ("scene", "scene2")} == {"cube"}
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == ranges[0]


def test_a_point_without_a_loss_is_drawn_as_missing():
    bent = plane()
    bent.losses[0, 0] = np.nan
    bent.losses[4, 4] = np.inf
    figure = surface_figure({"bent": bent, "whole": plane()})
    assert all(np.isfinite(c.levels).all() for axes in panels(figure) for c in axes.collections if c.filled)


def test_a_plane_without_any_loss_is_refused():
    empty = plane()
    empty.losses[:] = np.nan
    with pytest.raises(InputError, match="no point of these slices"):
        surface_figure({"empty": empty})


def test_lines_and_planes_do_not_mix():
    with pytest.raises(InputError, match="one dimension"):
        surface_figure({"a": line(), "b": plane()})


def test_a_constant_loss_is_a_picture_too():
    surface_figure({"constant": plane(0.0)})


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_figures_are_equal_files_when_equal(tmp_path, ending):
    a, b = (
        save_figure(surface_figure({"a": line(), "b": line(2)}), tmp_path / f"{n}.{ending}") for n in "ab"
    )
    assert a.read_bytes() == b.read_bytes()
    if ending == "pdf":
        assert b"/Type3" not in a.read_bytes()  # fonts are embedded as TrueType


def test_eigenvalues_that_have_not_converged_are_drawn_open():
    (axes,) = eigenvalue_figure({"a": hessian()}).axes
    faces = [mark.get_markerfacecolor() for mark in axes.lines if mark.get_marker() == "o"]
    assert faces[0] != "white"
    assert faces[1] == "white"


def test_curves_of_one_title_share_a_plot_and_a_checkpoint_has_one_colour():
    loss = {name: FactCurve("loss", "epoch", (1, 2), (1.0, None)) for name in "ab"}
    left, right = curves_figure(
        {"loss": loss, "accuracy": {"b": FactCurve("accuracy", "step", (2,), (0.1,))}}
    ).axes
    assert [line.get_label() for line in left.lines] == ["a", "b"]
    assert np.isnan(left.lines[0].get_ydata()).tolist() == [False, True]
    assert (right.get_xlabel(), right.get_ylabel()) == ("step", "accuracy")
    assert right.lines[0].get_color() == left.lines[1].get_color() != left.lines[0].get_color()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_curves_is_drawn(count):
    titles = [str(number) for number in range(count)]
    figure = curves_figure({t: {"a": FactCurve(t, "x", (1, 2), (0.0, 1.0))} for t in titles})
    assert [axes.get_ylabel() for axes in figure.axes if axes.lines] == titles


def test_ridges_are_the_densities_on_one_logarithmic_scale():
    diagonals = {0: torch.tensor([1.0, 1.0, 2.0]), 10: torch.tensor([0.5, 3.0, 4.0])}
    found = {}
    for step, diagonal in diagonals.items():
        net = torch.nn.Linear(3, 1, bias=False)
        objective = ll.Objective(net, [diagonal], lambda m, h: ((h * m.weight**2).sum() / 2, 1.0))
        found[step] = ll.spectral_density(objective, probes=2)
    (axes,) = spectrum_ridge_figure(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "10"]
    _, width, curves = broadened({str(step): density for step, density in found.items()}, {})
    ridges = [line.get_ydata() for line in axes.lines if np.isfinite(line.get_ydata()).all()]
    floor = 1 / (width * (2 * np.pi) ** 0.5) / 100
    decades = [
        np.ptp(ridge) / np.log10(curve.max() / floor)
        for ridge, curve in zip(ridges, curves.values(), strict=True)
    ]
    assert decades[0] == pytest.approx(decades[1])
    with pytest.raises(InputError, match="at least one density"):
        spectrum_ridge_figure({})


def test_an_edge_far_above_the_eigenvalues_leaves_them_readable():
    net = torch.nn.Linear(3, 1, bias=False)
    monitor = ll.Monitor(net, [(torch.eye(3), torch.ones(3, 1))], torch.nn.MSELoss(), k=2, at_most=None)
    monitor.step()
    history = monitor.history
    for edge, scale in ((100.0, "log"), (1.0, "linear")):
        (axes,) = sharpness_figure(replace(history, thresholds=np.array([edge]))).axes
        assert axes.get_yscale() == scale


@pytest.mark.parametrize(
    ("values", "said"),
    [((1e5, 9e5), "×10⁵"), ((1e-7, 9e-7), "×10⁻⁷"), ((0.1, 0.9), ""), ((1e6, 1e6 + 1e-5), "×10⁻⁵+1×10⁶")],
)
def test_a_power_of_ten_is_plain_text(values, said):
    (axes,) = canvas.panels(canvas.APART, 1, (2, 2))
    axes.plot(values)
    axes.figure.draw_without_rendering()
    assert axes.yaxis.get_offset_text().get_text().replace("\N{MINUS SIGN}", "-") == said


def bounds(figure, artists):
    figure.draw_without_rendering()
    return [artist.get_window_extent() for artist in artists]


@pytest.mark.parametrize("dimension", [1, 2])
def test_labels_of_two_marks_do_not_meet_and_stay_on_the_picture(dimension):
    rest = [0.0] * (dimension - 1)
    names = {"a model with seed 0": -0.5, "a model with seed 1": 0.5}
    marks = [{"name": name, "at": [at, *rest], "loss": 0.1} for name, at in names.items()]
    marks[1]["own_end"] = 0.123456
    figure = surface_figure({"": (line, plane)[dimension - 1](marks=marks)})
    texts = figure.axes[0].texts[-2:]
    assert texts[1].get_text() == "a model with seed 1 (its own loss is 0.1235)"
    first, second = bounds(figure, texts)
    assert not first.overlaps(second)
    for box in (first, second):
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width


def test_many_lines_are_told_apart_and_their_legend_covers_none():
    slices = {f"model {i}": line(height=1 + i) for i in range(10)}
    figure = surface_figure(slices)
    drawn = [one for one in figure.axes[0].lines if one.get_label().startswith("model")]
    assert len({(one.get_color(), one.get_linestyle()) for one in drawn}) == len(drawn) == 10
    frame, legend = bounds(figure, [figure.axes[0], figure.legends[0]])
    assert not frame.overlaps(legend)
    page = interactive_figure(slices)
    assert len({(trace.line.color, trace.line.dash) for trace in page.data}) == 10


def test_a_single_line_has_a_label_without_a_name():
    (text,) = surface_figure({"": line()}).axes[0].get_legend().get_texts()
    assert text.get_text().startswith("‖d‖/‖θ‖ = ")


def test_a_constant_has_the_picture_of_a_constant():
    noisy = plane()
    noise = 1 + 1e-15 * np.random.default_rng(0).standard_normal(noisy.losses.shape)
    constant = replace(noisy, losses=noise)
    low, high = loss_range({"": constant})
    assert low == high == pytest.approx(1)
    assert not surface_figure({"": constant}).axes[0].texts  # no level lies within


@pytest.mark.parametrize(
    "levels", [[], [0.5], [0.5, 0.5], [0.5, np.nan], [0.5, np.inf], ["a", "b"], 0, -3, 0.5, True, 10**4]
)
@pytest.mark.parametrize("log", [False, True])
def test_levels_that_are_none_are_refused_in_a_line(levels, log):
    with pytest.raises(InputError, match=r"levels is .*; it must be a whole number from 1 to 1,000, or two"):
        surface_figure({"": plane()}, levels=levels, log=log)


def test_on_a_logarithmic_scale_levels_begin_at_the_least_loss():
    figure = surface_figure({"": plane()}, levels=np.array([-5, -1, 0.5, 1]), log=True)
    least = float(plane().losses.min())
    (drawn,) = [c.levels for c in figure.axes[0].collections if getattr(c, "filled", False)]
    scale = Scale(least, float(plane().losses.max()), log=True)
    assert drawn.tolist() == pytest.approx(scale.heights([least, 0.5, 1]).tolist())
    with pytest.raises(InputError, match=f"losses of {least:.4g} or more"):
        surface_figure({"": plane()}, levels=[-5, -1], log=True)


@pytest.mark.parametrize(("width", "aspect"), [(1, 1.0), (0.5, 1.0), (0.05, "auto"), (20, "auto")])
def test_steps_have_one_length_unless_one_axis_is_far_longer(width, aspect):
    x, y = np.linspace(-width, width, 5), np.linspace(-1, 1, 5)
    figure = surface_figure({"": shown(x[:, None] ** 2 + y**2, x, y)})
    assert figure.axes[0].get_aspect() == aspect


@pytest.mark.parametrize("height", [1e-9, 1e-5, 1.0, 1e6])
def test_losses_of_any_size_are_written_with_their_digits(height):
    scale = Scale(height, 2 * height, log=True)
    written = scale.ticks().values()
    np.testing.assert_allclose(
        scale.heights([read_tick(text) for text in written]), list(scale.ticks()), atol=0.3
    )
    assert max(map(len, written)) <= 10
    low, high = _slice(line(height=height))[1:3]
    assert (float(low), float(high)) == pytest.approx((0, height))


def test_points_are_those_of_earlier_runs_too():
    resumed = line(settings={"theta_norm": 2.0, "reused": 116})
    assert _slice(replace(resumed, evaluations=1))[4] == "117"


def test_lines_along_different_eigenvectors_each_have_their_own_eigenvalue():
    def along(value):
        return line(directions=[{"kind": "eigenvector", "norm": 1.0, "eigenvalue": value}])

    one, both = {"a": along(3.0)}, {"a": along(3.0), "b": along(300.0)}
    assert surface_figure(one).axes[0].get_xlabel() == "‖δ‖, eigenvector of λ = 3"
    axes = surface_figure(both).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.get_xlabel() == "‖δ‖, along an eigenvector"
    assert names == ["a (λ = 3, ‖d‖/‖θ‖ = 0.5)", "b (λ = 300, ‖d‖/‖θ‖ = 0.5)"]
    metrics = metric_figure({"loss": {name: [found] for name, found in both.items()}})
    assert metrics.axes[0].get_xlabel() == axes.get_xlabel()
    turned = interactive_figure(both)
    assert turned.layout.xaxis.title.text == "α, ‖δ‖, along an eigenvector"
    assert [caption["facts"].split(", ")[1] for caption in turned.layout.meta["panels"][0]] == [
        "λ = 3",
        "λ = 300",
    ]
    mixed = {"a": along(3.0), "b": line()}
    assert surface_figure(mixed).axes[0].get_xlabel() == "step along d"


@pytest.mark.parametrize(
    ("matrices", "label"),
    [
        (["hessian"], "Hessian eigenvalue"),
        (["gauss-newton"] * 2, "Generalized Gauss-Newton eigenvalue"),
        (["fisher"], "Empirical Fisher eigenvalue"),
        (["MyOperator"], "eigenvalue"),
        (["hessian", "fisher"], "eigenvalue"),
    ],
)
def test_eigenvalues_are_named_for_their_matrix(matrices, label):
    of = {str(i): replace(hessian(), settings={"matrix": m, "tol": 1e-3}) for i, m in enumerate(matrices)}
    assert eigenvalue_figure(of).axes[0].get_ylabel() == label


@pytest.mark.parametrize(
    ("losses", "scale"), [([3.0, 2.0], "log"), ([-1.0, -2.0], "linear"), ([1.0, 0.0], "linear")]
)
def test_a_trajectory_of_losses_that_are_not_positive_is_not_hidden_by_a_logarithm(losses, scale):
    known = {"losses": losses, "distances": [0.0, 0.1]}
    way = plane(
        trajectory=np.array([[0.5, 0.5], [0.0, 0.0]]), settings=COMMON["settings"] | {"trajectory": known}
    )
    upper = trajectory_figure({"": way}).axes[0]
    low, high = upper.get_ylim()
    assert upper.get_yscale() == scale
    assert all(low <= loss <= high for loss in losses)


@pytest.mark.parametrize("log", [False, True])
def test_losses_beyond_the_levels_do_not_look_missing(log):
    figure = surface_figure({"": plane()}, levels=[-9.0, 0.2, 0.4], log=log)
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    grey = np.array(to_rgb(MISSING)) * 255
    assert (np.abs(pixels - grey).max(-1) < 2).mean() < 0.005  # the plane takes a third of the picture
    with pytest.raises(InputError, match="two or more different losses"):
        surface_figure({"": plane()}, levels=[-9.0, -9.0], log=log)


@pytest.mark.parametrize(("middle", "width"), [(10, 1e-4), (-2.5, 1e-6), (0, 1e-9), (3, 1)])
def test_labels_of_contours_tell_a_narrow_range_apart(middle, width):
    axis = np.linspace(-1, 1, 9)
    figure = surface_figure({"": shown(middle + width * (axis[:, None] ** 2 + axis**2), axis, axis)})
    (lines,) = (c for c in figure.axes[0].collections if not c.filled)
    written = {read_tick(text.get_text()) for text in figure.axes[0].texts}
    assert len(written) >= 3
    for number in written:
        assert np.abs(lines.levels - number).min() < 0.01 * np.diff(lines.levels).min()

"""What stands in a picture: names, ticks and numbers, whatever their length and size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import landscape as ll
from landscape.plots import canvas
from landscape.plots.curves import curves_figure, eigenvalue_figure
from landscape.plots.levels import Scale
from landscape.plots.monitor import sharpness_figure
from landscape.plots.spectra import spectrum_figure, spectrum_ridge_figure
from landscape.plots.surfaces import band_figure, metric_figure, quadratic_figure, surface_figure
from landscape.plots.tables import _slice, of_history
from landscape.surface.geometry import Quadratic
from landscape.tasks import FactCurve
from tests.results import COMMON, density, hessian, line, plane, read_tick, sharpness

LONG_NAME = (
    "a name of a checkpoint with $x_1$ that says everything_about_its_training_and_never_takes_a_breath"
)


def long_histories():
    net = torch.nn.Linear(3, 1, bias=False)
    monitor = ll.Monitor(net, [(torch.eye(3), torch.ones(3, 1))], torch.nn.MSELoss(), k=2, at_most=None)
    monitor.step()
    return {LONG_NAME: monitor.history, "b": monitor.history}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: surface_figure({LONG_NAME: line(), "b": line(2)}, title=LONG_NAME),
        lambda: surface_figure({LONG_NAME + str(i): line(i) for i in range(5)}),
        lambda: surface_figure({LONG_NAME: plane(), "b": plane(2)}, title=LONG_NAME),
        lambda: canvas.figure_of(ll.plots.surface_3d({LONG_NAME: plane(), "b": plane()}, ax=canvas.APART)),
        lambda: band_figure({LONG_NAME: [line(), line(2)], "b": [line()]}),
        lambda: metric_figure({m: {LONG_NAME: [line()], "b": [line(2)]} for m in ("loss", "mrr", "hr@10")}),
        lambda: eigenvalue_figure({LONG_NAME: hessian(), "b": hessian()}),
        lambda: curves_figure({LONG_NAME: {LONG_NAME: FactCurve("loss", "epoch", (1, 2), (1.0, 0.5))}}),
        lambda: spectrum_figure({LONG_NAME: density(), "b": density()}, {LONG_NAME: hessian()}),
        lambda: spectrum_ridge_figure({LONG_NAME: density(), "b": density()}),
        lambda: sharpness_figure(long_histories()),
        lambda: canvas.figure_of(
            ll.plots.forest({n: sharpness() for n in (LONG_NAME, LONG_NAME + "2", "b")}, ax=canvas.APART)
        ),
    ],
)
def test_a_long_name_neither_leaves_the_figure_nor_takes_its_room(draw):
    figure = draw()
    figure.draw_without_rendering()
    frame = figure.bbox
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
    widest = max(axes.get_window_extent().width for axes in figure.axes)
    assert widest > 0.15 * frame.width
    for text in (one for one in texts if one.get_text()):
        box = text.get_window_extent()
        assert frame.x0 - 2 <= box.x0, text.get_text()
        assert box.x1 <= frame.x1 + 2, text.get_text()
    assert any("takes_a_breath" in "".join(text.get_text().split()) for text in figure.findobj(Text))


def test_a_title_and_the_facts_of_lines_do_not_meet():
    figure = surface_figure({"a": line()}, title="A title that is as long as the picture is wide")
    axes = figure.axes[0]
    figure.draw_without_rendering()
    head, facts = (one.get_window_extent() for one in (axes.title, axes._left_title))
    assert head.y0 >= facts.y1
    assert axes.get_title()
    assert axes.get_title(loc="left")


@pytest.mark.parametrize(("low", "high"), [(1000.0012, 1006.0), (1e-7, 2e-7), (2.5, 1e34), (-3.25, 1e5)])
def test_the_ticks_of_a_logarithmic_scale_are_losses_to_a_tenth_of_the_next(low, high):
    scale = Scale(low, high, log=True)
    ticks = scale.ticks()
    losses = [low + 10**height - scale.epsilon for height in ticks]
    for loss, text in zip(losses, ticks.values(), strict=True):
        step = max(abs(loss - low), losses[1] - low)
        assert abs(read_tick(text) - loss) <= 0.1 * step
        assert len(text) <= 10
    assert read_tick(scale.label.rpartition("= ")[2]) == pytest.approx(low, abs=0.1 * scale.epsilon)


@pytest.mark.parametrize(("middle", "width"), [(1000.0012, 1e-6), (0, 1e34), (5.4321, 1e-5)])
def test_the_factor_of_a_colour_bar_takes_no_room_and_is_that_of_the_heights(middle, width):
    result = plane(width)
    result = replace(result, losses=result.losses + middle)
    flat = surface_figure({"": result})
    solid = canvas.figure_of(ll.plots.surface_3d(result, ax=canvas.APART))
    for figure in (flat, solid):
        figure.draw_without_rendering()
        assert figure.axes[0].get_window_extent().width > 0.5 * figure.bbox.width
        assert not figure.axes[1].yaxis.get_offset_text().get_visible()
    factor = solid.axes[0].zaxis.get_major_formatter().get_offset()
    assert factor
    assert {figure.axes[1].get_ylabel() for figure in (flat, solid)} == {f"loss ({factor})"}


def test_a_quadratic_model_is_drawn_where_the_loss_is_not_finite():
    result = plane()
    result.losses[-1, -1] = np.nan
    model = Quadratic(center=0.0, gradient=np.array([50.0, 50.0]), hessian=np.eye(2), **COMMON)
    drawn = next(c for c in quadratic_figure(result, model).axes[1].collections if c.filled)
    assert drawn.levels[-1] >= model.at(result.coordinates).max()


def test_more_lines_than_colours_differ_in_their_dashes():
    names = [str(number) for number in range(9)]
    figures = [
        surface_figure({name: line() for name in names}),
        band_figure({name: [line(), line(2)] for name in names}),
        metric_figure({"loss": {name: [line()] for name in names}}),
        curves_figure({"loss": {name: FactCurve("loss", "epoch", (1, 2), (1.0, 0.5)) for name in names}}),
        spectrum_figure({name: density() for name in names}),
    ]
    for figure in figures:
        drawn = [one for one in figure.axes[0].lines if one.get_label().split(" ")[0] in names]
        assert len({(one.get_color(), one.get_linestyle()) for one in drawn}) == len(names)


def test_a_band_says_how_many_directions_each_model_has():
    (axes,) = band_figure({"a": [line()] * 4, "b": [line()] * 3, "c": [line()] * 2}).axes
    assert axes.get_xlabel() == "step along d (2 to 4 random directions)"
    (axes,) = band_figure({"a": [line()] * 4, "b": [line()] * 4}).axes
    assert axes.get_xlabel() == "step along d (4 random directions)"


def test_the_strip_of_eigenvalues_has_no_ticks_of_the_density():
    names = "abcdef"
    (axes,) = spectrum_figure({n: density() for n in names}, {n: hessian() for n in names}).axes
    floor = next(drawn.get_ydata()[0] for drawn in axes.lines if drawn.get_color() == "0.8")
    assert len(axes.get_yticks()) >= 2
    assert min(axes.get_yticks()) >= floor


def test_losses_that_differ_are_written_so_that_they_differ():
    close = replace(line(1e-6), losses=1000 + line(1e-6).losses)
    low, high = _slice(close)[1:3]
    assert (float(low), float(high)) == pytest.approx((1000, 1000 + 1e-6), abs=5e-7)
    assert low != high


def test_a_training_in_a_table_has_its_errors_and_says_what_has_not_converged():
    (found, _) = long_histories().values()
    open_ = replace(
        found,
        residuals=np.full_like(found.residuals, 0.9),
        traces=np.array([7.0]),
        trace_errors=np.array([0.5]),
    )
    rows = {row[0]: row[1] for row in of_history(open_).rows}
    assert rows["λ₁"].endswith(" (not converged)")
    assert rows["trace"] == "7.00 ± 0.50"
    assert "converged" not in "".join(row[1] for row in of_history(found).rows)


@pytest.mark.parametrize("errors", [[0.01, 0.02, 0.01], [np.nan] * 3])
def test_error_bars_say_what_they_are_where_there_are_any(errors):
    metric = {"positions": [0.0, 0.5, 1.0], "values": [0.2, 0.1, 0.2], "standard_errors": errors}
    found = ll.PathProfile(
        kind="linear",
        positions=np.linspace(0, 1, 3),
        losses=np.array([0.3, 0.9, 0.4]),
        ends=[0.3, 0.4],
        height=0.55,
        at=0.5,
        standard_error=None,
        distance=1.0,
        length=1.0,
        bend=np.empty(0),
        certificate=None,
        metrics={"mrr": metric},
        **COMMON,
    )
    left, right = ll.plots.path(found, ax=Figure().subplots(1, 2))
    assert left.get_ylabel() == "loss"
    assert right.get_ylabel() == ("MRR, ± standard error" if np.isfinite(errors).all() else "MRR")

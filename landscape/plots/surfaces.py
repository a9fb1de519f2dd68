"""Slices as figures: any number of models, one scale."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import InputError
from landscape.plots.style import (
    COLORS,
    COLUMN,
    DIFFERENCE_MAP,
    LOSS_MAP,
    MISSING,
    PAGE,
    metric_label,
    paper,
    shown,
    subscript,
)
from landscape.storage.results import Array
from landscape.surface.geometry import Quadratic
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LEVELS = 16


def surface_figure(slices: Mapping[str, Slice], log: bool = False) -> "Figure":
    """Draw slices of one dimension: lines in one frame, or planes side by side.

    All share axes, contour levels and colours. A point without a finite loss is drawn as missing (grey).

    Args:
        slices: lines or planes, by name of the model.
        log: colour planes by log₁₀(L - Lmin + ε), with Lmin the least loss shown and ε as in `log_floor`.

    Raises:
        InputError: no slices, or of different dimensions, or lines on a logarithmic scale.
    """
    dimension = common_dimension(slices)
    if log and dimension == 1:
        raise InputError("lines are drawn on a linear scale; log is for planes")
    with paper():
        return _lines(slices) if dimension == 1 else _planes(slices, log)


def common_dimension(slices: Mapping[str, Slice]) -> int:
    """Return 1 for lines, 2 for planes.

    Raises:
        InputError: no slices, or some of each.
    """
    dimensions = {len(s.coordinates) for s in slices.values()}
    if len(dimensions) != 1:
        raise InputError(
            f"expected slices of one dimension to draw together, found {sorted(dimensions) or 'none'}"
        )
    return dimensions.pop()


def loss_range(slices: Mapping[str, Slice]) -> tuple[float, float]:
    """Return the smallest and largest finite loss over all slices: the one scale they share.

    Raises:
        InputError: no point has a finite loss.
    """
    ranges = np.array([s.range for s in slices.values()])
    if np.isnan(ranges).all():
        raise InputError("no point of these slices has a finite loss; use a smaller radius")
    return float(np.nanmin(ranges[:, 0])), float(np.nanmax(ranges[:, 1]))


def log_floor(low: float, high: float) -> float:
    """Return the ε of a logarithmic scale of losses: a thousandth of their range, to one digit.

    That is the default tolerance: what is finer has not been measured.
    """
    return float(f"{1e-3 * (high - low):.0e}")


def step_lengths(result: Slice) -> str:
    """Return the length of a step of 1 relative to ‖θ‖, which in filter units differs between models."""
    norm = result.settings["theta_norm"]
    lengths = [f"{d['norm'] / norm if norm else float('nan'):.2g}" for d in result.directions]
    return lengths[0] if len(set(lengths)) == 1 else " and ".join(lengths)


def axis_label(result: Slice, axis: int) -> str:
    """Return the label of an axis: what a step along it is."""
    direction = result.directions[axis]
    name = f"d{subscript(axis + 1)}" if len(result.directions) > 1 else "d"
    if direction["kind"] == "eigenvector":
        return f"‖δ‖, eigenvector of λ = {direction['eigenvalue']:.3g}"
    if direction["kind"] == "principal component":
        return f"PC {axis + 1} ({direction['explained_variance']:.0%} of variance)"
    if direction["kind"] == "difference" and axis == 0 and len(result.marks) > 1:
        return f"from {result.marks[0]['name']} to {result.marks[1]['name']}"
    return f"step along {name}"


def band_figure(groups: Mapping[str, Sequence[Slice]]) -> "Figure":
    """Draw lines of several seeds: for each model the median, and a band from the lowest to the highest.

    Args:
        groups: by name of the model, the lines of its seeds, with equal coordinates.

    Raises:
        InputError: the lines of a group have different coordinates, or a group has no line.
    """
    from matplotlib.figure import Figure

    with paper():
        figure = Figure(figsize=(COLUMN, 2.3))
        axes = figure.add_subplot()
        for (name, lines), color in zip(groups.items(), COLORS * len(groups), strict=False):
            if not lines or any(not np.array_equal(s.coordinates[0], lines[0].coordinates[0]) for s in lines):
                raise InputError(f"the lines of {name} have different coordinates")
            x, losses = lines[0].coordinates[0], np.stack([s.losses for s in lines])
            axes.fill_between(x, losses.min(0), losses.max(0), color=color, alpha=0.2, lw=0)
            axes.plot(x, np.median(losses, 0), color=color, label=shown(name))
        count = len(next(iter(groups.values())))
        _few_ticks(axes.xaxis)
        axes.set(xlabel=f"step along d ({count} random directions)", ylabel="loss")
        axes.legend(title="median, lowest to highest", title_fontsize=6)
        return figure


def metric_figure(metrics: Mapping[str, Mapping[str, Sequence[Slice]]]) -> "Figure":
    """Draw several metrics along the same lines: one panel per metric, one colour per model.

    Args:
        metrics: by metric and model, the lines: one, or one per seed.
    """
    from matplotlib.figure import Figure

    with paper():
        figure = Figure(figsize=(PAGE if len(metrics) > 1 else COLUMN, 2.2))
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, (metric, models) in zip(panels, metrics.items(), strict=True):
            for (name, lines), color in zip(models.items(), COLORS * len(models), strict=False):
                for number, result in enumerate(lines):
                    label = shown(name) if number == 0 else None
                    axes.plot(result.coordinates[0], result.losses, color=color, label=label)
                for at in [mark["at"][0] for mark in lines[0].marks] or [0.0]:
                    axes.axvline(at, color="0.7", lw=0.6, zorder=0)
            _few_ticks(axes.xaxis)
            axes.set(ylabel=metric_label(metric))
        first = next(iter(metrics.values()))
        figure.supxlabel(shown(axis_label(next(iter(first.values()))[0], 0)), fontsize=8)
        if len(first) > 1:
            panels[0].legend()
        return figure


def quadratic_figure(result: Slice, model: Quadratic) -> "Figure":
    """Draw a slice, its quadratic model, and the slice minus the model (its anharmonicity).

    Args:
        result: a line or a plane.
        model: of the same directions.

    Raises:
        InputError: as `surface_figure`.
    """
    from matplotlib.figure import Figure

    expected = model.at(result.coordinates)
    with paper():
        if result.losses.ndim == 1:
            return _line_and_model(result, expected)
        figure = Figure(figsize=(PAGE, 2.5))
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        finite = np.isfinite(result.losses)
        low, high = loss_range({"": result})
        high = max(high, float(expected[finite].max()))
        low = min(low, float(expected[finite].min()))
        apart = result.losses - expected
        most = float(np.abs(apart[finite]).max()) or 1.0
        for axes, title, values, (bottom, top), colors in (
            (panels[0], "loss", result.losses, (low, high), LOSS_MAP),
            (panels[1], "quadratic model", expected, (low, high), LOSS_MAP),
            (panels[2], "difference", apart, (-most, most), DIFFERENCE_MAP),
        ):
            filled = contours(axes, result.coordinates, values, bottom, top, colors)
            axes.set(title=title)
            if axes is not panels[0]:
                figure.colorbar(filled, ax=axes, shrink=0.85)
        panels[0].set_ylabel(shown(axis_label(result, 1)))
        figure.supxlabel(shown(axis_label(result, 0)), fontsize=8)
        return figure


def _line_and_model(result: Slice, expected: Array) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, 3.0))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    x = result.coordinates[0]
    upper.plot(x, result.losses, color=COLORS[0], label="loss")
    upper.plot(x, expected, "--", color=COLORS[1], label="quadratic model")
    upper.set(ylabel="loss")
    upper.legend()
    lower.axhline(0, color="0.7", lw=0.6)
    lower.plot(x, result.losses - expected, color=COLORS[0])
    lower.set(xlabel=shown(axis_label(result, 0)), ylabel="difference")
    _few_ticks(lower.xaxis)
    return figure


def _lines(slices: Mapping[str, Slice]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, 2.3))
    axes = figure.add_subplot()
    for (name, result), color in zip(slices.items(), COLORS * len(slices), strict=False):
        label = f"{shown(name)} (‖d‖/‖θ‖ = {step_lengths(result)})"
        axes.plot(result.coordinates[0], result.losses, color=color, label=label)
        for mark in result.marks:
            axes.plot(mark["at"][0], mark["loss"], "o", ms=3, color=color)
            axes.annotate(
                shown(mark["name"]), (mark["at"][0], mark["loss"]), (3, 3), textcoords="offset points", size=6
            )
        if not result.marks:
            axes.plot(0, result.center, "o", ms=3, color=color)
    _few_ticks(axes.xaxis)
    axes.set(xlabel=shown(axis_label(next(iter(slices.values())), 0)), ylabel="loss")
    axes.set_title(_certificates(slices), fontsize=6, loc="left")
    axes.legend()
    return figure


def _planes(slices: Mapping[str, Slice], log: bool) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    low, high = least, most = loss_range(slices)
    epsilon = log_floor(least, most) or 1.0  # of a constant, any will do
    if log:
        low, high = np.log10([epsilon, most - least + epsilon])
    count = len(slices)
    columns = min(count, 3 if count != 4 else 2)
    rows = -(-count // columns)
    width = PAGE if count > 1 else COLUMN
    panel = (width - 1.3) / columns  # inches, about: labels and colours take the rest
    figure = Figure(figsize=(width, rows * (panel + 0.75)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.ravel()[count:]:
        axes.set_axis_off()
    for axes, (name, result) in zip(panels.ravel(), slices.items(), strict=False):
        heights = np.log10(result.losses - least + epsilon) if log else result.losses
        contours(axes, result.coordinates, heights, low, high)
        _on_the_plane(axes, result)
        axes.set(xlabel=shown(axis_label(result, 0)))
        facts = f"{shown(name)}: L(θ) = {result.center:.3f}, ‖d‖/‖θ‖ = {step_lengths(result)}"
        fits = int(22 * panel)  # characters of this size
        axes.set_title(f"{textwrap.fill(facts, fits)}\n{textwrap.fill(result.statement, fits)}", fontsize=6)
        label = axis_label(result, 1)
        if axes in panels[:, 0] or label != axis_label(next(iter(slices.values())), 1):
            axes.set_ylabel(shown(label))
    levels = _levels(low, high)
    scale = ScalarMappable(Normalize(levels[0], levels[-1]), LOSS_MAP)
    label = f"log₁₀(L − Lmin + {epsilon:g}), Lmin = {least:.2g}" if log else "loss"
    figure.colorbar(scale, ax=panels.ravel().tolist(), label=label, shrink=0.85)
    return figure


def contours(
    axes: "Axes", coordinates: Sequence[Array], values: Array, low: float, high: float, colors: str = LOSS_MAP
) -> Any:
    """Draw a plane's values, `values[i, j]` at (x_i, y_j), between two limits; what is not finite is grey.

    Args:
        axes: where to draw.
        coordinates: x and y, shapes (n,) and (m,).
        values: shape (n, m).
        low, high: the limits, in units of the values.
        colors: the name of Matplotlib's colour map.

    Returns:
        What a colour bar takes.
    """
    from matplotlib.colors import Normalize

    levels = _levels(low, high)
    x, y = coordinates
    finite = np.ma.masked_invalid(values.T)  # values[i, j] is at (x_i, y_j); contour wants rows of y
    axes.set_facecolor(MISSING)
    filled = axes.contourf(x, y, finite, levels=levels, cmap=colors, norm=Normalize(levels[0], levels[-1]))
    lines = axes.contour(x, y, finite, levels=levels[1:-2:2], colors="white", linewidths=0.5)
    axes.clabel(lines, fmt="%g", fontsize=5)
    axes.set_aspect("equal")
    _few_ticks(axes.xaxis)
    _few_ticks(axes.yaxis)
    return filled


def _few_ticks(axis: "Axis") -> None:
    """Leave room between the numbers of an axis, which have a sign and up to two decimals."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _on_the_plane(axes: "Axes", result: Slice) -> None:
    """Draw the marks and the trajectory of a plane, or else θ."""
    from matplotlib.patheffects import withStroke

    if len(result.trajectory):
        x, y = result.trajectory.T
        axes.plot(x, y, ".-", color="white", ms=3, lw=0.8)
        axes.plot(x[0], y[0], "o", color="white", ms=4, mfc="none")
    for mark in result.marks:
        axes.plot(*mark["at"], "o", color="white", ms=3)
        inwards = 1 if mark["at"][0] < result.coordinates[0].mean() else -1
        axes.annotate(
            shown(mark["name"]),
            mark["at"],
            (3 * inwards, 3),
            textcoords="offset points",
            ha="left" if inwards > 0 else "right",
            size=6,
            color="white",
            path_effects=[withStroke(linewidth=1, foreground="0.2")],  # where the loss is high, it is yellow
        )
    if not result.marks:
        axes.plot(0, 0, "+", color="white", ms=6)


def _levels(low: float, high: float) -> Array:
    from matplotlib.ticker import MaxNLocator

    return np.asarray(MaxNLocator(LEVELS).tick_values(low, high if high > low else low + 1))  # round numbers


def _certificates(slices: Mapping[str, Slice]) -> str:
    """Return the statement of the line with the largest error, or of one without an error."""
    if any(s.certificate is None for s in slices.values()):
        return next(s.statement for s in slices.values() if s.certificate is None)
    return max(slices.values(), key=lambda s: s.certificate.max_error if s.certificate else 0).statement

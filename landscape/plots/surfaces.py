"""Slices as figures: any number of models, one scale."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import InputError
from landscape.plots.canvas import (
    LINE,
    Numbers,
    apart,
    by_name,
    columns_of,
    figure_of,
    is_new,
    panels,
    titled,
)
from landscape.plots.labels import axis_label, line_facts, line_label, mark_label, step_lengths
from landscape.plots.levels import LEVELS, Levels, Scale, contours, few_ticks, name_factor, widen
from landscape.plots.style import (
    COLORS,
    COLUMN,
    DIFFERENCE_MAP,
    LOSS_MAP,
    PAGE,
    folded,
    line_look,
    paper,
    shown,
)
from landscape.runtime.table import metric_name
from landscape.storage.results import Array
from landscape.surface.geometry import Quadratic
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDING = 1e-13
"""Relative range of a loss that is constant but for the rounding of a polynomial through it."""
FEW = 3
"""Lines whose legend has room within their frame."""
NAME = 48
"""Characters in a line of the name of a mark."""
BAR, NUMBERS = 0.9, 0.42
"""Inches that a colour bar takes beside planes, about, and the numbers and the label of an axis."""
Size = tuple[float, float]
"""Width and height of a figure, in inches."""


def surface(
    slices: Slice | Mapping[str, Slice],
    *,
    ax: Any = None,
    log: bool | None = None,
    title: str | None = None,
    cmap: str = LOSS_MAP,
    levels: Levels = LEVELS,
    size: Size | None = None,
) -> Any:
    """Draw slices of one dimension: lines in one frame, or planes side by side.

    All share axes, contour levels and colours. A point without a finite loss is drawn as missing (grey).

    Args:
        slices: a line or a plane, or several by name of the model.
        ax: axes to draw on, one per plane; by default those of a new figure.
        log: colour planes by log₁₀(L - Lmin + ε), with Lmin the least loss shown and ε a thousandth of the
            range. The ticks of the colour bar are losses. By default only if more than half of each plane
            would otherwise have the first of the colours, and `levels` is a number.
        title: title of the figure, in place of the facts above a single plane.
        cmap: the name of Matplotlib's colour map.
        levels: about how many levels, or the levels themselves in units of the loss; losses beyond them have
            the colours of their ends.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several planes, an array of them.

    Raises:
        InputError: no slices, or of different dimensions, lines on a logarithmic scale, or as `contours`.
    """
    slices = by_name(slices)
    dimension = common_dimension(slices)
    if log and dimension == 1:
        raise InputError("lines are drawn on a linear scale; log is for planes")
    with paper():
        if dimension == 1:
            return _lines(slices, ax, title, size)
        low, high = loss_range(slices)
        if log is None:
            log = isinstance(levels, int) and of_one_colour(slices, low, high)
        return _planes(slices, Scale(low, high, log), ax, title, cmap, levels, size)


def of_one_colour(slices: Mapping[str, Slice], low: float, high: float) -> bool:
    """Whether most of each plane lies within one level of a linear scale, since a corner sets the range."""
    finite = [s.losses[np.isfinite(s.losses)] for s in slices.values()]
    return bool(max(np.median(losses) for losses in finite if losses.size) - low < (high - low) / LEVELS)


surface_figure = apart(surface)


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
    low, high = float(np.nanmin(ranges[:, 0])), float(np.nanmax(ranges[:, 1]))
    return low, high if high - low > ROUNDING * max(abs(low), abs(high)) else low


def band(
    groups: Mapping[str, Sequence[Slice]],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size = (COLUMN, 2.3),
) -> Any:
    """Draw lines of several seeds: for each model the median, and a band from the lowest to the highest.

    Args:
        groups: by name of the model, the lines of its seeds, with equal coordinates.
        ax: axes to draw on; by default those of a new figure.
        title: title of the axes.
        size: width and height of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        InputError: the lines of a group have different coordinates, or a group has no line.
    """
    with paper():
        (axes,) = panels(ax, 1, size)
        for number, (name, lines) in enumerate(groups.items()):
            if not lines or any(not np.array_equal(s.coordinates[0], lines[0].coordinates[0]) for s in lines):
                raise InputError(f"the lines of {name} have different coordinates")
            _medians(axes, lines, name, number)
        counts = " to ".join(
            map(str, sorted({len(lines) for lines in groups.values()})[:: len(groups) - 1 or 1])
        )
        few_ticks(axes.xaxis)
        axes.set(xlabel=f"step along d ({counts} random directions)", ylabel="loss")
        axes.legend(title="median, lowest to highest", title_fontsize=6)
        return titled([axes], title)


band_figure = apart(band)


def _medians(axes: "Axes", lines: Sequence[Slice], name: str, number: int) -> None:
    """Draw the median of a model's lines; of several, a band from the lowest to the highest too."""
    look = line_look(number)
    x, losses = lines[0].coordinates[0], np.stack([line.losses for line in lines])
    axes.plot(x, np.median(losses, 0), **look, label=shown(name) or None)
    if len(lines) > 1:
        axes.fill_between(x, losses.min(0), losses.max(0), color=look["color"], alpha=0.2, lw=0)


def metric_lines(
    metrics: Mapping[str, Mapping[str, Sequence[Slice]]],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size | None = None,
) -> Any:
    """Draw several metrics along the same lines: one panel per metric, one colour per model.

    If the values of a metric differ little for their size, its axis covers at least a tenth of the largest,
    so that noise does not look like a valley.

    Args:
        metrics: by metric and model, the lines: one, or one per seed.
        ax: axes to draw on, one per metric; by default those of a new figure.
        title: title of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several metrics, an array of them.

    Raises:
        InputError: there are not as many axes as metrics.
    """
    with paper():
        every = panels(ax, len(metrics), size or (PAGE if len(metrics) > 1 else COLUMN, 2.2))
        for axes, (metric, models) in zip(every, metrics.items(), strict=True):
            for number, (name, lines) in enumerate(models.items()):
                _medians(axes, lines, name, number)
                for at in [mark["at"][0] for mark in lines[0].marks] or [0.0]:
                    axes.axvline(at, color="0.7", lw=0.6, zorder=0)
            few_ticks(axes.xaxis)
            widen(axes)
            axes.set(ylabel=shown(metric_name(metric)))
        first = next(iter(metrics.values()))
        label = shown(line_label([lines[0] for lines in first.values()]))
        for axes in every:
            axes.set_xlabel(label)
        if len(first) > 1:
            several = any(len(lines) > 1 for lines in first.values())
            every[0].legend(title="median, lowest to highest" if several else None, title_fontsize=6)
        return titled(every, title)


metric_figure = apart(metric_lines)


def quadratic(
    result: Slice,
    model: Quadratic,
    *,
    ax: Any = None,
    title: str | None = None,
    cmap: str = LOSS_MAP,
    levels: Levels = LEVELS,
    size: Size | None = None,
) -> Any:
    """Draw a slice, its quadratic model, and the slice minus the model (its anharmonicity).

    Args:
        result: a line or a plane.
        model: its quadratic model, along the same directions.
        ax: axes to draw on: two for a line, three for a plane; by default those of a new figure.
        title: title of the figure.
        cmap: the name of Matplotlib's colour map, of losses.
        levels: about how many levels, or the levels themselves in units of the loss.
        size: width and height of a new figure, in inches.

    Returns:
        An array of the axes.

    Raises:
        InputError: as `surface`, or there are not as many axes.
    """
    expected = model.at(result.coordinates)
    with paper():
        if result.losses.ndim == 1:
            return titled(_line_and_model(result, expected, ax, size or (COLUMN, 3.0)), title)
        every = panels(ax, 3, size or (PAGE, 2.5), sharex=True, sharey=True)
        finite = np.isfinite(result.losses)
        low, high = loss_range({"": result})
        low, high = min(low, float(expected.min())), max(high, float(expected.max()))
        apart = result.losses - expected
        most = float(np.abs(apart[finite]).max()) or 1.0
        for axes, name, values, (bottom, top), colors in (
            (every[0], "loss", result.losses, (low, high), cmap),
            (every[1], "quadratic model", expected, (low, high), cmap),
            (every[2], "difference", apart, (-most, most), DIFFERENCE_MAP),
        ):
            steps = LEVELS if axes is every[2] and not isinstance(levels, int) else levels
            filled = contours(axes, result.coordinates, values, bottom, top, colors, steps)
            axes.set(title=name, xlabel=shown(axis_label(result, 0)))
            if axes is not every[0]:
                name_factor(figure_of(axes).colorbar(filled, ax=axes, shrink=0.85, format=Numbers()), "")
        every[0].set_ylabel(shown(axis_label(result, 1)))
        return titled(every, title)


quadratic_figure = apart(quadratic)


def _line_and_model(result: Slice, expected: Array, ax: Any, size: Size) -> "list[Axes]":
    upper, lower = panels(ax, 2, size, columns=1, sharex=True, height_ratios=[2, 1])
    x = result.coordinates[0]
    upper.plot(x, result.losses, color=COLORS[0], label="loss")
    upper.plot(x, expected, "--", color=COLORS[1], label="quadratic model")
    upper.set(ylabel="loss")
    upper.legend()
    lower.axhline(0, color="0.7", lw=0.6)
    lower.plot(x, result.losses - expected, color=COLORS[0])
    lower.set(xlabel=shown(axis_label(result, 0)), ylabel="difference")
    few_ticks(lower.xaxis)
    return [upper, lower]


def _lines(slices: Mapping[str, Slice], ax: Any, title: str | None, size: Size | None) -> Any:
    rows = -(-len(slices) // 2) if len(slices) > FEW else 0  # of a legend below the frame
    (axes,) = panels(ax, 1, size or (COLUMN, 2.3 + 0.13 * rows))
    for number, (name, result) in enumerate(slices.items()):
        look = line_look(number)
        color = look["color"]
        facts = line_facts(result, slices.values())
        label = f"{shown(name)} ({facts})" if name else facts
        axes.plot(result.coordinates[0], result.losses, **look, label=label)
        for index, mark in enumerate(result.marks):
            axes.plot(mark["at"][0], mark["loss"], "o", ms=3, color=color)
            _named(axes, mark, (mark["at"][0], mark["loss"]), index, result)
        if not result.marks:
            axes.plot(0, result.center, "o", ms=3, color=color)
    few_ticks(axes.xaxis)
    axes.set(xlabel=shown(line_label(slices.values())), ylabel="loss")
    axes.set_title(_certificates(slices), fontsize=6, loc="left")
    if len(slices) > FEW and is_new(ax):
        figure_of(axes).legend(loc="outside lower center", ncols=2, fontsize=6)
    else:
        axes.legend()
    return titled([axes], title)


def _planes(
    slices: Mapping[str, Slice],
    scale: Scale,
    ax: Any,
    title: str | None,
    cmap: str,
    levels: Levels,
    size: Size | None,
) -> Any:
    count = len(slices)
    columns = columns_of(count)
    width = size[0] if size else PAGE if count > 1 else COLUMN
    colors = BAR + LINE / 72 * scale.label.count("\n")
    panel = (width - colors) / columns - NUMBERS  # inches, about
    every = panels(ax, count, size or (width, -(-count // columns) * (panel + 0.6)), columns)
    for number, (axes, (name, result)) in enumerate(zip(every, slices.items(), strict=True)):
        contours(axes, result.coordinates, result.losses, scale.low, scale.high, cmap, levels, scale.log)
        on_the_plane(axes, result)
        axes.set(xlabel=shown(axis_label(result, 0)))
        equal = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
        facts = f"{f'{shown(name)}: ' * bool(name)}L(θ){equal}{result.center:.4g}, ‖d‖/‖θ‖{equal}"
        facts += step_lengths(result)
        fits = int(22 * panel)  # characters of this size
        axes.set_title(f"{textwrap.fill(facts, fits)}\n{textwrap.fill(result.statement, fits)}", fontsize=6)
        label = axis_label(result, 1)
        if number % columns == 0 or label != axis_label(next(iter(slices.values())), 1):
            axes.set_ylabel(shown(label))
    scale.colorbar(figure_of(every), every, cmap, levels)
    if is_new(ax):
        figure_of(every).set_layout_engine("compressed")  # else planes, which are square, leave gaps between
    return titled(every, title)


def on_the_plane(axes: "Axes", result: Slice) -> None:
    """Draw the marks and the trajectory of a plane, or else θ."""
    from matplotlib.patheffects import withStroke

    if len(result.trajectory):
        x, y = result.trajectory.T
        axes.plot(x, y, ".-", color="white", ms=3, lw=0.8)
        axes.plot(x[0], y[0], "o", color="white", ms=4, mfc="none")
    for index, mark in enumerate(result.marks):
        axes.plot(*mark["at"], "o", color="white", ms=3)
        outline = [withStroke(linewidth=1, foreground="0.2")]  # where the loss is high, it is yellow
        _named(axes, mark, mark["at"], index, result, color="white", path_effects=outline)
    if not result.marks:
        axes.plot(0, 0, "+", color="white", ms=6)


def _named(
    axes: "Axes", mark: Mapping[str, Any], place: Sequence[float], index: int, result: Slice, **style: Any
) -> None:
    """Write the label of a mark towards the middle, above it and below it in turn: labels meet there."""
    inwards = 1 if place[0] < result.coordinates[0].mean() else -1
    above = 1 if index % 2 == 0 else -1
    axes.annotate(
        folded(shown(mark_label(mark)), NAME),
        (place[0], place[1]),
        (3 * inwards, 3 * above),
        textcoords="offset points",
        ha="left" if inwards > 0 else "right",
        va="bottom" if above > 0 else "top",
        size=6,
        **style,
    )


def _certificates(slices: Mapping[str, Slice]) -> str:
    """Return the statement of the line with the largest error, or of one without an error."""
    if any(s.certificate is None for s in slices.values()):
        return next(s.statement for s in slices.values() if s.certificate is None)
    return max(slices.values(), key=lambda s: s.certificate.max_error if s.certificate else 0).statement

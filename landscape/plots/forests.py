"""Sharpness as a forest plot: a row per measure, a mark with its 95% interval."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.flatness.comparison import NORM, Contrasts, Row, compare
from landscape.flatness.measures import Sharpness
from landscape.flatness.notation import PLAIN
from landscape.plots.canvas import by_name, figure_of, is_new, panels, titled
from landscape.plots.levels import few_log_ticks
from landscape.plots.style import COLORS, COLUMN, folded, paper, shown

NAME = 24  # characters in a line of the name of a measure
LETTERS = 45  # in a line of the legend, about
SPREAD = 0.5  # height of the checkpoints around a row, as a fraction of the distance between rows


def forest(
    results: Contrasts | Sharpness | Mapping[str, Sharpness],
    *,
    ax: Any = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw how the sharpness of checkpoints relates to that of the first: ratios and their 95% intervals.

    Measures that no rescaling of the weights changes are marked with *. A ratio without an interval is
    an open mark; a measure without a ratio is left out. With a single checkpoint, values are drawn instead.
    The axis is logarithmic: an arrow to its left end is an interval that holds 0, and a value that is not
    above 0 or not finite is written there.

    Args:
        results: what `landscape.compare` returns; or the sharpness of one checkpoint, or of several by name.
        ax: axes to draw on; by default those of a new figure.
        title: title of the axes.
        size: width and height of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        InputError: as `landscape.compare`, or several axes are given.
    """
    found = results if isinstance(results, Contrasts) else compare(by_name(results))
    first, *others = found.names
    rows = [row for row in found.rows if row.group is None and row.measure != NORM]
    if others:
        rows = [row for row in rows if any(c is not None and c.ratio for c in row.contrasts)]
    legend = sum(1 + len(name) // LETTERS for name in others) if len(others) > 1 else 0  # lines
    height = 0.7 + 0.19 * max(1, len(rows)) + 0.14 * legend
    with paper():
        (axes,) = panels(ax, 1, size or (COLUMN, height))
        shown_ = others or [first]
        shifts = (np.arange(len(shown_)) - (len(shown_) - 1) / 2) * SPREAD / len(shown_)
        for index, (name, shift) in enumerate(zip(shown_, shifts, strict=True)):
            color = COLORS[(index + bool(others)) % len(COLORS)]  # the first checkpoint has the first colour
            label = shown(name) or None
            for place, row in enumerate(rows):
                if _mark(axes, place + shift, _extent(row, index, bool(others)), color, label):
                    label = None
        axes.set_yticks(range(len(rows)), [folded(shown(PLAIN.label(row)), NAME) for row in rows])
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        if others:
            axes.axvline(1, color=COLORS[0], lw=0.8, zorder=0)
        axes.set_xlabel(f"relative to {shown(first)}, 95% intervals" if others else "value, 95% intervals")
        few_log_ticks(axes.xaxis)
        if len(others) > 1 and is_new(ax):
            figure_of(axes).legend(*axes.get_legend_handles_labels(), loc="outside lower center")
        elif len(others) > 1:
            axes.legend()
        return titled([axes], title or (shown(others[0]) if len(others) == 1 else None))


def _extent(row: Row, index: int, ratio: bool) -> tuple[float | None, float | None, float | None]:
    """Return the middle of a mark and the ends of its interval, None where there are none."""
    if ratio:
        contrast = row.contrasts[index]
        return (contrast.ratio, contrast.low, contrast.high) if contrast else (None, None, None)
    value, reach = row.values[0], row.reaches[0]
    return (value, None, None) if value is None or reach is None else (value, value - reach, value + reach)


def _mark(
    axes: Any,
    height: float,
    extent: tuple[float | None, float | None, float | None],
    color: str,
    label: str | None,
) -> bool:
    """Draw a row, and tell whether it has a mark, which bears the label."""
    middle, low, high = extent
    if middle is None:
        return False
    edge: Any = {"xy": (0, height), "xycoords": ("axes fraction", "data"), "color": color}
    if not 0 < middle < math.inf:  # a logarithmic axis has no place for it
        text = shown(PLAIN.number(middle))
        axes.annotate(text, xytext=(3, 0), textcoords="offset points", va="center", size=6, **edge)
        return False
    known = low is not None and high is not None
    axes.plot(middle, height, "o", ms=3.5, color=color, mfc=color if known else "white", label=label)
    if low is not None and high is not None:
        start = low if low > 0 else middle / 2
        axes.plot([start, high], [height] * 2, "-", color=color, lw=1)
        if low <= 0:
            line = {"arrowstyle": "->", "color": color, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xytext=(start, height), textcoords="data", arrowprops=line, **edge)
    return True

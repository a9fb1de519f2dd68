"""Sharpness as a forest plot: a row per measure, a mark with its 95% interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.flatness.comparison import NORM, Contrasts, Row, compare
from landscape.flatness.measures import Sharpness
from landscape.flatness.notation import PLAIN
from landscape.plots.canvas import by_name, panels, titled
from landscape.plots.levels import few_log_ticks
from landscape.plots.style import COLORS, COLUMN, paper, shown

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
    with paper():
        (axes,) = panels(ax, 1, size or (COLUMN, 0.7 + 0.19 * max(1, len(rows))))
        shown_ = others or [first]
        shifts = (np.arange(len(shown_)) - (len(shown_) - 1) / 2) * SPREAD / len(shown_)
        for index, (name, shift) in enumerate(zip(shown_, shifts, strict=True)):
            color = COLORS[(index + bool(others)) % len(COLORS)]  # the first checkpoint has the first colour
            label = shown(name) or None
            for place, row in enumerate(rows):
                _mark(axes, place + shift, _extent(row, index, bool(others)), color, label)
                label = None
        axes.set_yticks(range(len(rows)), [PLAIN.label(row) for row in rows])
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        if others:
            axes.axvline(1, color=COLORS[0], lw=0.8, zorder=0)
        axes.set_xlabel(f"relative to {shown(first)}, 95% intervals" if others else "value, 95% intervals")
        few_log_ticks(axes.xaxis)
        if len(others) > 1:
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
) -> None:
    middle, low, high = extent
    if middle is None or not middle > 0:
        return  # a logarithmic axis has no place for it
    known = low is not None and high is not None
    axes.plot(middle, height, "o", ms=3.5, color=color, mfc=color if known else "white", label=label)
    if low is not None and high is not None:
        axes.plot([max(low, 1e-3 * middle), high], [height] * 2, "-", color=color, lw=1)

"""Paths between minima: the loss along them, the height of the barrier, and other metrics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, figure_of, is_new, panels, titled
from landscape.plots.levels import widen
from landscape.plots.style import COLORS, COLUMN, PAGE, paper, shown
from landscape.plots.surfaces import Size
from landscape.runtime.table import metric_name
from landscape.surface.paths import STATIONS, PathProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"linear": "-", "bezier": "--"}
APART_T = 0.012  # distance between error bars of the same t, so that they do not hide each other


def path(
    paths: PathProfile | Mapping[str, PathProfile],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size | None = None,
) -> Any:
    """Draw the loss along paths, and a panel for each metric that all of them have.

    Lines are solid and curves dashed, in one colour where they join the same two points. The chord between
    the ends is thin, and the height of the barrier above it is marked. Where a path ends at another loss than
    the other model's own, the barrier between the two is unknown, and that loss is an open circle. Error bars
    are standard errors. If losses differ little for their size, their axis covers at least a tenth of the
    largest.

    Args:
        paths: a path, or several by name; losses are drawn in their own unit.
        ax: axes to draw on, one for the loss and one per metric; by default those of a new figure.
        title: title of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; with metrics, an array of them.

    Raises:
        InputError: no paths, or there are not as many axes as panels.
    """
    paths = by_name(paths)
    if not paths:
        raise InputError("nothing to draw; give at least one path")
    metrics = [m for m in next(iter(paths.values())).metrics if all(m in p.metrics for p in paths.values())]
    distances = list(dict.fromkeys(path.distance for path in paths.values()))
    with paper():
        wide = PAGE if metrics else COLUMN
        every = panels(ax, 1 + len(metrics), size or (wide, 2.2 + 0.12 * len(paths)))
        left, *others = every
        for number, (name, found) in enumerate(paths.items()):
            color = COLORS[distances.index(found.distance) % len(COLORS)]
            _losses(left, name, found, color)
            shift = APART_T * (number - (len(paths) - 1) / 2)
            for axes, metric in zip(others, metrics, strict=True):
                _metric(axes, found.metrics[metric], found.kind, color, shift)
        for axes, label in zip(every, ("loss", *metrics), strict=True):
            known = [path.metrics[label]["standard_errors"] for path in paths.values() if label in metrics]
            bars = ", ± standard error" if any(np.isfinite(errors).any() for errors in known) else ""
            axes.set(xlabel="t", ylabel=f"{shown(metric_name(label))}{bars}", xticks=STATIONS)
            widen(axes)
        if is_new(ax):
            figure_of(every).legend(loc="outside upper left", ncols=2 if metrics else 1)
        else:
            left.legend()
        return titled(every, title)


path_figure = apart(path)


def _metric(axes: "Axes", found: Mapping[str, list[float]], kind: str, color: str, shift: float) -> None:
    axes.errorbar(
        [t + shift for t in found["positions"]],
        found["values"],
        found["standard_errors"],
        fmt="o" + STYLES[kind],
        color=color,
        ms=3,
        mfc=color if kind == "linear" else "white",
        lw=0.8,
        elinewidth=0.6,
        capsize=1.5,
    )


def _losses(axes: "Axes", name: str, path: PathProfile, color: str) -> None:
    height = f"{path.height:.2g}{path.doubt}"
    if path.own_end is not None:  # the height is above a chord to another end than that model
        height = f"unknown (the other model's own loss at its end is {path.own_end:.4g})"
        axes.plot(1, path.own_end, "o", color=color, ms=4, mfc="white", clip_on=False)
    said = f"{f'{shown(name)}: ' * bool(name)}barrier {height}"
    axes.plot(path.positions, path.losses, STYLES[path.kind], color=color, label=said)
    if path.kind == "linear":
        axes.plot([0, 1], path.ends, "o-", color=color, lw=0.4, ms=3)
    if path.height > 0 and path.own_end is None:
        chord = (1 - path.at) * path.ends[0] + path.at * path.ends[1]
        axes.plot([path.at] * 2, [chord, chord + path.height], "_-", color=color, lw=0.6, ms=4)

"""Paths between minima: the loss along them, the height of the barrier, and other metrics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from landscape.errors import InputError
from landscape.plots.style import COLORS, COLUMN, PAGE, metric_label, paper, shown
from landscape.surface.paths import STATIONS, PathProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"linear": "-", "bezier": "--"}
APART = 0.012  # distance between error bars of the same t, so that they do not hide each other


def path_figure(paths: Mapping[str, PathProfile]) -> "Figure":
    """Draw the loss along paths by name, and a panel for each metric that all of them have.

    Lines are solid and curves dashed, in one colour where they join the same two points. The chord between
    the ends is thin, and the height of the barrier above it is marked. Error bars are standard errors.

    Args:
        paths: by name; losses are drawn in their own unit.

    Raises:
        InputError: no paths.
    """
    if not paths:
        raise InputError("nothing to draw; give at least one path")
    from matplotlib.figure import Figure

    metrics = [m for m in next(iter(paths.values())).metrics if all(m in p.metrics for p in paths.values())]
    distances = list(dict.fromkeys(path.distance for path in paths.values()))
    with paper():
        figure = Figure(figsize=(PAGE if metrics else COLUMN, 2.2 + 0.12 * len(paths)))
        left, *others = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
        for number, (name, path) in enumerate(paths.items()):
            color = COLORS[distances.index(path.distance) % len(COLORS)]
            _losses(left, name, path, color)
            shift = APART * (number - (len(paths) - 1) / 2)
            for axes, metric in zip(others, metrics, strict=True):
                found = path.metrics[metric]
                axes.errorbar(
                    [t + shift for t in found["positions"]],
                    found["values"],
                    found["standard_errors"],
                    fmt="o" + STYLES[path.kind],
                    color=color,
                    ms=3,
                    mfc=color if path.kind == "linear" else "white",
                    lw=0.8,
                    elinewidth=0.6,
                    capsize=1.5,
                )
        for axes, label in zip((left, *others), ("loss", *metrics), strict=True):
            axes.set(xlabel="t", ylabel=metric_label(label), xticks=STATIONS)
        figure.legend(loc="outside upper left", ncols=2 if metrics else 1)
        return figure


def _losses(axes: "Axes", name: str, path: PathProfile, color: str) -> None:
    axes.plot(
        path.positions,
        path.losses,
        STYLES[path.kind],
        color=color,
        label=f"{shown(name)}: barrier {path.height:.2g}",
    )
    if path.kind == "linear":
        axes.plot([0, 1], path.ends, "o-", color=color, lw=0.4, ms=3)
    if path.height > 0:
        chord = (1 - path.at) * path.ends[0] + path.at * path.ends[1]
        axes.plot([path.at] * 2, [chord, chord + path.height], "_-", color=color, lw=0.6, ms=4)

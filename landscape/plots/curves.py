"""What tasks tell of their checkpoints, and eigenvalues."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.plots.style import COLORS, COLUMN, PAGE, paper, shown, subscript
from landscape.tasks import FactCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 0.5  # width of the checkpoints around a rank, as a fraction of the distance between ranks


def curves_figure(curves: Mapping[str, Mapping[str, FactCurve]]) -> "Figure":
    """Draw the curves that tasks tell of their checkpoints, those of one title in one plot.

    Args:
        curves: by title, then by name of the checkpoint, which has one colour in all plots.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for of in curves.values() for name in of))
    colors = dict(zip(names, COLORS * len(names), strict=False))
    with paper():
        columns = min(len(curves), 2)
        rows = -(-len(curves) // 2)
        figure = Figure(figsize=(PAGE if columns > 1 else COLUMN, 2.2 * rows))
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (title, of) in zip(grid, curves.items(), strict=False):
            for name, curve in of.items():
                y = [math.nan if value is None else value for value in curve.y]
                axes.plot(curve.x, y, color=colors[name], label=shown(name))
            axes.set(xlabel=shown(next(iter(of.values())).over), ylabel=shown(title))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
        grid[0].legend()
        return figure


def eigenvalue_figure(spectra: Mapping[str, Eigenpairs]) -> "Figure":
    """Draw the top eigenvalues by rank, and the smallest; open marks have not converged.

    Checkpoints are drawn side by side at each rank, since equal values would hide each other.

    Args:
        spectra: by name of the checkpoint.
    """
    from matplotlib.figure import Figure

    with paper():
        figure = Figure(figsize=(COLUMN, 2.3))
        axes = figure.add_subplot()
        axes.axhline(0, color="0.7", lw=0.6)
        count = max(len(found.eigenvalues) for found in spectra.values())
        shifts = (np.arange(len(spectra)) - (len(spectra) - 1) / 2) * SPREAD / len(spectra)
        for (name, found), color, shift in zip(spectra.items(), COLORS * len(spectra), shifts, strict=False):
            ranks = 1 + shift + np.arange(len(found.eigenvalues))
            axes.plot(ranks, found.eigenvalues, "-", color=color, lw=0.8, label=shown(name))
            for rank, value, converged in zip(ranks, found.eigenvalues, found.converged, strict=True):
                axes.plot(rank, value, "o", ms=4, color=color, mfc=color if converged else "white")
            if found.smallest is not None:
                face = color if found.smallest_converged[0] else "white"
                axes.plot(count + 1 + shift, found.smallest, "v", ms=4, color=color, mfc=face)
        positions = list(range(1, count + 2))
        axes.set_xticks(positions, [f"λ{subscript(i)}" for i in positions[:-1]] + ["λmin"])
        axes.set(ylabel="Hessian eigenvalue")
        axes.legend()
        return figure

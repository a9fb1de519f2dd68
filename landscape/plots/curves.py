"""Training curves and eigenvalues."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.plots.style import COLORS, COLUMN, PAGE, paper, shown, subscript

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 0.5  # width of the checkpoints around a rank, as a fraction of the distance between ranks


def training_figure(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Figure":
    """Draw training loss and validation NDCG@10 by epoch, from the lines of each run's metrics.jsonl.

    Of a loss in parts the recommendation's is drawn, which compares between methods.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with paper():
        figure = Figure(figsize=(PAGE, 2.2))
        left, right = figure.subplots(1, 2)
        for (name, lines), color in zip(logs.items(), COLORS * len(logs), strict=False):
            trained = [line for line in lines if "loss" in line]
            validated = [line for line in lines if "valid" in line]
            left.plot(
                [line["epoch"] for line in trained],
                [line.get("losses", {}).get("recommendation", line["loss"]) for line in trained],
                color=color,
                label=shown(name),
            )
            right.plot(
                [line["epoch"] for line in validated],
                [line["valid"]["ndcg@10"] for line in validated],
                color=color,
                label=shown(name),
            )
        for axes, label in ((left, "training loss (dropout on)"), (right, "validation NDCG@10")):
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend()
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

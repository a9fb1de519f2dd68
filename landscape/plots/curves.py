"""What tasks tell of their checkpoints, and eigenvalues."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, panels, titled
from landscape.plots.style import COLORS, COLUMN, PAGE, line_look, paper, shown, subscript
from landscape.plots.tables import MATRICES
from landscape.tasks import FactCurve, Facts

SPREAD = 0.5  # width of the checkpoints around a rank, as a fraction of the distance between ranks
Size = tuple[float, float]


def curves(
    told: Mapping[str, Mapping[str, FactCurve]],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size | None = None,
) -> Any:
    """Draw the curves that tasks tell of their checkpoints, those of one title in one plot.

    Args:
        told: by title, then by name of the checkpoint, which has one colour in all plots.
        ax: axes to draw on, one per title; by default those of a new figure.
        title: title of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several titles, an array of them.

    Raises:
        InputError: no curves, or there are not as many axes as titles.
    """
    from matplotlib.ticker import MaxNLocator

    if not told:
        raise InputError("no curves to draw; does the task provide any for this checkpoint?")
    names = list(dict.fromkeys(name for of in told.values() for name in of))
    looks = {name: line_look(number) for number, name in enumerate(names)}
    with paper():
        columns = min(len(told), 2)
        width = PAGE if columns > 1 else COLUMN
        every = panels(ax, len(told), size or (width, 2.2 * -(-len(told) // 2)), columns)
        for axes, (upwards, of) in zip(every, told.items(), strict=True):
            for name, curve in of.items():
                y = [math.nan if value is None else value for value in curve.y]
                axes.plot(curve.x, y, **looks[name], label=shown(name) or None)
            axes.set(xlabel=shown(next(iter(of.values())).over), ylabel=shown(upwards))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any(names):
            every[0].legend()
        return titled(every, title)


curves_figure = apart(curves)


def training_curves(facts: Facts | Mapping[str, Facts], **style: Any) -> Any:
    """Draw the training loss and the validation metrics over the epochs, as tasks report them.

    Args:
        facts: what `landscape.tasks.facts_of` returns, of one checkpoint or by the names of several.
        style: `ax`, one per curve of a checkpoint; `title`; and `size`, in inches.

    Returns:
        The axes; of several curves, an array of them.

    Raises:
        InputError: there are no curves, or not as many axes.
    """
    return curves(by_title(by_name(facts).items()), **style)


def by_title(told: Iterable[tuple[str, Facts]]) -> dict[str, dict[str, FactCurve]]:
    """Gather curves of equal titles: by title, then by the name of the checkpoint."""
    found: dict[str, dict[str, FactCurve]] = {}
    for name, facts in told:
        for curve in facts.curves:
            found.setdefault(curve.title, {})[name] = curve
    return found


def eigenvalues(
    spectra: Eigenpairs | Mapping[str, Eigenpairs],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size = (COLUMN, 2.3),
) -> Any:
    """Draw the top eigenvalues by rank, and the smallest; open marks have not converged.

    Checkpoints are drawn side by side at each rank, since equal values would hide each other.

    Args:
        spectra: the eigenpairs of one checkpoint, or of several by name.
        ax: axes to draw on; by default those of a new figure.
        title: title of the axes.
        size: width and height of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        InputError: several axes are given.
    """
    spectra = by_name(spectra)
    with paper():
        (axes,) = panels(ax, 1, size)
        axes.axhline(0, color="0.7", lw=0.6)
        count = max(len(found.eigenvalues) for found in spectra.values())
        shifts = (np.arange(len(spectra)) - (len(spectra) - 1) / 2) * SPREAD / len(spectra)
        for (name, found), color, shift in zip(spectra.items(), COLORS * len(spectra), shifts, strict=False):
            ranks = 1 + shift + np.arange(len(found.eigenvalues))
            axes.plot(ranks, found.eigenvalues, "-", color=color, lw=0.8, label=shown(name) or None)
            for rank, value, converged in zip(ranks, found.eigenvalues, found.converged, strict=True):
                axes.plot(rank, value, "o", ms=4, color=color, mfc=color if converged else "white")
            if found.smallest is not None:
                face = color if found.smallest_converged[0] else "white"
                axes.plot(count + 1 + shift, found.smallest, "v", ms=4, color=color, mfc=face)
        positions = list(range(1, count + 2))
        axes.set_xticks(positions, [f"λ{subscript(i)}" for i in positions[:-1]] + ["λmin"])
        matrices = {MATRICES.get(str(found.settings["matrix"]), "") for found in spectra.values()}
        of = matrices.pop() if len(matrices) == 1 else ""
        axes.set(ylabel=f"{of} eigenvalue" if of else "eigenvalue")
        if any(spectra):
            axes.legend()
        return titled([axes], title)


eigenvalue_figure = apart(eigenvalues)

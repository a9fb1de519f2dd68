"""Slices as figures: any number of models, one scale."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import InputError
from landscape.plots.style import COLORS, COLUMN, LOSS_MAP, MISSING, PAGE, paper
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 16


def surface_figure(slices: Mapping[str, Slice]) -> "Figure":
    """Draw slices of one dimension by name: lines in one frame, or planes side by side.

    All share axes, contour levels and colours. A point without a finite loss is drawn as missing (grey).

    Raises:
        InputError: no slices, or of different dimensions.
    """
    dimension = common_dimension(slices)
    with paper():
        return _lines(slices) if dimension == 1 else _planes(slices)


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


def step_lengths(result: Slice) -> str:
    """Say how far a step of 1 goes, relative to the weights: in filter units that differs by model."""
    lengths = [d["norm"] / result.settings["theta_norm"] for d in result.directions]
    return " and ".join(f"{length:.2f}" for length in lengths)


def _lines(slices: Mapping[str, Slice]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN, 2.3))
    axes = figure.add_subplot()
    for (name, result), color in zip(slices.items(), COLORS * len(slices), strict=False):
        axes.plot(
            result.coordinates[0],
            result.losses,
            color=color,
            label=f"{name} (‖d‖/‖θ‖ = {step_lengths(result)})",
        )
        axes.plot(0, result.center, "o", ms=3, color=color)
    axes.set(xlabel="step along d", ylabel="loss")
    axes.legend()
    return figure


def _planes(slices: Mapping[str, Slice]) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    low, high = loss_range(slices)
    levels = MaxNLocator(LEVELS).tick_values(low, high if high > low else low + 1)  # round numbers
    width = PAGE if len(slices) > 1 else COLUMN
    figure = Figure(figsize=(width, 0.85 * width / max(len(slices), 1) + 0.5))
    panels = figure.subplots(1, len(slices), sharex=True, sharey=True, squeeze=False)[0]
    norm = Normalize(levels[0], levels[-1])
    for axes, (name, result) in zip(panels, slices.items(), strict=True):
        x, y = result.coordinates
        shown = np.ma.masked_invalid(
            result.losses.T
        )  # losses[i, j] is at (x_i, y_j); contour wants rows of y
        axes.set_facecolor(MISSING)
        axes.contourf(x, y, shown, levels=levels, cmap=LOSS_MAP, norm=norm, extend="neither")
        lines = axes.contour(x, y, shown, levels=levels[1:-2:2], colors="white", linewidths=0.5)
        axes.clabel(lines, fmt="%g", fontsize=5)
        axes.plot(0, 0, "+", color="white", ms=6)
        axes.set(
            xlabel="step along d₁",
            title=f"{name}: L(θ) = {result.center:.3f}\n‖d‖/‖θ‖ = {step_lengths(result)}",
            aspect="equal",
        )
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_ylabel("step along d₂")
    figure.colorbar(ScalarMappable(norm, LOSS_MAP), ax=list(panels), label="loss", shrink=0.85)
    return figure

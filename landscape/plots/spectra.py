"""Spectral densities, on one scale."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.errors import InputError
from landscape.plots.style import COLORS, PAGE, paper, shown
from landscape.storage.results import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 0.01  # width of the Gaussian that broadens a node, as a fraction of the axis
POINTS = 1000  # along the axis


def spectrum_figure(
    densities: Mapping[str, SpectralDensity], ticks: Mapping[str, Eigenpairs] | None = None
) -> "Figure":
    """Draw the number of eigenvalues per unit of λ, on a logarithmic scale, one line per checkpoint.

    The converged eigenvalues of `ticks` are drawn below. The lines end at a hundredth of the
    height of a single eigenvalue.

    Args:
        densities: by name of the checkpoint.
        ticks: eigenvalues by the same names, of some or all; none by default.

    Raises:
        InputError: no densities, or ticks of a name that has none.
    """
    ticks = ticks or {}
    if not densities or not ticks.keys() <= densities.keys():
        raise InputError("expected at least one density, and ticks only for names that have a density")
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    ticked = {name: _converged(ticks[name]) for name in densities if name in ticks}
    x, width, curves = broadened(densities, ticks)
    one = 1 / (width * (2 * np.pi) ** 0.5)  # the height of a single eigenvalue
    with paper():
        figure = Figure(figsize=(PAGE, 2.4 + 0.1 * len(ticked)))
        ratios = [20, len(ticked)] if ticked else [1]
        upper, *strip = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for (name, height), color in zip(curves.items(), COLORS * len(densities), strict=False):
            upper.plot(x, height, color=color, label=shown(name))
            if name in ticked:
                row = list(ticked).index(name)
                strip[0].plot(ticked[name], np.full(len(ticked[name]), -row), "|", color=color, ms=6, mew=0.8)
        upper.set(
            yscale="log",
            ylabel="eigenvalues per unit of λ",
            ylim=(one / 100, 5 * np.max(list(curves.values()))),
        )
        upper.yaxis.set_minor_locator(NullLocator())
        upper.legend()
        for lower in strip:
            upper.tick_params(bottom=False)
            upper.spines["bottom"].set_color("0.8")
            lower.set(yticks=[], ylim=(0.5 - len(ticked), 0.5))
            lower.spines["left"].set_visible(False)
        figure.axes[-1].set(xlabel=f"eigenvalue λ (Gaussians of width {width:.2g})")
        return figure


def broadened(
    densities: Mapping[str, SpectralDensity], ticks: Mapping[str, Eigenpairs]
) -> tuple[Array, float, dict[str, Array]]:
    """Return an axis that holds all densities and converged eigenvalues, and the densities on it.

    Args:
        densities: by name of the checkpoint.
        ticks: eigenvalues by the same names, of some or all.

    Returns:
        The axis λ, shape (points,); the width of the Gaussians that broaden the nodes; and by name the
        number of eigenvalues per unit of λ, shape (points,).
    """
    ticked = [_converged(pairs) for pairs in ticks.values()]
    known = np.concatenate([nodes for density in densities.values() for nodes in density.nodes] + ticked)
    low, high = float(known.min()), float(known.max())
    width = WIDTH * (high - low or abs(high) or 1.0)
    x = np.linspace(low - 5 * width, high + 5 * width, POINTS)
    return x, width, {name: density.dimension * density.at(x, width) for name, density in densities.items()}


def _converged(pairs: Eigenpairs) -> Array:
    """Return the eigenvalues that have converged, of both ends."""
    values = np.concatenate([pairs.eigenvalues, pairs.smallest_eigenvalues])
    return np.asarray(values[[*pairs.converged, *pairs.smallest_converged]])

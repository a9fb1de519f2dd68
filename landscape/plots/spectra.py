"""Spectral densities, on one scale."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, panels, titled
from landscape.plots.style import COLUMN, LOSS_MAP, PAGE, folded, line_look, paper, shown
from landscape.storage.results import Array

WIDTH = 0.01  # width of the Gaussian that broadens a node, as a fraction of the axis
POINTS = 1000  # along the axis
OVERLAP = 2.0  # height of the highest ridge, in distances of two
NAME = 16  # characters in a line of the name of a ridge
ROW = 0.06  # height of a row of ticks, as a share of that of the axes


def spectrum(
    densities: SpectralDensity | Mapping[str, SpectralDensity],
    ticks: Eigenpairs | Mapping[str, Eigenpairs] | None = None,
    *,
    ax: Any = None,
    title: str | None = None,
    size: tuple[float, float] = (PAGE, 2.6),
) -> Any:
    """Draw the number of eigenvalues per unit of λ, on a logarithmic scale, one line per checkpoint.

    The converged eigenvalues of `ticks` are drawn below the lines, each row in the colour of its checkpoint.
    The lines end at a hundredth of the height of a single eigenvalue.

    Args:
        densities: the density of one checkpoint, or of several by name.
        ticks: eigenvalues by the same names, of some or all; none by default.
        ax: axes to draw on; by default those of a new figure.
        title: title of the axes.
        size: width and height of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        InputError: no densities, or ticks of a name that has none.
    """
    densities, ticks = by_name(densities), by_name(ticks) if ticks else {}
    if not densities or not ticks.keys() <= densities.keys():
        raise InputError("expected at least one density, and ticks only for names that have a density")
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import NullLocator

    ticked = {name: _converged(ticks[name]) for name in densities if name in ticks}
    x, width, curves = broadened(densities, ticks)
    one = 1 / (width * (2 * np.pi) ** 0.5)  # the height of a single eigenvalue
    with paper():
        (axes,) = panels(ax, 1, size)
        rows = ROW * len(ticked)  # the share of the height that the ticks take
        low, high = np.log10(one / 100), np.log10(5 * np.max(list(curves.values())))
        for number, (name, height) in enumerate(curves.items()):
            look = line_look(number)
            axes.plot(x, height, **look, label=shown(name) or None)
            if name in ticked:
                at = rows - ROW * (list(ticked).index(name) + 0.5)
                axes.plot(
                    ticked[name],
                    np.full(len(ticked[name]), at),
                    "|",
                    color=look["color"],
                    ms=5,
                    mew=0.8,
                    zorder=2.3,
                    transform=axes.get_xaxis_transform(),
                    label="_ticks",  # no entry in the legend: the colour says whose they are
                )
        if ticked:  # a strip of their own, which no line enters
            axes.add_patch(Rectangle((0, 0), 1, rows, transform=axes.transAxes, color="white", zorder=2.1))
            axes.axhline(one / 100, color="0.8", lw=0.6, zorder=2.2)
        axes.set(
            yscale="log",
            ylabel="eigenvalues per unit of λ",
            xlabel=f"eigenvalue λ (Gaussians of width {width:.2g})",
            ylim=(10 ** (low - (high - low) * rows / (1 - rows)), 10**high),
        )
        axes.set_yticks([tick for tick in axes.get_yticks() if one / 100 <= tick <= 10**high])
        axes.yaxis.set_minor_locator(NullLocator())
        if any(densities):
            axes.legend()
        return titled([axes], title)


spectrum_figure = apart(spectrum)


def spectrum_ridge(
    densities: Mapping[Any, SpectralDensity],
    *,
    ax: Any = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw how the spectrum changes along a training: a ridge per density, the first at the bottom.

    The height of a ridge is the logarithm of the number of eigenvalues per unit of λ, from a hundredth of the
    height of a single eigenvalue up; all ridges are on one scale, and overlap. The label says
    what one division is, from a baseline to the next.

    Args:
        densities: by step, epoch or name, in order.
        ax: axes to draw on; by default those of a new figure.
        title: title of the axes.
        size: width and height of a new figure, in inches.

    Returns:
        The axes.

    Raises:
        InputError: no densities.
    """
    if not densities:
        raise InputError("expected at least one density; ll.spectral_density measures one")
    from matplotlib import colormaps

    x, width, curves = broadened({str(name): density for name, density in densities.items()}, {})
    floor = 1 / (width * (2 * np.pi) ** 0.5) / 100
    heights = [np.log10(np.maximum(curve, floor) / floor) for curve in curves.values()]
    decades = float(np.ceil(np.max(heights) / OVERLAP))  # from one baseline to the next
    with paper():
        (axes,) = panels(ax, 1, size or (COLUMN, 1.2 + 0.3 * len(heights)))
        for row, (height, share) in enumerate(zip(heights, np.linspace(0.1, 0.9, len(heights)), strict=True)):
            top, color = row + height / decades, colormaps[LOSS_MAP](share)
            axes.fill_between(x, row, top, color=color, alpha=0.75, lw=0, zorder=-row)
            axes.plot(x, np.where(height > 0, top, np.nan), color="white", lw=1.4, zorder=-row)
            axes.plot(x, top, color=color, lw=0.8, zorder=-row)
        axes.set_yticks(range(len(heights)), [folded(shown(name), NAME) for name in curves])
        axes.set(
            xlabel=f"eigenvalue λ\n(Gaussians of width {width:.2g})",
            ylabel=f"eigenvalues per unit of λ,\na factor of $10^{{{decades:.0f}}}$ per division",
            xlim=(x[0], x[-1]),
        )
        axes.tick_params(axis="y", length=0)
        return titled([axes], title)


spectrum_ridge_figure = apart(spectrum_ridge)


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

"""Planes in three dimensions, and what a training's way over a plane leaves out of the picture."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, columns_of, figure_of, panels, titled
from landscape.plots.labels import axis_label
from landscape.plots.levels import LEVELS, Scale, drawn_at, few_log_ticks, finite
from landscape.plots.style import COLORS, COLUMN, LOSS_MAP, PAGE, paper, shown
from landscape.plots.surfaces import Size, common_dimension, loss_range
from landscape.surface.slice import Slice

LABEL = 24
"""Characters in a line of an axis label: the layout leaves no room for longer ones."""
VIEW = (28, -50)
"""Degrees above the plane and around it, from where it is seen."""


def surface_3d(
    slices: Slice | Mapping[str, Slice],
    *,
    ax: Any = None,
    log: bool = False,
    title: str | None = None,
    cmap: str = LOSS_MAP,
    size: Size | None = None,
) -> Any:
    """Draw planes as surfaces in three dimensions, side by side and on one scale.

    Args:
        slices: a plane, or several by name of the model.
        ax: axes of the projection `3d`, one per plane; by default those of a new figure.
        log: draw log₁₀(L - Lmin + ε) upwards; the ticks are losses.
        title: title of the figure.
        cmap: the name of Matplotlib's colour map.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several planes, an array of them.

    Raises:
        InputError: there is a line, no plane, or no finite loss; or the axes have two dimensions.
    """
    from matplotlib.ticker import MaxNLocator

    slices = by_name(slices)
    if common_dimension(slices) == 1:
        raise InputError("a line has no third dimension; draw it with surface")
    scale = Scale(*loss_range(slices), log)
    heights = scale.levels(LEVELS)
    with paper():
        count = len(slices)
        columns = columns_of(count)
        wide = PAGE if count > 1 else COLUMN
        chosen = size or (wide, -(-count // columns) * (wide - 0.6) / columns)
        every = panels(ax, count, chosen, columns, subplot_kw={"projection": "3d"})
        if not all(axes.name == "3d" for axes in every):
            raise InputError("surface_3d needs axes of three dimensions: subplots(projection='3d')")
        axes: Any
        for axes, (name, result) in zip(every, slices.items(), strict=True):
            x, y = result.coordinates
            axes.plot_surface(
                *np.meshgrid(x, y),
                scale.heights(finite(result.losses)).T,  # losses[i, j] is at (x_i, y_j); a mesh has rows of y
                cmap=cmap,
                vmin=heights[0],
                vmax=heights[-1],
                rcount=51,
                ccount=51,
                lw=0,
                antialiased=False,  # else the seams of the mesh show
            )
            axes.set(zlim=(heights[0], heights[-1]), title=shown(name))
            for put, axis in ((axes.set_xlabel, 0), (axes.set_ylabel, 1)):
                put(textwrap.fill(shown(axis_label(result, axis)), LABEL), labelpad=-6, fontsize=6)
            axes.tick_params(labelsize=5, pad=-3)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.zaxis.set_major_locator(MaxNLocator(6))  # as the colour bar's, which names their factor
            axes.zaxis.get_offset_text().set_visible(False)
            if log:
                ticks = scale.ticks()
                axes.set_zticks(list(ticks), labels=list(ticks.values()))
            axes.view_init(*VIEW)
        scale.colorbar(figure_of(every), every, cmap, LEVELS)
        return titled(every, title)


def trajectory(
    slices: Slice | Mapping[str, Slice],
    *,
    ax: Any = None,
    title: str | None = None,
    size: Size = (COLUMN, 3.2),
) -> Any:
    """Draw what a trajectory on a plane leaves out: its own losses, and its distance from the plane.

    A training does not run in the plane on which it is drawn. The upper axes show the loss of each
    checkpoint and, dashed, that of the plane where it is drawn; the lower ones, its distance from there. The
    scale of losses is logarithmic if all of them are positive.

    Args:
        slices: a plane with a trajectory, or several by name of the model.
        ax: two axes to draw on; by default those of a new figure.
        title: title of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        An array of two axes.

    Raises:
        InputError: no trajectory whose losses were stored, or not two axes.
    """
    slices = by_name(slices)
    with paper():
        upper, lower = panels(ax, 2, size, columns=1, sharex=True, height_ratios=[3, 2])
        positive = True
        for (name, result), color in zip(slices.items(), COLORS * len(slices), strict=False):
            known = result.settings.get("trajectory")
            if not known:
                raise InputError(
                    f"{name or 'this slice'} has no trajectory with losses; measure it again with "
                    "--directions trajectory"
                )
            positive = positive and all(loss > 0 for loss in known["losses"] if math.isfinite(loss))
            steps = range(len(known["losses"]))
            upper.plot(steps, known["losses"], ".-", ms=3, color=color, label=shown(name) or "checkpoint")
            upper.plot(steps, drawn_at(result, result.trajectory), "--", lw=0.8, color=color)
            lower.plot(steps, known["distances"], ".-", ms=3, color=color)
        upper.plot([], [], "--", lw=0.8, color="0.3", label="on the plane")
        upper.set(ylabel="loss")
        if positive:
            upper.set_yscale("log")
            few_log_ticks(upper.yaxis)
        upper.legend()
        lower.set(xlabel="checkpoint", ylabel="‖θ - plane‖", ylim=(0, None))
        return titled([upper, lower], title)


trajectory_figure = apart(trajectory)

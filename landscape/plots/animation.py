"""The trajectory of a training on its loss surface, as a GIF."""

from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import InputError
from landscape.plots.style import COLUMN, paper
from landscape.plots.surfaces import surface_figure
from landscape.storage.files import replacing
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.artist import Artist

SECONDS = 6  # length of the animation
HOLD = 8  # frames for which the last picture stays


def save_animation(result: Slice, path: Path, name: str) -> Path:
    """Write a GIF in which the trajectory grows point by point over the plane.

    Raises:
        InputError: the slice has no trajectory.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    way = result.trajectory
    if not len(way):
        raise InputError("this slice has no trajectory to animate")
    figure = surface_figure({name: result})
    with paper():
        figure.set_size_inches(COLUMN, 0.95 * COLUMN)
        axes = figure.axes[0]
        for line in list(axes.lines):  # the still picture's own trajectory
            line.remove()
        (trail,) = axes.plot([], [], ".-", color="white", ms=3, lw=0.8)
        (head,) = axes.plot([], [], "o", color="white", ms=5)

        def at(frame: int) -> "list[Artist]":
            shown = way[: min(frame, len(way) - 1) + 1]
            trail.set_data(*shown.T)
            head.set_data(*shown[-1:].T)
            return [trail, head]

        animation = FuncAnimation(figure, at, frames=len(way) + HOLD, blit=False)
        with replacing(path) as temporary:
            animation.save(temporary, PillowWriter(fps=max(1, round(len(way) / SECONDS))), dpi=150)
    return path

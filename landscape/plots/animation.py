"""The trajectory of a training on its loss surface, as a GIF."""

from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import InputError
from landscape.plots.style import folded, paper, shown
from landscape.plots.surfaces import surface_figure
from landscape.storage.files import replacing
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.artist import Artist

SECONDS = 6  # length of the animation
WIDTH, PIXELS = 5.0, 120  # inches, and pixels of one: 600 × 510 in all
NAME = 45  # characters in a line of a name, which leave room for a loss
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
    figure = surface_figure({name: result}, size=(WIDTH, 0.85 * WIDTH))
    losses = result.settings.get("trajectory", {}).get("losses", [])
    with paper():
        axes = figure.axes[0]
        for line in list(axes.lines):  # the still picture's own trajectory
            line.remove()
        (trail,) = axes.plot([], [], ".-", color="white", ms=3, lw=0.8)
        (head,) = axes.plot([], [], "o", color="white", ms=5)
        said = axes.set_title("")

        def drawn(frame: int) -> "list[Artist]":
            at = min(frame, len(way) - 1)
            trail.set_data(*way[: at + 1].T)
            head.set_data(*way[at : at + 1].T)
            loss = f", loss {losses[at]:.4g}" if losses else ""
            said.set_text(f"{folded(shown(name), NAME)}: checkpoint {at} of {len(way) - 1}{loss}")
            return [trail, head, said]

        drawn(0)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out anew, frames would tremble
        animation = FuncAnimation(figure, drawn, frames=len(way) + HOLD, blit=False)
        with replacing(path) as temporary:
            animation.save(temporary, PillowWriter(fps=max(1, round(len(way) / SECONDS))), dpi=PIXELS)
    return path

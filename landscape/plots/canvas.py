"""Where plots are drawn: on the axes that are given, or on those of a figure of their own."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plain
from matplotlib.ticker import ScalarFormatter

from landscape.errors import InputError
from landscape.plots.style import paper, shown, superscript

T = TypeVar("T")
APART: Final = "apart"
"""In place of axes: those of a new figure that pyplot does not know, for files and pages."""
SCREEN = 110
"""Pixels of an inch of a figure, where a notebook shows it."""


class Figure(Plain):
    """A figure that a notebook shows, whether pyplot knows it or not."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        with paper():
            self.savefig(buffer, format="png")
        return buffer.getvalue(), {"width": round(SCREEN * self.get_figwidth())}


class Numbers(ScalarFormatter):
    """Labels of ticks in plain text, powers of ten too: formulas take a third of the time of a picture."""

    def __init__(self) -> None:
        super().__init__(useMathText=False)

    def get_offset(self) -> str:
        """Return what all labels are to be multiplied with, or what is to be added, above the axis."""
        told = super().get_offset().replace("\N{MINUS SIGN}", "-")
        raised = re.sub(
            r"(^1)?e(-?)\+?(\d+)", lambda found: f"×10{superscript(int(found[2] + found[3]))}", told
        )
        return self.fix_minus(raised)


def by_name(results: T | Mapping[str, T]) -> Mapping[str, T]:
    """Return results by name; a single one has the name ""."""
    return results if isinstance(results, Mapping) else {"": results}


def panels(
    ax: Any, count: int, size: tuple[float, float], columns: int | None = None, **grid: Any
) -> list[Axes]:
    """Return `count` axes, in rows of `columns`.

    Args:
        ax: None for a new figure of pyplot, which a notebook shows; `APART` for one that pyplot does not
            know; or axes, as many as there are panels.
        size: width and height of a new figure, in inches.
        columns: by default all panels stand side by side.
        grid: further arguments of `Figure.subplots`.

    Raises:
        InputError: more or fewer axes are given.
    """
    if ax is not None and ax is not APART:
        given = [ax] if isinstance(ax, Axes) else list(np.ravel(ax))
        if len(given) != count:
            raise InputError(f"this plot has {count} panel{'s'[: count > 1]}; ax holds {len(given)} axes")
        return given
    columns = columns or count
    with paper():
        figure = Figure(figsize=size) if ax is APART else _of_pyplot(size)
        made = list(figure.subplots(-(-count // columns), columns, squeeze=False, **grid).flat)
        for axes in made[:count]:
            for axis in filter(None, (axes.xaxis, axes.yaxis, getattr(axes, "zaxis", None))):
                axis.set_major_formatter(Numbers())
    for spare in made[count:]:
        spare.remove()
    return made[:count]


def _of_pyplot(size: tuple[float, float]) -> Figure:
    from matplotlib import pyplot

    made = pyplot.figure(figsize=size, dpi=SCREEN, FigureClass=Figure)
    assert isinstance(made, Figure)  # which the types of matplotlib do not say
    return made


def titled(axes: Sequence[Axes], title: str | None = None) -> Any:
    """Return what a plot function returns: the axes, or an array of several. A title stands above all."""
    if title is not None:
        head = axes[0].set_title if len(axes) == 1 else figure_of(axes).suptitle
        head(shown(title))
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def figure_of(axes: Any) -> Figure:
    """Return the figure of what a plot function returned."""
    found: Figure = np.ravel(axes)[0].figure
    return found


def apart(plot: Callable[..., Any]) -> Callable[..., Figure]:
    """Return a function that draws the same as `plot`, for a file: a figure that pyplot does not know."""

    @wraps(plot)
    def drawn(*results: Any, **style: Any) -> Figure:
        return figure_of(plot(*results, ax=APART, **style))

    return drawn

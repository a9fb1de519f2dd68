"""Where plots are drawn: on the axes that are given, or on those of a figure of their own."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plain
from matplotlib.ticker import ScalarFormatter
from matplotlib.transforms import ScaledTranslation

from landscape.errors import InputError
from landscape.plots.style import folded, paper, shown, superscript

if TYPE_CHECKING:
    from matplotlib.legend import Legend
    from matplotlib.text import Text

T = TypeVar("T")
APART: Final = "apart"
"""In place of axes: those of a new figure that pyplot does not know, for files and pages."""
SCREEN = 110
"""Pixels of an inch of a figure, where a notebook shows it."""
LETTER = 0.57
"""Width of a letter, in units of the size of its font."""
SIDE = 0.35
"""Inches beside axes for their numbers, about: what is centred on the axes has less room by that."""
LINE = 9
"""Points from a line of a small text to the next."""
FEWEST = 12
"""Letters in a line of a text that is broken, at least."""


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


def is_new(ax: Any) -> bool:
    """Tell whether a plot has a figure of its own, rather than axes that were given."""
    return ax is None or ax is APART


def columns_of(count: int) -> int:
    """Return how many of several planes stand side by side."""
    return 2 if count == 4 else min(count, 3)


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
    if not is_new(ax):
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
    """Return what a plot function returns: the axes, or an array of several. A title stands above all.

    Names may be long: texts that are too long for their place are broken into lines.
    """
    figure = axes[0].get_figure(root=True)
    assert figure is not None  # these axes have one
    if title is not None and len(axes) > 1:
        _fit(figure.suptitle(shown(title)), figure.get_figwidth())
    elif title is not None:
        head, left = axes[0].set_title(shown(title)), axes[0].get_title(loc="left")
        if left:  # stands below it
            up = ScaledTranslation(0, (left.count("\n") + 1) * LINE / 72, figure.dpi_scale_trans)
            head.set_transform(head.get_transform() + up)
    for each in axes:
        place, spec = each.get_window_extent(), each.get_subplotspec()
        width = room = place.width / figure.dpi
        rise = place.height / figure.dpi
        if spec:
            grid = spec.get_gridspec()
            room, rise = figure.get_figwidth() / grid.ncols - SIDE, figure.get_figheight() / grid.nrows
        for text in (each.title, each.xaxis.label):
            _fit(text, room)
        _fit(each.yaxis.label, rise)
        _fit_legend(each.get_legend(), width)
    for legend in figure.legends:
        _fit_legend(legend, figure.get_figwidth())
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def _fit(text: "Text", width: float) -> None:
    """Break a text into lines of about `width` inches or less."""
    fits = int(72 * width / (LETTER * float(text.get_fontsize())))
    text.set_text(folded(text.get_text(), max(FEWEST, fits)))


def _fit_legend(legend: "Legend | None", width: float) -> None:
    """Break the names in a legend so that it takes about `width` inches or less."""
    for text in legend.get_texts() if legend else ():
        handle = 4 * float(text.get_fontsize()) / 72  # with the space around it
        _fit(text, width / legend._ncols - handle)  # type: ignore[union-attr] # where there are texts


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

"""How results show themselves: as text, in a notebook, as a data frame, and as a picture.

What each kind looks like stands above the measurements, in `landscape.plots.faces`, and is imported when it
is asked for: whoever measures needs neither matplotlib nor polars.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from landscape.errors import InputError

WIDTH, LINES = 80, 6
"""How much a `repr` takes, at most: less than 500 characters."""


class Brief:
    """A dataclass whose `repr` is short: of arrays it says the shape, of long sequences the length, of
    numbers six digits.
    """

    def __repr__(self) -> str:
        said = (f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type] # mixed into dataclasses
        return flowing(f"{type(self).__name__}({', '.join(said)})")


class Shown:
    """A result that shows its numbers."""

    def __repr__(self) -> str:
        said: str = _faces().text(self)
        return said

    def _repr_html_(self) -> str:
        said: str = _faces().html(self)
        return said

    def to_frame(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """Return the numbers as a data frame, in full precision.

        Args:
            library: `pandas` or `polars`; by default pandas where it is installed, else polars.

        Returns:
            A `DataFrame` of that library, a row per point, eigenvalue, probe or measure.

        Raises:
            InputError: that library is not installed.
        """
        return _faces().frame(self, library)


class Drawn(Shown):
    """A result with a picture."""

    def plot(self, ax: Any = None, **style: Any) -> Any:
        """Draw the result.

        Args:
            ax: matplotlib's axes to draw on, as many as there are panels; by default those of a new figure.
            style: arguments of the function of `landscape.plots` that draws this kind: `title`, `size`, …

        Returns:
            The axes; of several panels, an array of them.

        Raises:
            InputError: as that function.
        """
        return _faces().drawn(self, "plot", ax, style)


class Turned(Drawn):
    """A result that can be drawn in three dimensions."""

    def plot_3d(self, ax: Any = None, **style: Any) -> Any:
        """Draw planes as surfaces in three dimensions.

        Args:
            ax: axes of matplotlib's projection `3d`, one per plane; by default those of a new figure.
            style: arguments of `landscape.plots.surface_3d`.

        Returns:
            The axes; of several planes, an array of them.

        Raises:
            InputError: the result is a line, or as `landscape.plots.surface_3d`.
        """
        return _faces().drawn(self, "plot_3d", ax, style)

    def interactive(self) -> Any:
        """Return a plotly figure, which a notebook shows and the mouse turns.

        Raises:
            InputError: no point has a finite loss.
        """
        return _faces().interactive(self)


def flowing(said: str, lines: int = LINES) -> str:
    """Break a text into lines of `WIDTH` characters, and cut it where there are more than `lines`."""
    return "\n".join(textwrap.wrap(said, WIDTH, subsequent_indent="  ", max_lines=lines, placeholder=" …"))


def framed(columns: Mapping[str, Any], library: str | None) -> Any:
    """Return columns as a data frame, see `Shown.to_frame`."""
    library = library or ("pandas" if find_spec("pandas") else "polars")
    if library not in ("pandas", "polars"):
        raise InputError(f"library is {library!r}; choose pandas or polars")
    return optional(library).DataFrame(columns)


def optional(library: str) -> Any:
    """Import a library that need not be installed.

    Raises:
        InputError: it is not.
    """
    try:
        return import_module(library)
    except ImportError:
        raise InputError(f"{library} is not installed: pip install {library}") from None


def _faces() -> Any:
    return import_module("landscape.plots.faces")


def _brief(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{type(value).__name__.lower()} {tuple(value.shape)}>"
    if isinstance(value, list | tuple) and len(value) > 3:
        return f"<{len(value)} of {type(value[0]).__name__}>"
    if isinstance(value, tuple) and value:
        return f"({', '.join(map(_brief, value))}{','[: len(value) == 1]})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value)

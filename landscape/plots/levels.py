"""Contours of planes, and the scale of the loss that several of them share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from landscape.errors import InputError
from landscape.plots.style import LOSS_MAP, MISSING, power_of_ten
from landscape.runtime.arguments import Between, Each, Whole, said
from landscape.storage.results import Array
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

LEVELS = 16
COUNT, LOSSES = Whole(1, 1000), Each((Between(),))
Levels = int | Sequence[float]
"""About how many levels, at round numbers; or the levels themselves, in units of the loss."""
ROOM = (0.3, 0.17)
"""Inches between the middles of two labels, to the right and upwards, where neither covers the other."""
LONGEST = 4
"""How many times as long as the other an axis may be, so that steps along both have one length."""
MARGIN = 0.11
"""Inches from the middle of a label to the frame, which would cut it."""


def log_floor(low: float, high: float) -> float:
    """Return the ε of a logarithmic scale of losses: a thousandth of their range, to one digit.

    That is the default tolerance: what is finer has not been measured.
    """
    return float(f"{1e-3 * (high - low):.0e}")


def finite(losses: Array) -> Array:
    """Return losses with NaN in place of those that are not finite, which are then left out."""
    return np.where(np.isfinite(losses), losses, np.nan)


def drawn_at(result: Slice, places: Array) -> Array:
    """Return the loss of a plane as it is drawn at some places, shape (n, 2), as n; NaN outside of it."""
    from scipy.interpolate import RegularGridInterpolator

    surface = RegularGridInterpolator(result.coordinates, finite(result.losses), bounds_error=False)
    return np.asarray(surface(places))


@dataclass(frozen=True)
class Scale:
    """How losses become heights, which colours show.

    Attributes:
        low, high: the smallest and the largest loss.
        log: whether a height is log₁₀(L - low + ε), with ε as in `log_floor`, and not L itself.
    """

    low: float
    high: float
    log: bool = False

    @property
    def epsilon(self) -> float:
        """ε; of a constant loss, for which any will do, 1."""
        return log_floor(self.low, self.high) or 1.0

    def heights(self, losses: Any) -> Array:
        """Return the height of each loss."""
        values = np.asarray(losses, np.float64)
        return np.log10(values - self.low + self.epsilon) if self.log else values

    def levels(self, asked: Levels) -> Array:
        """Return the heights between which a colour stays the same.

        Levels below the least loss, of which there is no logarithm, become that loss.

        Raises:
            InputError: they are not a number of levels, nor two levels or more.
        """
        from matplotlib.ticker import MaxNLocator

        if isinstance(asked, int) and COUNT.allows(asked):
            low, high = self.heights([self.low, self.high if self.high > self.low else self.low + 1])
            if self.log:
                return np.linspace(low, high, asked + 1)
            return np.asarray(MaxNLocator(asked).tick_values(low, high))
        given = np.array([] if isinstance(asked, int) or not LOSSES.allows(asked) else list(asked))
        chosen = np.unique(np.maximum(given, self.low) if self.log else given)
        if len(chosen) < 2:
            least = f" of {self.low:.4g} or more" if self.log else ""
            raise InputError(
                f"levels is {said(asked)}; it must be {COUNT}, or two or more different losses{least}"
            )
        return self.heights(chosen)

    def beyond(self, steps: Array) -> Literal["neither", "min", "max", "both"]:
        """Tell at which ends losses lie beyond these heights: they have the colours of the ends."""
        low, high = self.heights([self.low, self.high])
        if low < steps[0]:
            return "both" if steps[-1] < high else "min"
        return "max" if steps[-1] < high else "neither"

    def ticks(self) -> dict[float, str]:
        """Return the heights of some round rises over the smallest loss, each with its loss as text."""
        span = self.high - self.low or 1.0
        powers = 10.0 ** np.arange(np.ceil(np.log10(self.epsilon)), np.floor(np.log10(span)) + 1)
        rises = np.sort(np.concatenate([powers, 3 * powers])) if len(powers) < 4 else powers
        chosen = rises[(rises >= 2 * self.epsilon) & (rises <= span)].tolist()
        losses = [(self.low, min(chosen, default=span)), *((self.low + rise, rise) for rise in chosen)]
        return {float(self.heights(loss)): _written(loss, step) for loss, step in losses}

    @property
    def label(self) -> str:
        """What a colour bar says beside its ticks."""
        if not self.log:
            return "loss"
        least, epsilon = _written(self.low, self.epsilon), power_of_ten(f"{self.epsilon:g}")
        return f"loss, coloured by\nlog₁₀(L − Lmin + {epsilon}), Lmin = {least}"

    def colorbar(self, figure: "Figure", axes: Sequence["Axes"], cmap: str, levels: Levels) -> None:
        """Draw the colour bar of all these axes, with ticks in units of the loss."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.ticker import MaxNLocator

        from landscape.plots.canvas import Numbers

        known = self.levels(levels)
        colors = ScalarMappable(Normalize(known[0], known[-1]), cmap)
        # as many ticks at any height, since labels that the layout changes would not fit into it
        steps = None if self.log else MaxNLocator(6)
        bar = figure.colorbar(
            colors,
            ax=list(axes),
            label=self.label,
            shrink=0.85,
            pad=0.05 if len(axes) == 1 else 0.02,  # a share of the width of all axes
            format=Numbers(),
            ticks=steps,
            extend="neither" if isinstance(levels, int) else self.beyond(known),
        )
        if self.log:
            ticks = self.ticks()
            bar.set_ticks(list(ticks), labels=list(ticks.values()))
            bar.minorticks_off()
            return
        name_factor(bar, self.label)


def contours(
    axes: "Axes",
    coordinates: Sequence[Array],
    values: Array,
    low: float,
    high: float,
    colors: str = LOSS_MAP,
    levels: Levels = LEVELS,
    log: bool = False,
) -> Any:
    """Draw a plane's values, `values[i, j]` at (x_i, y_j), between two limits; what is not finite is grey.

    Args:
        axes: where to draw.
        coordinates: x and y, shapes (n,) and (m,).
        values: shape (n, m).
        low, high: the limits, in units of the values.
        colors: the name of Matplotlib's colour map.
        levels: about how many levels, or the levels themselves in units of the values; values beyond them
            have the colours of their ends.
        log: colour by log₁₀(value - low + ε), with ε a thousandth of the range.

    Returns:
        What a colour bar takes.

    Raises:
        InputError: fewer than two levels are given, or all are below what a logarithm is of.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    scale = Scale(low, high, log)
    steps = scale.levels(levels)
    x, y = coordinates
    finite = np.ma.masked_invalid(scale.heights(values).T)  # contour wants rows of y
    axes.set_facecolor(MISSING)
    lengths = [float(np.ptp(axis)) for axis in coordinates]
    axes.set_aspect("equal" if max(lengths) <= LONGEST * min(lengths) else "auto")
    filled = axes.contourf(
        x,
        y,
        finite,
        levels=steps,
        cmap=colors,
        norm=Normalize(steps[0], steps[-1]),
        extend="neither" if isinstance(levels, int) else scale.beyond(steps),  # else they would look missing
    )
    chosen = dict(list(scale.ticks().items())[1:]) if log else _names(steps)
    ink = "white" if _luminance(colormaps[colors](0.5)) < 0.6 else "0.25"
    if chosen:
        dashes = "solid" if log else None  # else those below 0 are dashed, where a logarithm means nothing
        lines = axes.contour(x, y, finite, levels=list(chosen), colors=ink, linewidths=0.5, linestyles=dashes)
        _labelled(axes, lines, chosen)
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
    return filled


def name_factor(bar: "Colorbar", label: str) -> None:
    """Label a colour bar, with the factor of its numbers: above the bar it would push the planes together."""
    formatter = bar.long_axis.get_major_formatter()
    formatter.format_ticks(bar.get_ticks().tolist())
    factor = formatter.get_offset()
    bar.set_label(f"{label} ({factor})".lstrip() if factor else label)
    bar.long_axis.get_offset_text().set_visible(False)


def _names(steps: Array) -> dict[float, str]:
    """Return every other of some levels, each with its text, in as many digits as tell it from the next."""
    digits = _digits(float(np.abs(steps).max()), float(np.diff(steps).min()))
    return {level: power_of_ten(f"{level:.{digits}g}") for level in steps[1:-2:2].tolist()}


def _written(loss: float, step: float) -> str:
    """Write a loss with one digit more than it takes to tell it from a loss that is a step away."""
    if not loss:
        return "0"
    size = math.floor(math.log10(abs(loss)))
    digits = max(1, 2 + size - math.floor(math.log10(step)))
    return power_of_ten(f"{loss:.{max(digits, size + 1) if size < 5 else digits}g}")


def few_ticks(axis: "Axis") -> None:
    """Leave room between the numbers of an axis, which have a sign and up to two decimals."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def widen(axes: "Axes") -> None:
    """Let the upward axis hold at least a tenth of the largest magnitude on it."""
    low, high = axes.get_ylim()
    lack = 0.1 * max(abs(low), abs(high)) - (high - low)
    if lack > 0:
        axes.set_ylim(low - lack / 2, high + lack / 2)


def few_log_ticks(axis: "Axis") -> None:
    """Put ticks at 1, 2 and 5 times a power of ten, or at the powers alone where there are many.

    Where an axis is too short for two of them, ticks stand at equal steps.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    if high < 5 * low:
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=5))
    digits = _digits(high, high - low)
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(f"{value:.{digits}g}")))
    axis.set_minor_locator(NullLocator())


def _digits(most: float, step: float) -> int:
    """Return how many digits numbers need so that their steps show: six, as `g` has, or more."""
    return max(6, 2 + math.ceil(math.log10(most / step))) if 0 < step < most < math.inf else 6


def _labelled(axes: "Axes", lines: Any, names: dict[float, str]) -> None:
    """Write the value on each line, but none over another or across the frame."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    extent = axes.get_window_extent()
    dpi = axes.get_figure(root=True).dpi  # type: ignore[union-attr] # these axes have a figure
    unit = np.array([(right - left) / extent.width, (top - bottom) / extent.height]) * dpi  # of an inch
    inner = np.array([(left, bottom), (right, top)]) + MARGIN * unit * [[1], [-1]]
    kept: list[Any] = []
    for label in axes.clabel(lines, fmt=names, fontsize=5, inline=False):
        at = np.array(label.get_position())
        label.remove()
        inside = (inner[0] < at).all() and (at < inner[1]).all()
        if inside and not any((np.abs(at - other) < unit * ROOM).all() for other in kept):
            kept.append(at)
    axes.clabel(lines, fmt=names, fontsize=5, manual=kept)


def _luminance(color: Sequence[float]) -> float:
    red, green, blue = color[:3]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

"""How numbers are written, the same wherever they go, and the comparison as a table of text."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from landscape.flatness.comparison import LOSS, NORM, Contrast, Contrasts, Row
from landscape.runtime.rounding import LOST, UNSURE, between

NEGLIGIBLE = 1e-7
"""Share of a value below which its error is one of rounding, and takes no more digits to be written."""


@dataclass(frozen=True)
class Notation:
    """How numbers are written, the same wherever a table goes.

    A value has three significant digits, or as many as its error needs to have one, and an error at most two.
    An error that rounding alone can make asks for no digits.

    Attributes:
        plus_minus, times, minus: the signs.
        power: format of a power of ten.
        labels: names of rows that are not measures.
        mark: after the name of an invariant measure.
        indent: before the name of a group.
        escapes: how characters in names are written.
        missing: what stands where a measure does not apply.
    """

    plus_minus: str
    times: str
    minus: str
    power: str
    labels: Mapping[str, str]
    mark: str
    indent: str
    escapes: Mapping[int, str]
    missing: str

    def number(
        self, value: float | None, error: float | None = None, sign: str = "", size: float | None = None
    ) -> str:
        """Write a value, with its standard error if it has one.

        Args:
            sign: "+" to write that of gains too.
            size: a value whose power of ten is used, for values side by side; by default its own.
        """
        if value is None:
            return self.missing
        if not math.isfinite(value):
            return f"{value:g}"
        power = _exponent(max(abs(value), error or 0.0) if size is None else size, 3)
        power = 0 if -3 <= power < 5 else max(power, -300)  # 10^-324 is not a number
        value, error = value / 10.0**power, None if error is None else error / 10.0**power
        decimals = _decimals(value, error)
        written = f"{value:{sign}z.{decimals}f}".replace("-", self.minus)
        if error is not None:
            written += f"{self.plus_minus}{error:.{decimals}f}"
        if power == 0:
            return written
        return (written if error is None else f"({written})") + self.power.format(power)

    def contrast(self, contrast: Contrast | None, difference: bool = False) -> str:
        """Write a ratio with its interval; where there is none, or it is asked for, the difference."""
        if contrast is None:
            return ""
        if difference or contrast.ratio is None:
            return self.number(contrast.difference, contrast.standard_error, "+")
        if contrast.low is None or contrast.high is None:
            return f"{contrast.ratio:.{_decimals(contrast.ratio, None)}f}{self.times}"
        decimals = _decimals(contrast.ratio, (contrast.high - contrast.low) / 2)
        ends = between(contrast.low, contrast.high, decimals)
        low, high = (end.replace("-", self.minus) for end in ends)
        return f"{contrast.ratio:.{decimals}f}{self.times} [{low}, {high}]"

    def table(self, comparison: Contrasts) -> tuple[list[str], list[list[str]]]:
        """Return head and rows: one column per checkpoint, then the contrast of each with the first."""
        first, *others = (self.escaped(name) for name in comparison.names)
        head = ["", first, *others, *(f"{name} / {first}" for name in others)]
        rows = [
            [
                self.label(row),
                *(
                    self.number(value, se, size=_size((*row.values, *row.errors)))
                    + ("" if converged else UNSURE)
                    + ("" if resolved else LOST)
                    for value, se, converged, resolved in row.cells
                ),
                *(self.contrast(c, difference=row.measure == LOSS) for c in row.contrasts),
            ]
            for row in comparison.rows
        ]
        return head, rows

    def escaped(self, text: str) -> str:
        """Write a name so that it is shown as it is."""
        return " ".join(text.split()).translate(self.escapes)

    def label(self, row: Row) -> str:
        """Write the name of a row: a measure, or a group of parameters below it."""
        if row.group is not None:
            return self.indent + self.escaped(row.group)
        label = self.labels.get(row.measure) or self.escaped(row.measure)
        return label + (self.mark if row.invariant else "")


PLAIN = Notation(" ± ", "×", "-", "e{}", {LOSS: "L(θ)", NORM: "‖θ‖"}, " *", "  ", {}, "–")
LATEX = Notation(
    r"\,$\pm$\,",
    r"$\times$",
    "$-$",
    r"\,$\times$\,10$^{{{}}}$",
    {LOSS: r"$L(\theta)$", NORM: r"$\|\theta\|$"},
    r"$^{*}$",
    r"\quad ",
    str.maketrans(
        {
            **{sign: f"\\{sign}" for sign in "&%$#_{}"},
            "<": r"\textless{}",
            ">": r"\textgreater{}",
            "|": r"\textbar{}",
            "~": r"\textasciitilde{}",
            "^": r"\textasciicircum{}",
            "\\": r"\textbackslash{}",
        }
    ),
    "--",
)


def _size(values: Iterable[float | None]) -> float | None:
    """Return the largest magnitude, of those that are finite and not 0."""
    return max((abs(v) for v in values if v and math.isfinite(v)), default=None)


def _exponent(value: float, digits: int) -> int:
    """Return the power of ten of a number that is rounded to `digits` significant digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _decimals(value: float, error: float | None) -> int:
    """Return how many digits to write after the point."""
    own = 2 - _exponent(value, 3)
    if not error or not math.isfinite(error) or error < NEGLIGIBLE * abs(value):
        return max(0, own)
    if value == 0:
        return max(0, 1 - _exponent(error, 2))
    return max(0, min(max(own, -_exponent(error, 1)), 1 - _exponent(error, 2)))

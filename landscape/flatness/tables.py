"""A comparison in words and as a table: on a terminal, as JSON, CSV and LaTeX."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.flatness.comparison import LOSS, NORM, Comparison, Contrast, Row
from landscape.storage.files import replacing


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Say what stands below a table: what its mark means, and the verdict."""
    mark = "* unchanged by a rescaling of the weights that keeps the function"
    said = verdict(comparison)
    return (mark, *said) if any(row.invariant for row in comparison.rows) else said


def verdict(comparison: Comparison) -> tuple[str, ...]:
    """Return a sentence for each checkpoint but the first, and one of what the intervals speak for.

    Args:
        comparison: what `compare` returns.
    """
    first, *others = comparison.names
    measured = [row for row in comparison.rows if row.group is None and row.measure not in (LOSS, NORM)]
    found = tuple(
        f"{name} against {first}: {'; '.join(_clauses(measured, index))}."
        for index, name in enumerate(others)
        if any(row.contrasts[index] for row in measured)
    )
    count = sum(c is not None and c.differs is not None for row in measured for c in row.contrasts)
    if not count:
        return found
    each = f"Each of the {count} intervals is at 95% by itself" if count > 1 else "The interval is at 95%"
    over = "over draws and, where the measure allows it, over users; another training is not in it"
    return (*found, f"{each}, {over}.")


def _clauses(rows: Sequence[Row], index: int) -> Iterator[str]:
    """Say of the checkpoint with contrasts at `index` which measures differ from the first's, and how."""
    seen = [(row, c) for row in rows if (c := row.contrasts[index])]
    for invariant, what in (
        (True, "whatever the scale of the weights"),
        (False, "which the scale of the weights alone can change"),
    ):
        sides = []
        for below, side in ((True, "lower"), (False, "higher")):
            found = [
                f"{row.measure} {PLAIN.contrast(c)}"
                for row, c in seen
                if c.differs and row.invariant == invariant and (c.difference < 0) == below
            ]
            if found:
                sides.append(_listed(found, f"is {side}", f"are {side}"))
        if sides:
            yield f"{' and '.join(sides)}, {what}"
    within = [row.measure for row, c in seen if c.differs is False]
    if within:
        yield _listed(within, "does not differ beyond its error", "do not differ beyond their errors")
    bare = [row.measure for row, c in seen if c.ratio is not None and c.differs is None]
    if bare:
        yield _listed(bare, "has no interval", "have no interval")
    without = [row.measure for row, c in seen if c.ratio is None]
    if without:
        yield _listed(without, "has no ratio", "have no ratio")


def _listed(names: Sequence[str], one: str, many: str) -> str:
    """List names, and say one thing of them all."""
    return f"{', '.join(names[:-1])} and {names[-1]} {many}" if len(names) > 1 else f"{names[0]} {one}"


@dataclass(frozen=True)
class Notation:
    """How numbers are written, the same wherever a table goes.

    A value has three significant digits, or as many as its error needs to have one, and an error at most two.

    Attributes:
        plus_minus, times, minus: the signs.
        power: of ten, a format.
        labels: of what is no measure.
        mark: beside a measure that is invariant.
        indent: before a group.
        escapes: of characters in names.
        missing: where a measure does not apply.
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
            size: of which the power of ten is taken, for values that stand side by side; by default its own.
        """
        if value is None:
            return self.missing
        if not math.isfinite(value):
            return f"{value:g}"
        power = _exponent(max(abs(value), error or 0.0) if size is None else size, 3)
        power = 0 if -3 <= power < 5 else power
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
        low, high = (f"{v:.{decimals}f}".replace("-", self.minus) for v in (contrast.low, contrast.high))
        return f"{contrast.ratio:.{decimals}f}{self.times} [{low}, {high}]"

    def table(self, comparison: Comparison) -> tuple[list[str], list[list[str]]]:
        """Return head and rows: a column a checkpoint, then one for each but the first against the first."""
        first, *others = (self.escaped(name) for name in comparison.names)
        head = ["", first, *others, *(f"{name} / {first}" for name in others)]
        rows = [
            [
                self._label(row),
                *(
                    self.number(value, se, size=_size((*row.values, *row.errors)))
                    for value, se in zip(row.values, row.errors, strict=True)
                ),
                *(self.contrast(c, difference=row.measure == LOSS) for c in row.contrasts),
            ]
            for row in comparison.rows
        ]
        return head, rows

    def escaped(self, text: str) -> str:
        """Write a name so that it is shown as it is."""
        return " ".join(text.split()).translate(self.escapes)

    def _label(self, row: Row) -> str:
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
    """Return the power of ten of a number that is rounded to so many significant digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _decimals(value: float, error: float | None) -> int:
    """Return how many digits to write after the point."""
    own = 2 - _exponent(value, 3)
    if not error or not math.isfinite(error):
        return max(0, own)
    if value == 0:
        return max(0, 1 - _exponent(error, 2))
    return max(0, min(max(own, -_exponent(error, 1)), 1 - _exponent(error, 2)))


def entries(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as what JSON holds, with every digit; what is not finite is None."""
    return {
        "reference": comparison.names[0],
        "settings": dict(comparison.settings),
        "frozen": dict(comparison.frozen),
        "rows": [
            {
                "measure": row.measure,
                "group": row.group,
                "invariant": row.invariant,
                "checkpoints": dict(zip(comparison.names, _cells(row), strict=True)),
            }
            for row in comparison.rows
        ],
        "verdict": list(verdict(comparison)),
    }


def _cells(row: Row) -> Iterator[dict[str, float | None]]:
    for value, error, contrast in zip(row.values, row.errors, (None, *row.contrasts), strict=True):
        cell = {"value": value, "se": error} | (contrast.entry if contrast else {})
        yield {
            key: number if number is None or math.isfinite(number) else None for key, number in cell.items()
        }


def to_json(comparison: Comparison, path: str | Path) -> Path:
    """Write `entries` as one JSON object, and return the path."""
    text = json.dumps(entries(comparison), indent=1, ensure_ascii=False, allow_nan=False)
    return _write(path, text + "\n")


def to_csv(comparison: Comparison, path: str | Path) -> Path:
    """Write a line for each measure, group and checkpoint, every digit of it; return the path.

    What there is not, is empty, as is the group of all parameters.
    """
    lines = io.StringIO()
    keys = ["value", "se", *Contrast(0).entry]
    table = csv.DictWriter(lines, ["measure", "group", "invariant", "checkpoint", *keys], lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        for name, cell in zip(comparison.names, _cells(row), strict=True):
            known = {"measure": row.measure, "group": row.group, "invariant": row.invariant}
            table.writerow(known | {"checkpoint": name} | cell)
    return _write(path, lines.getvalue())


def to_latex(comparison: Comparison, path: str | Path) -> Path:
    r"""Write a `tabular` for the package booktabs, and return the path. Caption and label are yours."""
    head, rows = LATEX.table(comparison)
    said = {**comparison.settings, **comparison.frozen}
    lines = [
        "% " + " ".join(", ".join(f"{key} {value}" for key, value in said.items()).split()),
        *(f"% {' '.join(note.split())}" for note in notes(comparison)),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return _write(path, "\n".join(lines) + "\n")


def _line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


WRITERS = {".json": to_json, ".csv": to_csv, ".tex": to_latex}
"""By the ending of a path."""

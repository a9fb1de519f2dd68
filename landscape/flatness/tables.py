"""A comparison as a table: as JSON, CSV and LaTeX."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landscape.flatness.comparison import Contrast, Contrasts, Row
from landscape.flatness.notation import LATEX
from landscape.flatness.words import legend, notes, verdict
from landscape.storage.files import write_text

KNOWN = ("value", "se", "converged", "resolved")
"""What `Row.cells` holds of each checkpoint."""


def entries(comparison: Contrasts) -> dict[str, Any]:
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
    for known, contrast in zip(row.cells, (None, *row.contrasts), strict=True):
        cell = dict(zip(KNOWN, known, strict=True)) | (contrast.entry if contrast else {})
        yield {
            key: number if number is None or math.isfinite(number) else None for key, number in cell.items()
        }


def to_json(comparison: Contrasts, path: str | Path) -> Path:
    """Write `entries` as one JSON object, and return the path."""
    text = json.dumps(entries(comparison), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(Path(path), text + "\n")


def to_csv(comparison: Contrasts, path: str | Path) -> Path:
    """Write a line for each measure, group and checkpoint, every digit of it; return the path.

    What there is not, is empty, as is the group of all parameters.
    """
    lines = io.StringIO()
    keys = [*KNOWN, *Contrast(0).entry]
    table = csv.DictWriter(lines, ["measure", "group", "invariant", "checkpoint", *keys], lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        for name, cell in zip(comparison.names, _cells(row), strict=True):
            known = {"measure": row.measure, "group": row.group, "invariant": row.invariant}
            table.writerow(known | {"checkpoint": name} | cell)
    return write_text(Path(path), lines.getvalue())


def to_latex(comparison: Contrasts, path: str | Path) -> Path:
    r"""Write a `tabular` for the package booktabs, and return the path. Caption and label are yours."""
    head, rows = LATEX.table(comparison)
    said = {**comparison.settings, **comparison.frozen}
    lines = [
        "% " + " ".join(", ".join(f"{key} {value}" for key, value in said.items()).split()),
        *(f"% {' '.join(note.split())}" for note in (*legend(comparison), *notes(comparison))),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return write_text(Path(path), "\n".join(lines) + "\n")


def _line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


WRITERS = {".json": to_json, ".csv": to_csv, ".tex": to_latex}
"""By the ending of a path."""

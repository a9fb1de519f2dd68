"""What commands print: one JSON object, or a table."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import printable
from landscape.runtime.ranks import ranks
from landscape.runtime.table import Table

if TYPE_CHECKING:
    from landscape.storage.results import Result


def show(as_json: bool, values: Mapping[str, Any], *tables: Table) -> None:
    """Print `values` as JSON, or the tables; only the first rank prints."""
    if not ranks().first:
        return
    if as_json:
        written = json.dumps(_plain(values), ensure_ascii=False)
        print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in written))
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        for part in table.rich(console.width):
            console.print(part)


def complain(message: str) -> None:
    """Print one line on standard error, of several ranks from the first of them that has to."""
    if ranks().speaks():
        print(f"landscape: {printable(message)}", file=sys.stderr)


def values(result: "Result") -> dict[str, Any]:
    """Return the fields of a result except arrays, settings and provenance."""
    from numpy import ndarray

    left_out = ("settings", "provenance")
    return {
        key: value
        for key, value in vars(result).items()
        if key not in left_out and not isinstance(value, ndarray)
    }


def written(files: Iterable[Path]) -> list[Table]:
    """Return what names the files that a command has written, a sentence for each folder."""
    folders: dict[Path, list[str]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file.name)
    return [Table(f"Written to {folder}: {', '.join(names)}", [], []) for folder, names in folders.items()]


def _plain(value: Any) -> Any:
    """Return what JSON holds: NaN becomes null, and a dataclass an object of its fields."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

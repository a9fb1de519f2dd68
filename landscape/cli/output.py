"""What commands print: one JSON object, or a table."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from landscape.errors import printable
from landscape.runtime.ranks import ranks

if TYPE_CHECKING:
    from landscape.storage.results import Result


def show(as_json: bool, values: Mapping[str, Any], *tables: "Table") -> None:
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
        # rich shows no title without columns
        console.print(table.rich() if table.columns else _text(table.title))


def complain(message: str) -> None:
    """Print one line on standard error, of several ranks from the first of them that has to."""
    if ranks().speaks():
        print(f"landscape: {printable(message)}", file=sys.stderr)


def number(value: float | None, error: float | None = None) -> str:
    """Write a number, and its standard error if it has one, as everywhere."""
    from landscape.flatness.notation import PLAIN

    return PLAIN.number(value, error)


def values(result: "Result") -> dict[str, Any]:
    """Return the fields of a result except arrays, settings and provenance."""
    from numpy import ndarray

    left_out = ("settings", "provenance")
    return {
        key: value
        for key, value in vars(result).items()
        if key not in left_out and not isinstance(value, ndarray)
    }


def lines(notes: Iterable[str]) -> "list[Table]":
    """Return sentences as what `show` prints below its tables."""
    return [Table(note, [], []) for note in notes]


class Table:
    """A titled table of text."""

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title, self.columns, self.rows = title, columns, rows

    def rich(self) -> Any:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(title=_text(self.title), title_justify="left", box=box.SIMPLE_HEAD)
        for index, column in enumerate(self.columns):
            table.add_column(_text(column), justify="right" if index else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(_text, row))
        return table


def _text(text: str) -> Any:
    """Return text that rich prints literally: no markup, no emoji names, no control characters."""
    from rich.text import Text

    return Text("\n".join(map(printable, text.split("\n"))))


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

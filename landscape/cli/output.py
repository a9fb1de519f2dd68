"""What commands print: one JSON object, or a table."""

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from landscape.errors import printable
from landscape.runtime.ranks import ranks

if TYPE_CHECKING:
    from landscape.storage.results import Result


PLAIN_WORDS = {
    "λ": "lambda",
    "θ": "theta",
    "ρ": "rho",
    "σ": "sigma",
    "∇": "grad ",
    "‖": "||",
    "±": "+-",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "−": "-",
    "–": "-",
    "…": "...",
}


def write_plainly() -> None:
    """Let the standard streams write what their encoding lacks (ASCII, Latin-1) in other words, or as `?`."""

    def other_words(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join(PLAIN_WORDS.get(c, "?") for c in lacking), error.end

    codecs.register_error("plain", other_words)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it is closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # until the end
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="plain")


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
        with suppress(OSError):  # a full disk, a closed terminal: the exit code still says it
            print(f"landscape: {printable(message)}", file=sys.stderr, flush=True)


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

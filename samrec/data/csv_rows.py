"""Read delimited text with Python's csv module: slow, for what can be parsed in several ways."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any

Rows = list[list[str | None]]
"""The fields of each chosen column."""


@dataclass(frozen=True)
class Way:
    """A way to take quotes."""

    name: str
    settings: dict[str, Any]
    by_line: bool = False


DOUBLED = Way("a quote within quotes is doubled", {"strict": True})
DATA = Way("quotes are part of the fields", {"quoting": csv.QUOTE_NONE})
BY_LINE = Way("no field spans two lines", {}, by_line=True)
ESCAPED = Way(
    "a quote within quotes follows a backslash", {"strict": True, "doublequote": False, "escapechar": "\\"}
)


class UnevenError(Exception):
    """A record has another number of fields than expected."""


def read_rows(
    text: str, separator: str, quote: str, ways: Sequence[Way], fields: int, chosen: Sequence[int]
) -> tuple[Rows, Way]:
    """Return the chosen columns of all records but blank ones, and the first way in which all records fit.

    A way fits if every record has as many fields as expected. Where none fits, the first way may leave out
    fields at the end of a record, which are None then. A way in which records span several lines gives way to
    one in which every line is a record.

    Raises:
        ValueError: no way fits; with the number of the line where the first one fails.
    """
    with _long_fields():
        for way in ways:
            try:
                rows, broken = _read(text, separator, quote, way, fields, chosen, exact=True)
            except (UnevenError, csv.Error):
                continue
            if broken and DATA in ways:
                with suppress(UnevenError, csv.Error):
                    return _read(text, separator, quote, DATA, fields, chosen, exact=True)[0], DATA
            return rows, way
        try:
            return _read(text, separator, quote, ways[0], fields, chosen, exact=False)[0], ways[0]
        except (UnevenError, csv.Error) as error:
            raise ValueError(
                f"{error}; a field that holds the separator must be quoted, see --separator and --quote"
            ) from None


def _read(
    text: str, separator: str, quote: str, way: Way, fields: int, chosen: Sequence[int], exact: bool
) -> tuple[Rows, bool]:
    """Return the chosen columns, and whether a record spans several lines."""
    columns: Rows = [[] for _ in chosen]
    broken, line = False, 0
    for last, record in _records(text, separator, quote, way):
        if len(record) <= 1 and not "".join(record).strip():
            line = last
            continue
        broken |= last > line + 1
        if len(record) > fields or (exact and len(record) < fields):
            raise UnevenError(f"line {line + 1} has {len(record)} fields, expected {fields}")
        for column, at in zip(columns, chosen, strict=True):
            column.append(record[at] if at < len(record) else None)
        line = last
    return columns, broken


def _records(text: str, separator: str, quote: str, way: Way) -> Iterator[tuple[int, list[str]]]:
    """Yield records, and the number of the line that each ends in."""
    settings = {"delimiter": separator, "quotechar": quote, **way.settings}
    if way.by_line:
        for number, line in enumerate(StringIO(text, newline=None), start=1):
            yield number, next(csv.reader([line.rstrip("\n")], **settings), [])
        return
    reader = csv.reader(StringIO(text, newline=""), **settings)
    for record in reader:
        yield reader.line_num, record


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be longer than the csv module's usual 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)

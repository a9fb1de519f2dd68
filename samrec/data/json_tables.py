"""Read a table of JSON: an object a line, such as Amazon's reviews, or an array of objects."""

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from landscape.errors import InputError
from samrec.data.reading import TableOptions
from samrec.data.sources import Source, lines, whole
from samrec.data.text_tables import as_utf8

TO_JSON = (
    "write it anew: python3 -c 'import ast, json, sys; "
    "[print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]' < OLD > NEW.json"
)
HEAD = 1000
"""Objects whose keys are looked at first."""


class JsonTable:
    """A table of JSON objects.

    Attributes:
        names: the keys of the objects at the beginning, or of all of them, in the order in which they come.
        header: always: the keys are the names.
    """

    header = True

    def __init__(self, source: Source, options: TableOptions) -> None:
        self.content = as_utf8(source, options.encoding)
        with self._opened() as file:
            self.array = _first_byte(file) == b"["
        self.objects = self._array() if self.array else None
        self.names: list[str] = []
        self._head: list[dict[str, Any]] = []
        for number, one in enumerate(self._objects()):
            if number < HEAD:
                self._head.append(one)
            elif not self.array:
                break
            self.names += [name for name in one if name not in self.names]

    def look_further(self) -> None:
        """Look for columns in all objects."""
        names: dict[str, None] = dict.fromkeys(self.names)
        for one in self._objects():
            names.update(dict.fromkeys(one))
        self.names = list(names)

    def take(self, chosen: Sequence[int]) -> pl.DataFrame:
        """Return the chosen columns as text, null where a key is missing or null; column n is named `n`.

        Raises:
            InputError: a line is not an object, or a value that counts is a list or an object.
        ValueError: a line is not JSON.
        """
        names = {str(at): self.names[at] for at in chosen}
        frame = None if self.array else self._lines(list(names.values()))
        if frame is not None:
            return frame.select(pl.col(name).alias(at) for at, name in names.items())
        values: dict[str, list[Any]] = {at: [] for at in names}
        for one in self._objects():
            for at, name in names.items():
                values[at].append(one.get(name))
        return pl.DataFrame(
            {at: pl.Series(_texts(column, names[at]), dtype=pl.String) for at, column in values.items()}
        )

    def _lines(self, names: list[str]) -> pl.DataFrame | None:
        """Let polars read an object a line; None where it may see other values or rows than there are."""
        if any(isinstance(one.get(name), float) for one in self._head for name in names):
            return None  # of 2.0 polars makes the text 2
        with self._opened() as file:
            expected = sum(1 for line in lines(file) if line.strip())
        try:
            frame = pl.read_ndjson(self.content, schema=dict.fromkeys(names, pl.String))
        except pl.exceptions.PolarsError:
            return None
        if frame.height != expected or any(frame[name].null_count() for name in names):
            return None
        odd = [frame[name].str.contains(r"^\s*[\[{]|^true$|^false$").any() for name in names]
        return None if any(odd) else frame

    def _objects(self) -> Iterator[dict[str, Any]]:
        if self.objects is not None:
            yield from self.objects
            return
        with self._opened() as file:
            for number, line in enumerate(lines(file), start=1):
                if line.strip():
                    yield _object(line, number)

    def _array(self) -> list[dict[str, Any]]:
        found = json.loads(whole(self.content).removeprefix(codecs.BOM_UTF8).decode())
        for number, one in enumerate(found, start=1):
            if not isinstance(one, dict):
                raise InputError(f"element {number} of the array is not a JSON object")
        return list(found)

    def _opened(self) -> Any:
        file = self.content.open("rb") if isinstance(self.content, Path) else io.BytesIO(self.content)
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        return file


def _first_byte(file: Any) -> bytes:
    while (byte := file.read(1)) and byte.isspace():
        pass
    return bytes(byte)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        if re.match(rb"\s*\{u?'", line):
            raise InputError(f"line {number} is a dictionary of Python, not JSON; {TO_JSON}") from None
        if number > 1:
            raise ValueError(f"line {number} is not a JSON object: {error}") from None
        value = None
    if not isinstance(value, dict):
        raise InputError(f"line {number}: expected one JSON object per line, or one array of them")
    return value


def _texts(values: list[Any], name: str) -> list[str | None]:
    """Return a column's values as text: numbers as the first one is written, whole or with a point."""
    first = next((value for value in values if value is not None), None)
    whole = not isinstance(first, float)
    return [None if value is None else _text(value, whole, row, name) for row, value in enumerate(values)]


def _text(value: Any, whole: bool, row: int, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict | bool):
        held = {list: "a list", dict: "an object", bool: "true or false"}[type(value)]
        raise InputError(f"row {row + 1}: {name} holds {held}; expected a number or text, so unpack it first")
    if isinstance(value, float) and value.is_integer() and whole:
        return str(int(value))
    if isinstance(value, int) and not whole and abs(value) < 2**53:
        return repr(float(value))
    return str(value)

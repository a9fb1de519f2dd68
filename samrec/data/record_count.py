"""Count the records of delimited text without parsing it: what a parser found is checked against this."""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from samrec.data.sources import LONGEST

CHUNK = 2**21
_LINE, _RETURN = 10, 13
Bytes = NDArray[np.uint8]
Positions = NDArray[np.intp]


@dataclass
class Count:
    """What stands in a text, quotes taken as quotes (RFC 4180) if a quote is given.

    Attributes:
        records: lines that are not blank; where quotes are quotes, line breaks within them end none.
        blank: lines without a character.
        uniform: whether every record has the expected number of fields.
        sound: whether quotes enclose whole fields, inner ones are doubled, and each one that opens closes.
        opened: quotes at the start of a field.
        broken: line breaks within quotes.
        lone_returns: whether a carriage return stands without a line feed.
    """

    records: int = 0
    blank: int = 0
    uniform: bool = True
    sound: bool = True
    opened: int = 0
    broken: int = 0
    lone_returns: bool = False

    @property
    def clean(self) -> bool:
        """Whether there is but one way to parse the text."""
        return self.uniform and self.sound and not self.lone_returns


def count_records(content: Path | bytes, separator: str, quote: str | None, fields: int) -> Count:
    """Count the records of UTF-8 text, in chunks; each should have `fields` fields."""
    return _Counter(ord(separator), ord(quote) if quote else None, fields).of(content)


def _chunks(content: Path | bytes) -> Iterator[Bytes]:
    """Yield the text in pieces that end with a line."""
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        while piece := file.read(CHUNK):
            piece += file.readline(LONGEST)
            if len(piece) >= LONGEST:
                raise InputError(f"a line has more than {LONGEST:,} bytes")
            yield np.frombuffer(piece if piece.endswith(b"\n") else piece + b"\n", np.uint8)


class _Counter:
    """The state between two chunks: the quotes so far, and the separators of the record that is open."""

    def __init__(self, separator: int, quote: int | None, fields: int) -> None:
        self.separator, self.quote, self.fields = separator, quote, fields
        self.quotes = self.separators = 0
        self.within = False  # whether the open record has begun in an earlier chunk
        self.count = Count()

    def of(self, content: Path | bytes) -> Count:
        for chunk in _chunks(content):
            self._add(chunk)
        self.count.sound &= self.quotes % 2 == 0
        self.count.records += self.within
        return self.count

    def _add(self, chunk: Bytes) -> None:
        special = chunk == self.separator
        special |= chunk == _LINE
        if self.quote is not None:
            special |= chunk == self.quote
        at = np.flatnonzero(special)
        if self.quote is not None:
            at = self._outside(chunk, at)
        returns = np.flatnonzero(chunk == _RETURN)
        if len(returns) and (chunk[returns + 1] != _LINE).any():  # the last byte is a line feed
            self.count.lone_returns = True
        self._records(chunk, at)

    def _outside(self, chunk: Bytes, at: Positions) -> Positions:
        """Return those of the positions that are of separators and line feeds outside quotes."""
        is_quote = chunk[at] == self.quote
        if not is_quote.any() and self.quotes % 2 == 0:
            return at
        before = np.cumsum(is_quote) + self.quotes
        quotes = at[is_quote]
        opens = before[is_quote] % 2 == 1
        padded = np.concatenate([[_LINE], chunk, [_LINE]]).astype(np.uint8)
        previous, following = padded[quotes], padded[quotes + 2]
        starts = (previous == self.separator) | (previous == _LINE)
        stops = (following == self.separator) | (following == _LINE) | (following == _RETURN)
        sound = np.where(opens, starts | (previous == self.quote), stops | (following == self.quote))
        self.count.sound &= bool(sound.all())
        self.count.opened += int(starts.sum())
        inside = before % 2 == 1
        self.count.broken += int((inside & (chunk[at] == _LINE)).sum())
        self.quotes = int(before[-1]) if len(before) else self.quotes
        outside: Positions = at[~is_quote & ~inside]
        return outside

    def _records(self, chunk: Bytes, at: Positions) -> None:
        ends = np.flatnonzero(chunk[at] == _LINE)
        if not len(ends):
            self.separators += len(at)
            self.within = True
            return
        fields = np.diff(ends, prepend=-1)
        fields[0] += self.separators
        stops = at[ends]
        lengths = np.diff(stops, prepend=-1) - 1
        lengths -= (lengths > 0) & (chunk[stops - 1] == _RETURN)
        blank = (fields == 1) & (lengths == 0)
        if self.within:
            blank[0] = False
        self.count.blank += int(blank.sum())
        self.count.records += int((~blank).sum())
        self.count.uniform &= bool((blank | (fields == self.fields)).all())
        self.separators = len(at) - 1 - int(ends[-1])
        self.within = int(stops[-1]) < len(chunk) - 1

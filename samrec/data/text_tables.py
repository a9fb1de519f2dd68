"""Read a table of delimited text: CSV, TSV, RecBole's .inter, MovieLens' .dat and .data."""

import codecs
import csv
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from landscape.errors import InputError
from samrec.data.columns import is_header
from samrec.data.csv_rows import BY_LINE, DATA, DOUBLED, ESCAPED, Way, read_rows
from samrec.data.reading import TableOptions
from samrec.data.record_count import Count, count_records
from samrec.data.sources import Source, whole

SEPARATORS = {".tsv": "\t", ".inter": "\t", ".data": "\t", ".dat": "::"}
"""What separates the fields, by the ending; a comma for any other."""
OTHERS = ("::", "\t", ",", ";", "|")
HEADLESS = (".data", ".dat")
ONE = "\x1f"
"""ASCII's unit separator: it stands for a separator of several characters."""
HEAD = 2**16
_BLANK = re.compile(rb"\A(?:[ \t]*[\r\n])+")


class TextTable:
    """A table of delimited text.

    Attributes:
        names: names of the columns, from the header; without one, the fields of the first row.
        header: whether the first record is a header.
        separator: what separates its fields.
    """

    def __init__(self, source: Source, kind: str, options: TableOptions) -> None:
        self.source, self.kind = source, kind
        self.content = as_utf8(source, options.encoding)
        head = _head(self.content)
        self.separator = _separator(head, kind, options.separator)
        self.quote = _quote(options.quote)
        if len(self.separator) > 1 and head:
            self.content = _one_byte(self.content, self.separator, source.name)
            head = _head(self.content)
        self.names = self._first_record(head)
        numbered = options.columns is not None and options.columns.replace(",", "").isdecimal()
        self.header = is_header(self.names) or not (kind in HEADLESS or numbered)

    @property
    def usual_separator(self) -> bool:
        """Whether the fields are separated as MovieLens separates them."""
        return self.separator == SEPARATORS.get(self.kind) or self.separator in ("::", "\t")

    @property
    def _byte(self) -> str:
        return self.separator if len(self.separator) == 1 else ONE

    @property
    def _ways(self) -> list[Way]:
        """How quotes may be meant, the likeliest first."""
        if self.quote == "":
            return [DATA]
        if self.quote is not None:
            return [DOUBLED]
        return [DATA, DOUBLED] if self.kind in SEPARATORS else [DOUBLED, DATA, BY_LINE, ESCAPED]

    def _first_record(self, head: str) -> list[str]:
        way = {"quoting": csv.QUOTE_NONE} if self._ways[0] is DATA else {"quotechar": self.quote or '"'}
        lines = io.StringIO(head.lstrip("\r\n"), newline="")
        fields = next(csv.reader(lines, delimiter=self._byte, **way), [])
        return [field.strip() for field in (_unwrapped(fields) if self._ways[0] is DATA else fields)]

    def take(self, chosen: Sequence[int]) -> pl.DataFrame:
        """Return the chosen columns as text, null where a field is empty; column n of them is named `n`.

        Raises:
            InputError: the rows do not fit the columns, or a chosen column is not of the encoding.
        """
        fields = len(self.names)
        quote, count = self._quoting(fields)
        frame, data = self._parsed(chosen, quote, count) if count.clean else None, quote is None
        if frame is not None and quote is not None and self._ways[0] is DATA:
            self._say(f"read on the assumption that {DOUBLED.name}")
        if frame is None:
            frame, data = self._by_csv(chosen, fields)
        return frame.select(_unwrapped_column(frame[name]) for name in frame.columns) if data else frame

    def _quoting(self, fields: int) -> tuple[str | None, Count]:
        """Return what quotes a field, None if nothing does, and the records that there are then."""
        plain = count_records(self.content, self._byte, None, fields)
        if self._ways[0] is DATA and plain.clean:
            return None, plain
        quote = self.quote or '"'
        if self._ways == [DATA]:
            return None, plain
        quoted = count_records(self.content, self._byte, quote, fields)
        if self.quote is None and plain.clean and (not quoted.opened or (quoted.clean and quoted.broken)):
            if quoted.opened:
                self._say("quotes are taken as part of the fields, since every line is a row without them")
            return None, plain
        return quote, quoted

    def _parsed(self, chosen: Sequence[int], quote: str | None, count: Count) -> pl.DataFrame | None:
        """Let polars parse; None if it finds other rows than were counted, or text that is not UTF-8."""
        try:
            frame = pl.read_csv(
                self.content,
                columns=sorted(chosen),
                separator=self._byte,
                quote_char=quote,
                has_header=self.header,
                infer_schema=False,
            )
        except pl.exceptions.PolarsError:
            return None
        frame.columns = [str(at) for at in sorted(chosen)]
        if count.blank:  # which polars reads as rows of nulls
            frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
        return frame if frame.height == count.records - self.header else None

    def _by_csv(self, chosen: Sequence[int], fields: int) -> tuple[pl.DataFrame, bool]:
        """Let the csv module parse; return whether quotes were taken as data, too."""
        text = whole(self.content).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
        rows, way = read_rows(text, self._byte, self.quote or '"', self._ways, fields, chosen)
        if way is not self._ways[0]:
            self._say(f"read on the assumption that {way.name}")
        try:
            columns = {
                str(at): pl.Series([value or None for value in column[self.header :]], dtype=pl.String)
                for at, column in zip(chosen, rows, strict=True)
            }
        except UnicodeEncodeError:
            raise InputError(
                "a column that counts is not UTF-8; name the encoding with --encoding, such as latin-1"
            ) from None
        return pl.DataFrame(columns), way is DATA

    def _say(self, what: str) -> None:
        warnings.warn(f"{self.source.name}: {what}; --quote says otherwise", stacklevel=2)


def _unwrapped(fields: Sequence[str]) -> list[str]:
    """Take off the quotes around fields if they are around each of them."""
    if all(len(field) > 1 and field[0] == field[-1] == '"' for field in fields):
        return [field[1:-1].replace('""', '"') for field in fields]
    return list(fields)


def _unwrapped_column(fields: pl.Series) -> pl.Series:
    """Take off the quotes around a column's fields if they are around each of them, as R writes text."""
    first = next((field for field in fields.head(100) if field), "")
    if not (len(first) > 1 and first[0] == first[-1] == '"'):
        return fields
    if not fields.drop_nulls().str.contains(r'^"(?s:.*)"$').all():
        return fields
    return fields.str.slice(1, fields.str.len_chars() - 2).str.replace_all('""', '"', literal=True)


def as_utf8(source: Source, encoding: str | None) -> Path | bytes:
    """Return the text in UTF-8, with line feeds: the file itself where it is that already.

    Raises:
        InputError: there is no such encoding, or the text is not of it.
    """
    content = source.content
    start = _start(content)
    named = encoding or _encoding(start)
    try:
        if named is not None and codecs.lookup(named).name != "utf-8":
            content = whole(content).decode(named).removeprefix("\ufeff").encode()
    except LookupError:
        raise InputError(f"no encoding is called {named!r}; try latin-1, cp1252 or utf-16") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the text is not {named}, at byte {error.start}; name another --encoding") from None
    start = _start(content)
    if b"\r" in start and b"\n" not in start and b"\n" not in (text := whole(content)):
        content = text.replace(b"\r", b"\n")
    if _BLANK.match(start.removeprefix(codecs.BOM_UTF8)):
        content = _BLANK.sub(b"", whole(content).removeprefix(codecs.BOM_UTF8), count=1)
    if isinstance(content, bytes):
        content = content.removeprefix(codecs.BOM_UTF8)
    return content


def _start(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content[:HEAD]
    with content.open("rb") as file:
        return file.read(HEAD)


def _encoding(start: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 by their first bytes, or UTF-16 by the zeros between ASCII."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    odd, even = start[1:200:2], start[0:200:2]
    if len(odd) > 1 and 0 not in even and odd.count(0) > 0.8 * len(odd):
        return "utf-16-le"
    if len(odd) > 1 and 0 not in odd and even.count(0) > 0.8 * len(even):
        return "utf-16-be"
    return None


def _head(content: Path | bytes) -> str:
    return _start(content).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


def _separator(head: str, kind: str, asked: str | None) -> str:
    """Return what separates fields: what was asked for, what is usual, or the one other in the first line."""
    if asked is not None:
        separator = {"tab": "\t", "\\t": "\t", "space": " "}.get(asked, asked)
        if not separator or set(separator) & set('\r\n"'):
            raise InputError(
                f"{asked!r} cannot separate fields; --separator takes , ; | tab or ::, for example"
            )
        return separator
    usual = SEPARATORS.get(kind, ",")
    first = head.lstrip("\r\n").partition("\n")[0]
    found = [separator for separator in OTHERS if separator in first]
    if usual in found or len(found) > 1:
        return usual
    return found[0] if found else " " if kind in HEADLESS and " " in first else usual


def _quote(asked: str | None) -> str | None:
    """Return what quotes a field, nothing for `none`, None if it was not said."""
    if asked is None or asked in ("none", ""):
        return None if asked is None else ""
    if len(asked) != 1 or not asked.isascii() or asked in "\r\n":
        raise InputError(f"{asked!r} cannot quote fields; --quote takes one character, or none")
    return asked


def _one_byte(content: Path | bytes, separator: str, name: str) -> bytes:
    """Put one byte in the place of a separator of several, or of one beyond ASCII."""
    text = whole(content)
    if ONE.encode() in text:
        raise InputError(f"{name} holds the control character 0x1f, which is reserved here")
    return text.replace(separator.encode(), ONE.encode())

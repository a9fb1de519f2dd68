"""What a reader is told about a file, and what it understood of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableOptions:
    """How to read a table. None stands for: find out.

    Attributes:
        columns: `USER,ITEM[,TIME[,RATING]]`: names, or numbers from 0 (without a header).
        separator: what separates two fields; `tab` and `\\t` are a tab.
        quote: the character that quotes a field, or `none`: then quotes are part of the field.
        encoding: encoding of the text, as Python names encodings.
        time_format: format of the times, in the directives of `strptime`.
        min_rating: leave out rows with a lower rating.
        drop_missing: leave out rows without a user, an item or a time, where they are refused otherwise.
    """

    columns: str | None = None
    separator: str | None = None
    quote: str | None = None
    encoding: str | None = None
    time_format: str | None = None
    min_rating: float | None = None
    drop_missing: bool = False

    @property
    def given(self) -> list[str]:
        """The options that were given, as the command line names them."""
        return [
            f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)
        ]


@dataclass(frozen=True)
class Understood:
    """What a reader made of a file, to be shown.

    Attributes:
        format: `table`, `sequences` or `pairs`.
        columns: for a table, the name of the column behind each role: user, item, time, rating.
        order: what orders a user's interactions.
        rows: how many rows, or items of sequences, the file has.
        left_out: rows that were left out, by the reason.
        first_rows: the first rows of a table, as the file writes them.
    """

    format: str
    order: str
    rows: int
    columns: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    first_rows: tuple[tuple[str, ...], ...] = ()

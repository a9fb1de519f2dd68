"""Ids of users and items: numbers or text, and null where there is none, however that is written."""

from typing import cast

import polars as pl

from landscape.errors import InputError

MISSING = (
    "",
    "null",
    "nan",
    "-nan",
    "none",
    "na",
    "n/a",
    "<na>",
    "#n/a",
    "#na",
    "nat",
    "nil",
    "\\n",
    '""',
    "''",
)
"""What stands for a missing value, in lower case."""


def ids_of(values: pl.Series) -> pl.Series:
    """Return ids as Int64 where all are whole numbers written plainly (007 is not), else as text.

    Missing ones become null, and text loses the spaces around it.

    Raises:
        InputError: the column holds lists, objects or truth values.
    """
    kind = values.dtype
    if kind.is_integer():
        least, most = extremes(values)
        fits = least >= -(2**63) and most < 2**63
        return values.cast(pl.Int64) if fits else values.cast(pl.String)
    if kind.is_float():
        values = only(values, values.is_finite())
    elif kind.is_nested() or kind in (pl.Boolean, pl.Object, pl.Time, pl.Duration):
        raise InputError(
            f"the column {values.name} holds {shown_type(kind)}, not a number or text per row; write one row "
            "per interaction, or name another column with --columns"
        )
    try:
        text = values.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise InputError(f"the {values.name} column holds bytes that are not text") from None
    numbers = _plain_numbers(text)
    if numbers is None:
        text = stripped(text)
        numbers = _plain_numbers(text)
    return text if numbers is None else numbers


def _plain_numbers(text: pl.Series) -> pl.Series | None:
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() == text.null_count() and (numbers.cast(pl.String) == text).all():
        return numbers
    return None


def stripped(text: pl.Series) -> pl.Series:
    """Take the spaces off around text, and make null of what stands for a missing value."""
    known = text.unique()
    bare = known.str.strip_chars()
    if not (known == bare).all():
        text, known = text.str.strip_chars(), bare
    gone = known.filter(known.str.to_lowercase().is_in(MISSING))
    return text if gone.is_empty() else only(text, ~text.is_in(gone.implode()))


def extremes(numbers: pl.Series) -> tuple[int, int]:
    """Return the least and the largest of whole numbers; 0 and 0 if there are none."""
    return cast(int, numbers.min() or 0), cast(int, numbers.max() or 0)


def only(values: pl.Series, kept: pl.Series) -> pl.Series:
    """Return the values that are kept, null in place of the others."""
    return pl.select(pl.when(kept).then(values).alias(values.name)).to_series()


def shown_type(kind: pl.DataType) -> str:
    """Name what a column holds."""
    if kind in (pl.List, pl.Array):
        return "lists"
    if kind == pl.Struct:
        return "objects"
    return {pl.Boolean: "true or false", pl.Time: "times of a day, without the day"}.get(
        type(kind), str(kind)
    )

"""From the columns of a table to interactions: what is missing, what is left out, and in which order."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from landscape.errors import InputError
from samrec.data.columns import Chosen
from samrec.data.ids import extremes, ids_of, only, stripped
from samrec.data.interactions import Interactions
from samrec.data.reading import TableOptions, Understood
from samrec.data.times import NotATimeError, times_of

SHOWN = 3
HEAD = 100


@dataclass(frozen=True)
class Layout:
    """What is known of a table beside its rows.

    Attributes:
        path: names the files, of which each has its number of rows in `heights`.
        names: names of the columns; without a header, the fields of the first row.
    """

    path: str
    files: Sequence[str]
    heights: Sequence[int]
    names: Sequence[str]
    header: bool
    chosen: Chosen
    options: TableOptions

    def where(self, row: int) -> str:
        """Name a row: its file and its number, from 1."""
        for file, height in zip(self.files, self.heights, strict=True):
            if row < height:
                return f"{file}, row {row + 1}"
            row -= height
        return self.path

    def name(self, at: int) -> str:
        """Name a column."""
        return self.names[at] if self.header else f"column {at}"

    def warn(self, what: str) -> None:
        warnings.warn(f"{self.path}: {what}", stacklevel=2)


def interactions_of(frame: pl.DataFrame, layout: Layout) -> Interactions:
    """Make interactions of the chosen columns of a table, named by their numbers.

    Raises:
        InputError: a value is missing or not a time, columns that may both be it differ, or nothing remains.
    """
    chosen = layout.chosen
    heads = _heads(frame, layout)
    first = frame.head(SHOWN)
    if heads.any():
        frame = frame.with_columns(pl.when(~heads).then(pl.col(name)).alias(name) for name in frame.columns)
    _check_twins(frame, layout)
    taken = {"user": chosen.user, "item": chosen.item}
    found = {role: ids_of(frame[str(at)].alias(layout.names[at])) for role, at in taken.items()}
    if chosen.times:
        taken["time"], found["time"] = _time(frame, layout)
    else:
        _check_untimed(layout)
    if chosen.rating is not None:
        taken["rating"], found["rating"] = chosen.rating, _ratings(frame[str(chosen.rating)])
    del frame
    kept, left_out = _kept(found, heads, layout)
    rows = pl.DataFrame({role: values.rename(role) for role, values in found.items() if role != "rating"})
    del found
    if left_out:
        rows = rows.filter(kept)
    if rows.is_empty():
        raise InputError("no row remains")
    understood = Understood(
        "table",
        f"by {layout.name(taken['time'])}" if "time" in taken else "as in the file",
        int((~heads).sum()),
        {role: layout.name(at) for role, at in taken.items()},
        left_out,
        tuple(
            tuple("" if value is None else str(value) for value in row)
            for row in first.select(map(str, taken.values())).rows()
        ),
    )
    return _sorted(rows, layout.path, understood)


def _heads(frame: pl.DataFrame, layout: Layout) -> pl.Series:
    """Return which rows are a header among the data."""
    chosen, names = layout.chosen, layout.names
    user, item = frame[str(chosen.user)], frame[str(chosen.item)]
    none = pl.repeat(False, frame.height, eager=True)
    if user.dtype != pl.String or item.dtype != pl.String:
        return none
    if layout.header:
        heads = user.is_in([names[chosen.user], " " + names[chosen.user]])
        heads &= item.is_in([names[chosen.item], " " + names[chosen.item]])
        heads = heads.fill_null(False)
        if count := int(heads.sum()):
            layout.warn(f"the header occurs {count} more time(s) among the rows, and is left out there")
        return heads
    columns = [frame[str(at)].head(HEAD) for at in (chosen.user, chosen.item, *chosen.times)]
    odd = all(not any(map(str.isdigit, column[0] or "1")) for column in columns)
    if not odd or frame.height < 2 or not all(column[1:].str.contains(r"\d").all() for column in columns):
        return none
    layout.warn(f"the first row, {', '.join(column[0] for column in columns)}, is taken for a header")
    return pl.Series([True]).extend(none[1:])


def _check_twins(frame: pl.DataFrame, layout: Layout) -> None:
    """Make sure that columns which may all be the user, or the item, say the same."""
    chosen, names = layout.chosen, layout.names
    for role, taken in (("user", chosen.user), ("item", chosen.item)):
        for other in chosen.twins.get(role, ()):
            pair = [str(taken), str(other)]
            kinds = {
                frame.select(pl.struct(pair).n_unique()).item(),
                *(frame[name].n_unique() for name in pair),
            }
            if len(kinds) > 1:
                raise InputError(
                    f"{names[taken]} and {names[other]} may both be the {role}, and differ; "
                    "choose with --columns USER,ITEM[,TIME]"
                )


def _time(frame: pl.DataFrame, layout: Layout) -> tuple[int, pl.Series]:
    """Return the column of the time, the finest of those that may be it, and its values."""
    found: dict[int, pl.Series] = {}
    failures: list[NotATimeError] = []
    for at in layout.chosen.times:
        try:
            found[at] = times_of(frame[str(at)], layout.options.time_format)
        except NotATimeError as failure:
            failures.append(failure)
    if not found:
        row = failures[0].row
        raise InputError(f"{layout.path if row is None else layout.where(row)}: {failures[0].what}")
    return found.popitem() if len(layout.chosen.times) == 1 else _finest(found, layout)


def _check_untimed(layout: Layout) -> None:
    """Refuse a time format without a time, and warn where a column may be one."""
    if layout.options.time_format is not None:
        raise InputError(
            f"{layout.path}: a time format is given, and no column is known as a time; "
            "name it with --columns USER,ITEM,TIME"
        )
    chosen, names = layout.chosen, layout.names
    if not chosen.asked and len(names) > 2:
        others = [name for at, name in enumerate(names) if at not in (chosen.user, chosen.item)]
        layout.warn(
            f"no column is known as a time among {', '.join(others[:8])}; rows stay in the file's order; "
            "name the time with --columns USER,ITEM,TIME"
        )


def _finest(found: Mapping[int, pl.Series], layout: Layout) -> tuple[int, pl.Series]:
    """Return the column with the most distinct times, and its values."""
    names = layout.names
    best = max(found, key=lambda at: found[at].n_unique())
    twice = [at for at in found if names[at] == names[best]]
    if any(not found[at].equals(found[best], check_names=False) for at in twice):
        raise InputError(
            f"several columns are called {names[best]}, and differ; give --columns by numbers from 0"
        )
    layout.warn(
        f"{' and '.join(names[at] for at in layout.chosen.times)} may be the time; {names[best]} is the "
        "finest, so it is used; --columns USER,ITEM,TIME chooses another"
    )
    return best, found[best]


def _ratings(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        text = stripped(values)
        ratings = text.cast(pl.Float64, strict=False)
        bad = ratings.is_null() & text.is_not_null()
        if bad.any():
            row = bad.arg_max() or 0
            raise InputError(f"row {row + 1}: {text[row]!r} is not a rating; --min-rating needs numbers")
    else:
        ratings = values.cast(pl.Float64)
    return only(ratings, ratings.is_finite())


def _kept(
    found: Mapping[str, pl.Series], heads: pl.Series, layout: Layout
) -> tuple[pl.Series, dict[str, int]]:
    """Return which rows remain, and how many are left out for which reason.

    Raises:
        InputError: a value is missing, and such rows are not to be left out.
    """
    kept, options = ~heads, layout.options
    left_out = {"header among the rows": count} if (count := int(heads.sum())) else {}
    for role, values in found.items():
        if not values.null_count():
            continue
        missing = values.is_null() & kept
        if not (count := int(missing.sum())):
            continue
        if not options.drop_missing:
            row = missing.arg_max() or 0
            raise InputError(
                f"{layout.path}: {count} row(s) have no {role}, the first is row {row + 1}"
                + (f" ({layout.where(row)})" if len(layout.files) > 1 else "")
                + "; --drop-missing leaves them out"
            )
        left_out[f"no {role}"] = count
        kept &= ~missing
    if options.min_rating is not None:
        low = (found["rating"] < options.min_rating).fill_null(False) & kept
        left_out[f"rating below {options.min_rating:g}"] = int(low.sum())
        kept &= ~low
    return kept, left_out


def _sorted(rows: pl.DataFrame, source: str, understood: Understood) -> Interactions:
    """Sort rows by user and then by time, where there is one; users and items get numbers."""
    labels, items = _numbered(rows["item"])
    user_ids, users = _numbered(rows["user"])
    rows = rows.with_columns(items, users)
    del items, users
    timed = "time" in rows.columns
    rows = rows.sort(["user", "time"] if timed else ["user"], maintain_order=True)
    tied = None
    if timed:
        same = (rows["user"] == rows["user"].shift(1)) & (rows["time"] == rows["time"].shift(1))
        tied = same.fill_null(False).to_numpy()
    lengths = np.bincount(rows["user"].to_numpy())
    return Interactions(
        items=rows["item"].to_numpy(writable=True),  # torch warns of what it may not write to
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item_ids=labels,
        source=source,
        tied=tied,
        user_ids=user_ids,
        understood=understood,
        times=_array(rows["time"]) if timed else None,
    )


def _array(times: pl.Series) -> NDArray[Any]:
    """Return times as dates or numbers of NumPy's: exact, but for decimals, which it does not have."""
    plain = times.dtype.is_temporal() or (times.dtype.is_integer() and times.dtype != pl.Int128)
    return (times if plain else times.cast(pl.Float64)).to_numpy()


def _numbered(ids: pl.Series) -> tuple[NDArray[Any], pl.Series]:
    """Return the distinct ids in order, and the number of each row's id among them."""
    if ids.dtype == pl.Int64:
        least, most = extremes(ids)
        if most - least < 4 * len(ids):  # a table of all numbers between is fast, and small beside the rows
            numbers = ids.to_numpy() - least
            number_of = np.zeros(most - least + 1, np.int64)
            number_of[numbers] = 1
            known = np.flatnonzero(number_of) + least
            number_of.cumsum(out=number_of)
            return known, pl.Series(ids.name, number_of[numbers] - 1)
    labels = ids.unique().sort()
    known = labels.to_numpy() if labels.dtype == pl.Int64 else np.array(labels.to_list(), str)
    return known, ids.rank("dense").cast(pl.Int64) - 1

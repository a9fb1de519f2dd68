"""From the columns of a table to interactions: what is missing, what is left out, and in which order."""

import warnings
from collections.abc import Sequence
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
class Rows:
    """Where the rows of a table come from: its path, the files and how many rows each has."""

    path: str
    files: Sequence[str]
    heights: Sequence[int]

    def where(self, row: int) -> str:
        """Name a row: its file and its number, from 1."""
        for file, height in zip(self.files, self.heights, strict=True):
            if row < height:
                return f"{file}, row {row + 1}"
            row -= height
        return self.path


def reading_of(
    frame: pl.DataFrame, chosen: Chosen, names: Sequence[str], header: bool, options: TableOptions, rows: Rows
) -> Interactions:
    """Make interactions of the chosen columns of a table, named by their numbers.

    Raises:
        InputError: a value is missing or not a time, columns that may both be it differ, or nothing remains.
    """
    heads = _heads(frame, chosen, names, header, rows)
    head = frame.head(SHOWN)
    if heads is not None:
        frame = frame.with_columns(pl.when(~heads).then(pl.col(name)).alias(name) for name in frame.columns)
    _check_twins(frame, chosen, names)
    found = {
        role: ids_of(frame[str(at)].alias(names[at]))
        for role, at in (("user", chosen.user), ("item", chosen.item))
    }
    time = _time(frame, chosen, names, options, rows)
    if time is not None:
        found["time"] = time[1]
    if chosen.rating is not None:
        found["rating"] = _ratings(frame[str(chosen.rating)])
    total = frame.height - (0 if heads is None else int(heads.sum()))
    del frame
    kept, left_out = _kept(found, heads, options, rows)
    table = pl.DataFrame({role: values.rename(role) for role, values in found.items() if role != "rating"})
    del found
    if kept is not None:
        table = table.filter(kept)
        if table.is_empty():
            raise InputError("no row remains")
    taken = {"user": chosen.user, "item": chosen.item, **({} if time is None else {"time": time[0]})}
    taken |= {} if chosen.rating is None else {"rating": chosen.rating}
    understood = Understood(
        "table",
        "as in the file" if time is None else f"by {_name(time[0], names, header)}",
        total,
        {role: _name(at, names, header) for role, at in taken.items()},
        left_out,
        tuple(map(_texts, head.select(map(str, taken.values())).rows())),
    )
    return _interactions(table, rows.path, understood)


def _texts(row: tuple[object, ...]) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in row)


def _name(at: int, names: Sequence[str], header: bool) -> str:
    return names[at] if header else f"column {at}"


def _warn(rows: Rows, what: str) -> None:
    warnings.warn(f"{rows.path}: {what}", stacklevel=2)


def _heads(
    frame: pl.DataFrame, chosen: Chosen, names: Sequence[str], header: bool, rows: Rows
) -> pl.Series | None:
    """Return which rows are a header among the data, or None if none is."""
    user, item = frame[str(chosen.user)], frame[str(chosen.item)]
    if user.dtype != pl.String or item.dtype != pl.String:
        return None
    if header:
        heads = user.is_in([names[chosen.user], " " + names[chosen.user]])
        heads &= item.is_in([names[chosen.item], " " + names[chosen.item]])
        heads = heads.fill_null(False)
        if not heads.any():
            return None
        _warn(
            rows, f"the header occurs {int(heads.sum())} more time(s) among the rows, and is left out there"
        )
        return heads
    columns = [frame[str(at)].head(HEAD) for at in (chosen.user, chosen.item, *chosen.times)]
    odd = all(not any(map(str.isdigit, column[0] or "1")) for column in columns)
    if not odd or frame.height < 2 or not all(column[1:].str.contains(r"\d").all() for column in columns):
        return None
    _warn(rows, f"the first row, {', '.join(column[0] for column in columns)}, is taken for a header")
    return pl.Series([True]).extend(pl.repeat(False, frame.height - 1, eager=True))


def _check_twins(frame: pl.DataFrame, chosen: Chosen, names: Sequence[str]) -> None:
    """Make sure that columns which may all be the user, or the item, say the same."""
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


def _time(
    frame: pl.DataFrame, chosen: Chosen, names: Sequence[str], options: TableOptions, rows: Rows
) -> tuple[int, pl.Series] | None:
    """Return the column of the time, the finest of those that may be it, and its values."""
    if not chosen.times:
        if options.time_format is not None:
            raise InputError(
                f"{rows.path}: a time format is given, and no column is known as a time; "
                "name it with --columns USER,ITEM,TIME"
            )
        if not chosen.asked and len(names) > 2:
            others = [name for at, name in enumerate(names) if at not in (chosen.user, chosen.item)]
            _warn(
                rows,
                f"no column is known as a time among {', '.join(others[:8])}; rows stay in the file's order; "
                "name the time with --columns USER,ITEM,TIME",
            )
        return None
    found: dict[int, pl.Series] = {}
    failures: dict[int, NotATimeError] = {}
    for at in chosen.times:
        try:
            found[at] = times_of(frame[str(at)], options.time_format)
        except NotATimeError as failure:
            failures[at] = failure
    if not found:
        first = next(iter(failures.values()))
        where = rows.path if first.row is None else rows.where(first.row)
        raise InputError(f"{where}: {first.what}")
    best = next(iter(found))
    if len(chosen.times) > 1:
        distinct = {at: values.n_unique() for at, values in found.items()}
        best = max(distinct, key=lambda at: distinct[at])
        twice = [at for at in found if names[at] == names[best]]
        if any(not found[at].equals(found[best], check_names=False) for at in twice):
            raise InputError(
                f"several columns are called {names[best]}, and differ; give --columns by numbers from 0"
            )
        _warn(
            rows,
            f"{' and '.join(names[at] for at in chosen.times)} may be the time; {names[best]} is the finest, "
            "so it is used; --columns USER,ITEM,TIME chooses another",
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
    found: dict[str, pl.Series], heads: pl.Series | None, options: TableOptions, rows: Rows
) -> tuple[pl.Series | None, dict[str, int]]:
    """Return which rows remain, None for all, and how many are left out for which reason.

    Raises:
        InputError: a value is missing, and such rows are not to be left out.
    """
    kept = None if heads is None else ~heads
    left_out = {} if heads is None else {"header among the rows": int(heads.sum())}
    for role, values in found.items():
        if not values.null_count():
            continue
        missing = values.is_null() if kept is None else values.is_null() & kept
        if not (count := int(missing.sum())):
            continue
        row = missing.arg_max() or 0
        if not options.drop_missing:
            raise InputError(
                f"{rows.path}: {count} row(s) have no {role}, the first is row {row + 1}"
                + (f" ({rows.where(row)})" if len(rows.files) > 1 else "")
                + "; --drop-missing leaves them out"
            )
        left_out[f"no {role}"] = count
        kept = ~missing if kept is None else kept & ~missing
    if options.min_rating is not None:
        low = (found["rating"] < options.min_rating).fill_null(False)
        low = low if kept is None else low & kept
        left_out[f"rating below {options.min_rating:g}"] = int(low.sum())
        kept = ~low if kept is None else kept & ~low
    return kept, left_out


def _interactions(frame: pl.DataFrame, source: str, understood: Understood) -> Interactions:
    labels, items = _numbered(frame["item"])
    user_ids, users = _numbered(frame["user"])
    frame = frame.with_columns(items, users)
    del items, users
    timed = "time" in frame.columns
    frame = frame.sort(["user", "time"] if timed else ["user"], maintain_order=True)
    tied = None
    if timed:
        same = (frame["user"] == frame["user"].shift(1)) & (frame["time"] == frame["time"].shift(1))
        tied = same.fill_null(False).to_numpy()
    lengths = np.bincount(frame["user"].to_numpy())
    return Interactions(
        items=frame["item"].to_numpy(writable=True),  # torch warns of what it may not write to
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item_ids=labels,
        source=source,
        tied=tied,
        user_ids=user_ids,
        understood=understood,
        times=_array(frame["time"]) if timed else None,
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
    if labels.dtype == pl.Int64:
        return labels.to_numpy(), ids.rank("dense").cast(pl.Int64) - 1
    return np.array(labels.to_list(), str), ids.rank("dense").cast(pl.Int64) - 1

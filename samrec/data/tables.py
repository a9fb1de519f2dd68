"""Read interactions from a table: CSV, Parquet, RecBole's .inter, Amazon's JSON lines, MovieLens' `::`."""

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from landscape.errors import InputError
from landscape.storage.archives import most_unpacked
from samrec.data.interactions import Interactions

# What people call the columns, in lower case and without RecBole's `:type`.
USER = ("user", "user_id", "userid", "uid", "reviewerid", "reviewer_id")
ITEM = (
    "item",
    "item_id",
    "itemid",
    "iid",
    "movieid",
    "movie_id",
    "parent_asin",
    "asin",
    "product_id",
    "business_id",
)
TIME = ("time", "timestamp", "unixreviewtime", "rating_timestamp", "datetime", "date")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".data": "\t", ".dat": ":"}
HEADLESS = (".data", ".dat")  # MovieLens: user, item, rating, time
JSON_LINES = (".json", ".jsonl", ".ndjson")


def read_table(path: Path, kind: str, columns: str | None = None) -> Interactions:
    """Read a table of interactions, sorted by user and then by time.

    Rows of one user at one time stay in the file's order, and are counted in `Interactions.ties`: where
    there are many, the order of a history is partly an accident. Without a time column the file's order
    is taken for the order of time. Ids may be numbers or text.

    Args:
        kind: the ending that says which table it is, `.gz` left out.
        columns: `USER,ITEM` or `USER,ITEM,TIME`: names, or numbers from 0 for a file without a header.
            Without it they are found by the names that data sets use.

    Raises:
        InputError: the file is damaged, a column is not there, or a field is missing or no time (with
            its row).
    """
    try:
        _check_compression(path)
        frame = _frame(path, kind, columns)
    except InputError:
        raise
    # Whatever damaged bytes provoke in the readers, the file cannot be used. Polars' panic is no Exception.
    except (Exception, pl.exceptions.PanicException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not readable as {kind}: {said}") from None
    if frame.is_empty():
        raise InputError(f"{path} holds no interactions")
    for name in frame.columns:
        if (missing := frame[name].null_count()) > 0:
            row = frame[name].is_null().arg_max()
            raise InputError(f"{path}: {missing} row(s) have no {name}, the first is row {(row or 0) + 1}")
    frame = frame.with_columns(_numbers(frame[name]) for name in ("user", "item"))
    if "time" in frame.columns:
        frame = frame.with_columns(_times(frame["time"], path))
    return _interactions(frame, str(path))


def _frame(path: Path, kind: str, columns: str | None) -> pl.DataFrame:
    """Read the two or three columns that count, as `user`, `item` and perhaps `time`."""
    if kind == ".parquet":
        with _silent():
            chosen = _chosen(list(pl.read_parquet_schema(path)), columns, path)
            frame = pl.read_parquet(path, columns=list(chosen))
    elif kind in JSON_LINES:
        first = _first_object(path)
        chosen = _chosen(list(first), columns, path)
        kinds = {int: pl.Int64, float: pl.Float64}
        schema = {name: kinds.get(type(first[name]), pl.String) for name in chosen}
        frame = pl.read_ndjson(path, schema=schema)
    else:
        headless = kind in HEADLESS or (columns is not None and columns.replace(",", "").isdecimal())
        source: dict[str, Any] = {
            "separator": SEPARATORS[kind],
            "has_header": not headless,
            "infer_schema": False,
        }
        names = pl.read_csv(path, n_rows=0 if not headless else 1, **source).columns
        if kind == ".dat":
            names = names[::2]  # a `::` is two separators with an empty column between
        chosen = _chosen(names, columns or ("0,1,3" if headless else None), path, by_number=headless)
        frame = pl.read_csv(path, columns=list(chosen), **source)
    return frame.select(pl.col(name).alias(role) for name, role in chosen.items())


def _check_compression(path: Path) -> None:
    """Make sure that what gzip has packed is whole, and not far more than the file (`most_unpacked`).

    Raises:
        InputError: it is far more.
        OSError, EOFError, zlib.error: it is damaged.
    """
    with path.open("rb") as opened:
        if opened.read(2) != b"\x1f\x8b":
            return
    room = most_unpacked(path.stat().st_size)
    with gzip.open(path) as unpacked:
        while chunk := unpacked.read(2**20):
            room -= len(chunk)
            if room < 0:
                raise InputError(f"{path} unpacks to far more than its size")


@contextmanager
def _silent() -> Iterator[None]:
    """Lead standard error nowhere: where Polars panics over a damaged file it prints its whole stack."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _chosen(names: list[str], columns: str | None, path: Path, by_number: bool = False) -> dict[str, str]:
    """Map the names of the columns that count to `user`, `item`, `time`."""
    if columns is None:
        plain = {name.split(":")[0].lower(): name for name in reversed(names)}
        found = [next((plain[n] for n in known if n in plain), None) for known in (USER, ITEM, TIME)]
        asked = found[:2] if found[2] is None else found
    elif by_number:
        asked = [names[int(n)] if n.isdecimal() and int(n) < len(names) else None for n in columns.split(",")]
    else:
        asked = [name if name in names else None for name in columns.split(",")]
    if None in asked or not 2 <= len(set(asked)) == len(asked) <= 3:
        raise InputError(
            f"{path}: {'cannot tell user from item' if columns is None else f'no columns {columns}'} among "
            f"{', '.join(names[:8])}; name them with --columns USER,ITEM[,TIME]"
        )
    return dict(zip([str(name) for name in asked], ("user", "item", "time"), strict=False))


def _first_object(path: Path) -> dict[str, Any]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        line = file.readline(1 << 20)
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}, line 1: expected a JSON object a line")
    return value


def _numbers(ids: pl.Series) -> pl.Series:
    """Return ids as numbers where they are whole numbers written plainly, else as text."""
    if ids.dtype.is_integer():
        return ids.cast(pl.Int64)
    text = ids.cast(pl.String)
    numbers = text.cast(pl.Int64, strict=False)
    return numbers if numbers.null_count() == 0 and (numbers.cast(pl.String) == text).all() else text


def _times(times: pl.Series, path: Path) -> pl.Series:
    """Return times as numbers: they are numbers already, or dates."""
    if times.dtype == pl.String:
        parsed = times.cast(pl.Float64, strict=False)
        if parsed.null_count():
            with suppress(pl.exceptions.ComputeError):  # no format fits: then all is missing, and said below
                parsed = times.str.to_datetime(strict=False)
        if parsed.null_count():
            row = parsed.is_null().arg_max() or 0
            raise InputError(f"{path}, row {row + 1}: {times[row]!r} is no time")
        times = parsed
    return times.to_physical().cast(pl.Float64)


def _interactions(frame: pl.DataFrame, source: str) -> Interactions:
    labels = frame["item"].unique().sort()
    frame = frame.with_columns(
        pl.col("user").rank("dense").cast(pl.Int64) - 1, pl.col("item").rank("dense").cast(pl.Int64) - 1
    )
    timed = "time" in frame.columns
    frame = frame.sort(["user", "time"] if timed else ["user"], maintain_order=True)
    ties = None
    if timed:
        same = (frame["user"].diff() == 0) & (frame["time"].diff() == 0)
        ties = int(same.sum())
    lengths = np.bincount(frame["user"].to_numpy())
    return Interactions(
        items=frame["item"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item_ids=labels.to_numpy() if labels.dtype == pl.Int64 else np.array(labels.to_list(), str),
        source=source,
        ties=ties,
    )

"""Read interactions from a file: a sequence a line, a pair a line, or a table."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from landscape.errors import InputError
from samrec.choices import Format
from samrec.data.filters import first_of_each, k_core
from samrec.data.interactions import Interactions
from samrec.data.reading import TableOptions, Understood
from samrec.data.sources import TABLES, kind_of, lines, need_text

OTHERWISE = re.compile(rb"(?<!\S)(?:-0|0\S|\+|\S*_)\S*")
"""A whole number that is not written as it is printed: 007, +7, 1_0. Two such ids would become one."""


def read(
    path: Path,
    format: Format = "auto",
    columns: str | None = None,
    deduplicate: bool = False,
    core: int = 0,
    separator: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
    time_format: str | None = None,
    min_rating: float | None = None,
    drop_missing: bool = False,
    times: bool = False,
) -> Interactions:
    """Read `path`, and leave out what is not wanted.

    Sequences are lines of `user item item …`, pairs lines of `user item`, both in time order, separated
    by white space, of whole numbers written plainly (007 is not), items from 1. With `auto`, the file's
    ending tells a table (see `samrec.data.tables`), and a text in which every line has exactly two fields is
    read as pairs.

    Args:
        path: a file; for a table also a folder, a pattern, or a member of a .zip, see `samrec.data.sources`.
        columns: for a table, as the settings below, see `samrec.data.reading.TableOptions`.
        deduplicate: keep a user's first interaction with each item only.
        core: leave out users and items with fewer interactions, until none is left to leave out.
        times: keep the times, if there are any; by default they order the interactions and are forgotten.

    Raises:
        InputError: no such file, an empty file, a line that does not parse or an item id below 1 (with
            the line's number), a user who stands on two sequence lines, or nothing remains.
    """
    options = TableOptions(columns, separator, quote, encoding, time_format, min_rating, drop_missing)
    ending = kind_of(path)
    if format == "table" or (format == "auto" and ending in TABLES):
        from samrec.data.tables import read_table  # and with it polars, which text does not need

        interactions = read_table(path, ending if ending in TABLES else ".csv", options)
        if not times:
            interactions = replace(interactions, times=None)
    else:
        if given := [name for name in options.given if name != "--columns"]:
            raise InputError(
                f"{path} is not read as a table, and {given[0]} is for tables; add --format table"
            )
        if columns is not None:
            warnings.warn(f"{path} is not read as a table, so --columns has no effect", stacklevel=2)
        interactions = _read_lines(path, format)
    if deduplicate:
        interactions = _noting("repeats", interactions, first_of_each(interactions))
    if core > 1:
        interactions = _noting(f"outside the {core}-core", interactions, k_core(interactions, core))
    return interactions


def _noting(why: str, before: Interactions, after: Interactions) -> Interactions:
    """Note how many interactions a filter left out."""
    if after.understood is None:
        return after
    left_out = {**after.understood.left_out, why: len(before.items) - len(after.items)}
    return replace(after, understood=replace(after.understood, left_out=left_out))


def _read_lines(path: Path, format: Format) -> Interactions:
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path} holds no interactions; expected lines of 'user item item …'")
    if format == "auto":
        format = "pairs" if all(len(items) == 1 for _, _, items in rows) else "sequences"

    histories: dict[int, list[int]] = {}
    for number, user, items in rows:
        if format == "sequences" and user in histories:
            raise InputError(f"{path}, line {number}: user {user} already has a line; expected one per user")
        if format == "pairs" and len(items) != 1:
            raise InputError(f"{path}, line {number}: expected 'user item', found {len(items) + 1} fields")
        histories.setdefault(user, []).extend(items)
    interactions = Interactions.from_histories(list(histories.values()), source=str(path))
    understood = Understood(format, "as in the file", len(interactions.items))
    fit = min(histories) >= -(2**63) and max(histories) < 2**63  # else text, as in a table
    user_ids = np.array(list(histories if fit else map(str, histories)))
    return replace(interactions, user_ids=user_ids, understood=understood)


def _rows(path: Path) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (line number, user, items) of every line that is not blank."""
    need_text(str(path), path)
    with path.open("rb") as file:
        for number, line in enumerate(lines(file, f"{path}, "), start=1):
            fields = line.split()
            if not fields:
                continue
            try:
                user, *items = map(int, fields)
            except ValueError:
                shown = line.strip()[:40].decode("utf-8", "replace")
                raise InputError(
                    f"{path}, line {number}: expected whole numbers 'user item item …', found {shown!r}"
                ) from None
            if odd := OTHERWISE.search(line):
                raise InputError(
                    f"{path}, line {number}: {odd[0].decode()} would be taken for {int(odd[0])}; write whole "
                    "numbers plainly, or give a table (--format table), whose ids may be text"
                )
            if not items:
                raise InputError(f"{path}, line {number}: user {user} has no items")
            if min(items) < 1:
                raise InputError(f"{path}, line {number}: item id {min(items)}; item ids start at 1")
            if max(items) >= 2**63:
                raise InputError(f"{path}, line {number}: item id {max(items)} does not fit 64 bits")
            yield number, user, items

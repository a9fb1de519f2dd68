"""Read interactions from a text file: a sequence a line, or a pair a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from landscape.errors import InputError
from landscape.files import existing
from samrec.data.interactions import Interactions

Format = Literal["auto", "sequences", "pairs"]


def read(path: Path, format: Format = "auto") -> Interactions:
    """Read `path` as sequence lines (`user item item …`, time order) or pairs (`user item`, time order).

    Fields are separated by white space; ids are whole numbers, items from 1. With `auto`, a file in
    which every line has exactly two fields is read as pairs.

    Raises:
        InputError: no such file, an empty file, a line that does not parse or an item id below 1 (with
            the line's number), or a user who stands on two sequence lines.
    """
    rows = list(_rows(existing(path, "data file")))
    if not rows:
        raise InputError(f"{path} holds no interactions; expected lines of 'user item item …'")
    if format == "auto":
        format = "pairs" if all(len(items) == 1 for _, _, items in rows) else "sequences"

    histories: dict[int, list[int]] = {}
    for number, user, items in rows:
        if format == "sequences" and user in histories:
            raise InputError(f"{path}, line {number}: user {user} already has a line; expected one a user")
        if format == "pairs" and len(items) != 1:
            raise InputError(f"{path}, line {number}: expected 'user item', found {len(items) + 1} fields")
        histories.setdefault(user, []).extend(items)
    return Interactions.from_histories(list(histories.values()), source=str(path))


def _rows(path: Path) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (line number, user, items) of every line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
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
            if not items:
                raise InputError(f"{path}, line {number}: user {user} has no items")
            if min(items) < 1:
                raise InputError(f"{path}, line {number}: item id {min(items)}; item ids start at 1")
            if max(items) >= 2**63:
                raise InputError(f"{path}, line {number}: item id {max(items)} does not fit 64 bits")
            yield number, user, items

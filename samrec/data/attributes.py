"""Attributes of items, such as categories and brands."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from landscape.errors import InputError
from landscape.storage.files import existing
from samrec.data.interactions import Interactions, Ints

_SHAPE = TypeAdapter(dict[str, list[int]])


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attributes of each item.

    Attributes:
        of_item: each item's attributes, numbered from 0 in the order of the file's own numbers; -1 where an
            item has fewer than the most that one has. Shape (items, most).
        count: how many attributes there are.
        unknown: how many items of the file are not in the data.
    """

    of_item: Ints
    count: int
    unknown: int = 0

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """The log-odds that an item has each attribute, with half an item added to either side."""
        having = np.bincount(self.of_item[self.of_item >= 0], minlength=self.count)
        return np.log((having + 0.5) / (len(self.of_item) - having + 0.5))


def read_attributes(path: Path, interactions: Interactions) -> Attributes:
    """Read a JSON object from item ids to lists of attribute numbers, as S3Rec's authors publish them.

    Attributes of items that do not occur are left out; items of which nothing is said have none.

    Raises:
        InputError: no such file, not such an object, or it says nothing about any item of the data.
    """
    try:
        given = _SHAPE.validate_json(
            existing(path, "JSON file of attributes", 2**30).read_bytes(), strict=True
        )
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deep"
        raise InputError(
            f'{path}: expected {{"item": [attribute, …], …}} with whole numbers; {first}'
        ) from None
    names = [str(item) for item in interactions.item_ids.tolist()]
    found = [sorted(set(given.get(name, []))) for name in names]
    lengths = np.array([len(own) for own in found])
    if not lengths.any():
        raise InputError(f"{path} has no attributes of any item of {interactions.source}")
    numbers, rows = np.unique(np.concatenate([np.array(own, object) for own in found]), return_inverse=True)
    of_item = np.full((len(found), int(lengths.max())), -1)
    of_item[np.arange(of_item.shape[1]) < lengths[:, None]] = rows
    return Attributes(of_item, len(numbers), len(given.keys() - set(names)))


def attributes_of(path: Path, interactions: Interactions) -> Attributes:
    """Read attributes as `read_attributes`; warn of items not in the data: the file may be of other data.

    Raises:
        InputError: as `read_attributes`.
    """
    found = read_attributes(path, interactions)
    if found.unknown:
        warnings.warn(
            f"{path}: {found.unknown:,} of its items are not in {interactions.source}; their attributes are "
            "not used",
            stacklevel=3,
        )
    return found


def beside(data: Path) -> Path | None:
    """Return the attributes file next to the sequences, as the public data sets name it, if it exists."""
    path = data.with_name(f"{data.name.partition('.')[0]}_item2attributes.json")
    return path if path.exists() else None

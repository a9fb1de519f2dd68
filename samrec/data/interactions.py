"""Who did what, in order: the one form in which data moves through the package."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrec.data.reading import Understood

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interactions:
    """The histories of all users, concatenated.

    Attributes:
        items: item rows 0..n-1, user after user, each user's in time order. Shape (interactions,).
        offsets: user u's history is `items[offsets[u]:offsets[u + 1]]`. Shape (users + 1,).
        item_ids: the file's id of each item row. There is no row for padding, and none for an id
            that never occurs, so nothing is learned (or perturbed) for an item that does not exist.
        source: where they came from, to be shown.
        tied: whether an interaction has the same time as the user's one before; None where the file has no
            times. Shape (interactions,).
        user_ids: the file's id of each user, shape (users,); None where nobody named them.
        understood: what the reader made of the file; None where they were not read from one.
        times: time of each interaction, dates (UTC) or the file's numbers; None where there are none, or
            nobody asked for them. Shape (interactions,).
    """

    items: Ints
    offsets: Ints
    item_ids: NDArray[Any]
    source: str
    tied: NDArray[np.bool_] | None = None
    user_ids: NDArray[Any] | None = None
    understood: Understood | None = None
    times: NDArray[Any] | None = None

    @classmethod
    def from_histories(cls, histories: Sequence[Sequence[int]], source: str) -> "Interactions":
        """Number the items that occur, in order of their id, and lay the histories end to end."""
        lengths = np.fromiter((len(h) for h in histories), np.int64, len(histories))
        flat = np.fromiter((item for history in histories for item in history), np.int64, int(lengths.sum()))
        item_ids, items = np.unique(flat, return_inverse=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(items.astype(np.int64), offsets, item_ids, source)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def lengths(self) -> Ints:
        """Interactions of each user. Shape (users,)."""
        return np.diff(self.offsets)

    @property
    def users(self) -> Ints:
        """The user of each interaction. Shape (interactions,)."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    @property
    def ties(self) -> int | None:
        """How many interactions are tied, so that their order is an accident of the file."""
        return None if self.tied is None else int(self.tied.sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, so that a checkpoint can tell its own data from other data.

        Times are part of it where there are any: they decide which items a time split holds out.
        """
        digest = hashlib.sha256()
        for array in (self.items, self.offsets):
            digest.update(np.ascontiguousarray(array, np.dtype("<i8")).tobytes())
        if self.item_ids.dtype.kind == "U":
            digest.update("\n".join(self.item_ids.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(self.item_ids, np.dtype("<i8")).tobytes())
        if self.times is not None:
            digest.update(self.times.dtype.str.encode() + np.ascontiguousarray(self.times).tobytes())
        return digest.hexdigest()

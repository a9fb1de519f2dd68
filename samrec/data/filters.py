"""Interactions with some left out."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from samrec.data.interactions import Interactions


def first_of_each(interactions: Interactions) -> Interactions:
    """Keep a user's first interaction with each item, and leave out the repeats."""
    keys = interactions.users * interactions.num_items + interactions.items
    kept = np.zeros(len(keys), bool)
    kept[np.unique(keys, return_index=True)[1]] = True
    return _keep(interactions, kept)


def k_core(interactions: Interactions, k: int) -> Interactions:
    """Leave out users and items with fewer than `k` interactions, until none is left to leave out.

    Raises:
        InputError: nothing remains.
    """
    users, items = interactions.users, interactions.items
    kept = np.ones(len(items), bool)
    while True:
        few_users = np.bincount(users[kept], minlength=interactions.num_users) < k
        few_items = np.bincount(items[kept], minlength=interactions.num_items) < k
        remaining = kept & ~few_users[users] & ~few_items[items]
        if remaining.sum() == kept.sum():
            break
        kept = remaining
    if not kept.any():
        raise InputError(
            f"{interactions.source}: no user and item have {k} interactions each; use a smaller core"
        )
    return _keep(interactions, kept)


def _keep(interactions: Interactions, kept: NDArray[np.bool_]) -> Interactions:
    """Leave out interactions, and the users and items that then have none."""
    lengths = np.bincount(interactions.users[kept], minlength=interactions.num_users)
    present, items = np.unique(interactions.items[kept], return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64)
    user_ids = None if interactions.user_ids is None else interactions.user_ids[lengths > 0]
    tied = interactions.tied
    if tied is not None:  # what is left of a run of ties is tied, but for its first
        tied = np.diff(np.cumsum(~tied)[kept], prepend=0) == 0
    return replace(
        interactions,
        items=items,
        offsets=offsets,
        item_ids=interactions.item_ids[present],
        user_ids=user_ids,
        tied=tied,
        times=None if interactions.times is None else interactions.times[kept],
    )

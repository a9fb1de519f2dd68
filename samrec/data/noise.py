"""Random items: outside of what a user has had, in place of what was chosen, and in between."""

import numpy as np

from landscape.errors import InputError
from samrec.data.interactions import Interactions, Ints

# What a seed is followed by, so that noise draws as nothing else does: epochs, which stand in the place of
# the 0, are numbered from 1.
REPLACED, INSERTED = (0, 1), (0, 2)


def outside(users: Ints, items: Ints, num_users: int, num_items: int) -> tuple[Ints, Ints, Ints]:
    """Prepare to draw items that a user has not interacted with, each in one draw, without rejection.

    With a user's distinct items in order, h_0 < h_1 < …, the number of candidates before h_i is
    h_i - i. The r-th candidate is therefore r + #{i: h_i - i <= r}: a binary search, of fixed shape.
    For a user who has interacted with every item, all n items are candidates.

    Args:
        users, items: who has had what, in any order. Shape (interactions,) both.

    Returns:
        For each user u and each i, ascending, u (n + 1) + h_i - i; where each user's begin, shape (users,);
        and how many candidates each user has, shape (users,).
    """
    users, items = np.divmod(np.unique(users * num_items + items), num_items)
    counts = np.bincount(users, minlength=num_users)
    users, items = (a[counts[users] < num_items] for a in (users, items))
    counts = np.where(counts < num_items, counts, 0)
    begin = np.cumsum(counts) - counts
    keys = users * (num_items + 1) + items - (np.arange(len(items)) - begin[users])
    return keys, begin, num_items - counts


def replaced(items: Ints, places: Ints, num_items: int, share: float, seed: int) -> Ints:
    """Put another item in `round(share * len(places))` of these places, drawn uniformly; the rest stays.

    What comes in is uniform over the `num_items` - 1 others. Shares are nested: what a smaller one of the
    same seed replaces, a larger one replaces too, by the same items.

    Raises:
        InputError: the share is not in [0, 1], or there is no other item.
    """
    count = _part_of(len(places), share)
    if not share:
        return items
    if num_items == 1:
        raise InputError("the data hold only one item, so nothing can replace it; noise must be 0")
    rng = np.random.default_rng((seed, *REPLACED))
    chosen = rng.permutation(places)[:count]
    shifts = rng.integers(1, num_items, len(places))  # for all places, so that shares are nested
    noisy = items.copy()
    noisy[chosen] = (items[chosen] + shifts[:count]) % num_items
    return noisy


def insertions(
    interactions: Interactions, users: Ints, lengths: Ints, share: float, seed: int
) -> tuple[Ints, Ints, Ints]:
    """Draw `round(share * lengths.sum())` items to insert into the first `lengths` items of these users.

    All gaps before, between and after these items are equally likely, and one may take several. What comes
    in is uniform over the items that are nowhere in the user's sequence, so nothing held out is shown. Users
    who have had every item take none, and the others as many more. Shares are nested, as in `replaced`.

    Args:
        users: with at least one interaction each. Shape (users,).
        lengths: shape (users,).

    Returns:
        The user of each insertion, the place in `interactions.items` before which it comes, and its item, in
        the order drawn: as `np.insert` takes them. Shape (insertions,) each.

    Raises:
        InputError: the share is not in [0, 1], or all users have had every item.
    """
    total = int(lengths.sum())
    count = _part_of(total, share)
    if not share:
        return (np.empty(0, np.int64),) * 3
    n = interactions.num_items
    keys, begin, candidates = outside(interactions.users, interactions.items, interactions.num_users, n)
    gaps = np.where(candidates[users] < n, lengths + 1, 0)  # n candidates: has had everything, not nothing
    ends = np.cumsum(gaps)
    if not ends[-1]:
        raise InputError(
            "every user has interacted with every item, so no item can be inserted; noise must be 0"
        )
    rng = np.random.default_rng((seed, *INSERTED))
    gap = rng.integers(ends[-1], size=total)  # as many as share 1 takes, so that shares are nested
    of = np.searchsorted(ends, gap, side="right")
    user = users[of]
    place = interactions.offsets[user] + gap - (ends - gaps)[of]
    rank = rng.integers(candidates[user])
    item = rank + np.searchsorted(keys, user * (n + 1) + rank, side="right") - begin[user]
    return user[:count], place[:count], item[:count]


def _part_of(total: int, share: float) -> int:
    if not 0 <= share <= 1:
        raise InputError(f"the share of noise must be from 0 to 1; it is {share:g}")
    return round(share * total)

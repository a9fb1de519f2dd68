"""Leave-one-out: the last item of a history for the test, the one before for validation."""

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from samrec.data.interactions import Interactions, Ints
from samrec.data.noise import insertions, replaced
from samrec.data.ragged import Ragged, ranges, slices

Part = Literal["valid", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Interactions, and where in each history training ends.

    Attributes:
        interactions: the histories.
        train_lengths: how many first interactions of each user are for training: all but the last
            two, or everything where a user has fewer than three. Shape (users,).
        evaluated: the users with at least three interactions. Shape (evaluated users,).
        trained: the users that are trained on: with something to predict in their training part, so two
            interactions or more, and drawn where only a share of them is. Shape (trained users,).
        train_items: `interactions.items` as training sees them, with its noise. Shape (interactions,).
    """

    interactions: Interactions
    train_lengths: Ints
    evaluated: Ints
    trained: Ints
    train_items: Ints

    @property
    def num_items(self) -> int:
        return self.interactions.num_items

    @property
    def in_training(self) -> NDArray[np.bool_]:
        """Whether an interaction is in its user's training part, trained on or not. Shape (interactions,)."""
        interactions = self.interactions
        ends = interactions.offsets[:-1] + self.train_lengths
        return np.arange(len(interactions.items)) < np.repeat(ends, interactions.lengths)

    @property
    def training(self) -> Ragged:
        """The training parts of the users that are trained on, as training sees them."""
        return slices(self.train_items, *self._trained_on)

    @property
    def _trained_on(self) -> tuple[Ints, Ints]:
        """Where these training parts start, and their lengths."""
        return self.interactions.offsets[self.trained], self.train_lengths[self.trained]

    def fraction(self, share: float, seed: int) -> "Split":
        """Train only on this share of the users, drawn by `seed`, and evaluate everyone.

        Shares are nested: a smaller one of the same seed is part of a larger one.
        """
        drawn = np.random.default_rng((seed, 2)).permutation(self.trained)
        return replace(self, trained=np.sort(drawn[: max(1, round(share * len(drawn)))]))

    def noisy(self, share: float, seed: int) -> "Split":
        """Train on random items in `round(share * T)` of the T training interactions of `trained`.

        Evaluation stays as it is: histories shown, candidates left out and targets are clean. Shares are
        nested (`samrec.data.noise.replaced`). For a share of the users: `split.fraction(…).noisy(…)`.

        Raises:
            InputError: the share is not in [0, 1], or there is only one item.
        """
        places = ranges(*self._trained_on).values
        items = replaced(self.interactions.items, places, self.num_items, share, seed)
        return replace(self, train_items=items)

    def disturbed(self, part: Part, share: float, seed: int) -> "Split":
        """Insert random items into the histories that `part` shows: `round(share * length)` of them in all.

        What `part` holds out, and of whom, stays. What is inserted is foreign to the user's whole sequence
        and counts as history (`samrec.data.noise.insertions`). Training on this split would see it too.

        Raises:
            InputError: the share is not in [0, 1], or everyone evaluated has had every item.
        """
        interactions = self.interactions
        _, length, _ = self.history(part)
        user, place, item = insertions(interactions, self.evaluated, length, share, seed)
        added = np.bincount(user, minlength=interactions.num_users)
        trains = place <= interactions.offsets[user] + self.train_lengths[user]
        return replace(
            self,
            interactions=replace(
                interactions,
                items=np.insert(interactions.items, place, item),
                offsets=interactions.offsets + np.concatenate([[0], np.cumsum(added)]),
            ),
            train_lengths=self.train_lengths + np.bincount(user[trains], minlength=len(added)),
            train_items=np.insert(self.train_items, place, item),
        )

    def with_validation(self) -> "Split":
        """Count the validation item as the last of the training part, which is clean again."""
        longer = self.train_lengths.copy()
        longer[self.evaluated] += 1
        return replace(self, train_lengths=longer, train_items=self.interactions.items)

    def history(self, part: Part) -> tuple[Ints, Ints, Ints]:
        """Return (start, length, target row) of every evaluated user's history before `part`'s item.

        `start` and `length` index `interactions.items`; the test's history holds the validation item.
        """
        start = self.interactions.offsets[self.evaluated]
        length = self.interactions.lengths[self.evaluated] - (2 if part == "valid" else 1)
        return start, length, self.interactions.items[start + length]


def leave_one_out(interactions: Interactions) -> Split:
    """Split as nearly every paper since SASRec does.

    Users with fewer than three interactions are trained on, not evaluated, and counted in a warning.

    Raises:
        InputError: no user has three interactions, so there is nothing to evaluate.
    """
    lengths = interactions.lengths
    long_enough = lengths >= 3
    if not long_enough.any():
        raise InputError(
            f"{interactions.source}: no user has three items; "
            "leave-one-out needs one for training, one for validation, one for the test"
        )
    if short := int((~long_enough).sum()):
        warnings.warn(
            f"{short} of {len(lengths)} users have fewer than three items: trained on, not evaluated",
            stacklevel=2,
        )
    train_lengths = np.where(long_enough, lengths - 2, lengths)
    return Split(
        interactions,
        train_lengths,
        evaluated=np.flatnonzero(long_enough),
        trained=np.flatnonzero(train_lengths >= 2),
        train_items=interactions.items,
    )

"""Leave-one-out: the last item of a history for the test, the one before for validation."""

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from landscape.errors import InputError
from samrec.data.interactions import Interactions, Ints

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
    """

    interactions: Interactions
    train_lengths: Ints
    evaluated: Ints
    trained: Ints

    @property
    def num_items(self) -> int:
        return self.interactions.num_items

    def fraction(self, share: float, seed: int) -> "Split":
        """Train on this share of the users alone, drawn by `seed`, and evaluate everyone.

        Shares are nested: a smaller one of the same seed is part of a larger one.
        """
        drawn = np.random.default_rng((seed, 2)).permutation(self.trained)
        return replace(self, trained=np.sort(drawn[: max(1, round(share * len(drawn)))]))

    def with_validation(self) -> "Split":
        """Count the validation item as the last of the training part."""
        longer = self.train_lengths.copy()
        longer[self.evaluated] += 1
        return replace(self, train_lengths=longer)

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
        interactions, train_lengths, np.flatnonzero(long_enough), trained=np.flatnonzero(train_lengths >= 2)
    )

"""What is trained on, and which item of whom is held out for validation and for the test."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from samrec.data.holdout import LEAVE_ONE_OUT, Moment, parsed
from samrec.data.interactions import Interactions, Ints
from samrec.data.noise import insertions, replaced
from samrec.data.ragged import Ragged, ranges, slices

Part = Literal["valid", "test"]
UNIX_SECONDS = datetime(1980, 1, 1, tzinfo=UTC).timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp()
"""Between these, numbers are taken for seconds since 1970; between their multiples, for finer units."""


@dataclass(frozen=True, eq=False)
class Split:
    """Interactions, where in each history training ends, and which item of it each part holds out.

    Attributes:
        interactions: the histories.
        train_lengths: how many first interactions of each user are for training. Shape (users,).
        targets: for each part, the place in each user's history of the item that it holds out; 0 for who is
            not evaluated, as the first item has no history. That of `valid` is the first after the training
            part. Shape (users,) each.
        trained: the users that are trained on: with something to predict in their training part, so two
            interactions or more, and drawn where only a share of them is. Shape (trained users,).
        train_items: `interactions.items` as training sees them, with its noise. Shape (interactions,).
        rule: the setting that it follows, see `split_by`.
    """

    interactions: Interactions
    train_lengths: Ints
    targets: Mapping[Part, Ints]
    trained: Ints
    train_items: Ints
    rule: str = LEAVE_ONE_OUT

    @property
    def num_items(self) -> int:
        return self.interactions.num_items

    def evaluated(self, part: Part) -> Ints:
        """Return the users that `part` holds an item out of. Shape (evaluated users,)."""
        return np.flatnonzero(self.targets[part])

    @property
    def in_training(self) -> NDArray[np.bool_]:
        """Whether an interaction is in its user's training part, trained on or not. Shape (interactions,)."""
        interactions = self.interactions
        ends = interactions.offsets[:-1] + self.train_lengths
        return np.arange(len(interactions.items)) < np.repeat(ends, interactions.lengths)

    @property
    def popularity(self) -> Ints:
        """The interactions of each item in the training parts: clean, of all users. Shape (items,)."""
        return np.bincount(self.interactions.items[self.in_training], minlength=self.num_items)

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
        interactions, users = self.interactions, self.interactions.num_users
        _, length, _ = self.history(part)
        user, place, item = insertions(interactions, self.evaluated(part), length, share, seed)

        def moved(ends: Ints) -> Ints:
            before = place <= interactions.offsets[user] + ends[user]
            return ends + np.bincount(user[before], minlength=users)

        offsets = interactions.offsets + np.concatenate([[0], np.bincount(user, minlength=users).cumsum()])
        items = np.insert(interactions.items, place, item)
        return replace(
            self,
            interactions=replace(interactions, items=items, offsets=offsets, times=None, tied=None),
            train_lengths=moved(self.train_lengths),
            targets={of: np.where(at > 0, moved(at), 0) for of, at in self.targets.items()},
            train_items=np.insert(self.train_items, place, item),
        )

    def with_validation(self) -> "Split":
        """Count the validation item as the last of the training part, which is clean again."""
        longer = self.train_lengths.copy()
        longer[self.evaluated("valid")] += 1
        return replace(self, train_lengths=longer, train_items=self.interactions.items)

    def history(self, part: Part) -> tuple[Ints, Ints, Ints]:
        """Return (start, length, target row) of every evaluated user's history before `part`'s item.

        `start` and `length` index `interactions.items`; the test's history holds the validation item.
        """
        users = self.evaluated(part)
        start, length = self.interactions.offsets[users], self.targets[part][users]
        return start, length, self.interactions.items[start + length]


def split_by(rule: str, interactions: Interactions) -> Split:
    """Split as a setting says; every evaluated user is asked for one item of each part.

    - `leave-one-out`: see `leave_one_out`.
    - `time:DATE`, at one moment for all users: what is before it is for training, but for the last of two or
      more items of a user, which is the validation item. The test item is a user's first at or after it. So
      the test is free of anything later; the validation, of anything later of the same user.
    - `time:DATE,DATE`: what is before the first date is for training; the validation item is a user's first
      from there on, and before the second date; the test item is the first from there on. So both are free
      of anything later.
    - `ratio:TRAIN,VALID,TEST`, of each user's history in order: the last floor(TEST · n) items, but at least
      one, are the test part, floor(VALID · n), but at least one, before them the validation part. The first
      item of each part is asked for. If nothing is left, all is for training.

    The history before an item is everything before it, of validation too. Whoever has no such item, or
    nothing before it, is not evaluated in this part, and counted in a warning.

    Raises:
        InputError: a time split of data without times, or whose times cannot be compared with a date; or
            nobody is left in a part.
    """
    holdout = parsed(rule)
    if holdout.kind == "leave-one-out":
        return leave_one_out(interactions)
    n = interactions.lengths
    if holdout.kind == "ratio":
        shares = (np.maximum(1, np.floor(share * n + 1e-9)).astype(np.int64) for share in holdout.shares)
        validated, tested = shares
        enough = n > validated + tested
        train = np.where(enough, n - validated - tested, n)
        valid, test = np.where(enough, train, 0), np.where(enough, n - tested, 0)
    else:
        before = [_before(interactions, moment, rule) for moment in holdout.moments]
        first, last = before[0], before[-1]
        if len(before) == 2:
            train, valid = first, np.where(first < last, first, 0)
        else:
            train = np.where(first >= 2, first - 1, first)
            valid = np.where(first >= 2, train, 0)
        test = np.where(last < n, last, 0)
    split = _split(rule, interactions, train, valid, test)
    _count_evaluated(split)
    return split


def _split(rule: str, interactions: Interactions, train_lengths: Ints, valid: Ints, test: Ints) -> Split:
    trained = np.flatnonzero(train_lengths >= 2)
    targets: dict[Part, Ints] = {"valid": valid, "test": test}
    return Split(interactions, train_lengths, targets, trained, interactions.items, rule)


def _count_evaluated(split: Split) -> None:
    """Warn of users who are not evaluated.

    Raises:
        InputError: nobody is evaluated in a part.
    """
    source, times, total = split.interactions.source, split.interactions.times, split.interactions.num_users
    missing = {name: total - len(split.evaluated(name)) for name in split.targets}
    if total in missing.values():
        name = next(name for name, count in missing.items() if count == total)
        spanned = "" if times is None else f"; the times are from {times.min()} to {times.max()}"
        raise InputError(f"{source}: split {split.rule} holds out no item of any user for {name}{spanned}")
    if any(missing.values()):
        warnings.warn(
            f"{source}: of {total} users, {missing['valid']} have no item to predict in the validation part "
            f"and {missing['test']} none in the test part ({split.rule}); they are not evaluated there",
            stacklevel=3,
        )


def _before(interactions: Interactions, moment: Moment, rule: str) -> Ints:
    """Return how many interactions each user has before a moment. Shape (users,).

    Raises:
        InputError: there are no times, or they and the moment are not of one kind.
    """
    times = interactions.times
    if times is None:
        raise InputError(
            f"{interactions.source} has no times, which split {rule} needs; for a table, name the column "
            "with --columns USER,ITEM,TIME"
        )
    at: Any = moment
    if times.dtype.kind == "M":
        if not isinstance(moment, datetime):
            raise InputError(f"{interactions.source} has dates as times; write {rule} with a date")
        # Rounded down to microseconds, as the moment has no finer ones: nothing crosses it.
        times, at = times.astype("datetime64[us]"), np.datetime64(moment.replace(tzinfo=None), "us")
    elif isinstance(moment, datetime):
        at = _in_unix(moment, times, interactions.source)
    return np.bincount(interactions.users[times < at], minlength=interactions.num_users)


def _in_unix(moment: datetime, times: NDArray[Any], source: str) -> float:
    """Return a moment as a number in the unit of times that are numbers since 1970.

    Raises:
        InputError: they are not, in any unit from seconds to nanoseconds.
    """
    since, least, most = moment - datetime(1970, 1, 1, tzinfo=UTC), times.min(), times.max()
    microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    for unit in (1, 10**3, 10**6, 10**9):
        if UNIX_SECONDS[0] * unit <= least and most < UNIX_SECONDS[1] * unit:
            if times.dtype.kind == "f":
                return microseconds * unit / 10**6
            return -(-microseconds * unit // 10**6)  # rounded up: what is before it stays before it
    raise InputError(
        f"{source} has times from {least} to {most}, which are not seconds since 1970 or a finer unit; "
        "write --split time: with such a number in place of the date"
    )


def leave_one_out(interactions: Interactions) -> Split:
    """Split as nearly every paper since SASRec does: the last item for the test, the one before to validate.

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
    train = np.where(long_enough, lengths - 2, lengths)
    held_out = (np.where(long_enough, lengths - back, 0) for back in (2, 1))
    return _split(LEAVE_ONE_OUT, interactions, train, *held_out)

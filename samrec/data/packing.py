"""Batches without padding: several histories share a row.

On Beauty 86% of the positions of a batch padded to 50 hold nothing. Here the histories of a batch share
rows of the model's width, kept apart by their segment number (see `samrec.model.block_mask`), and
positions restart with each of them. A batch is still a random draw of users: only where a history lies
in the batch changes, never which histories share one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from samrec.data.interactions import Ints
from samrec.data.noise import outside
from samrec.data.ragged import Ragged, ranges
from samrec.data.split import Part, Split
from samrec.data.tensors import Tensors


@dataclass(frozen=True, eq=False)
class Packed(Tensors):
    """Histories laid into rows. All tensors are int64, of shape (rows, width), but for `last` and `bits`.

    Attributes:
        items: item rows; 0 where a slot is empty (its segment says so).
        positions: place in the history, from 0.
        segments: which history a slot belongs to, from 1; 0 for an empty slot.
        last: the slot of each history's last item, in the flattened rows. Shape (histories,).
        bits: the random numbers of dropout (`samrec.model.Draws`); None lets the model draw its own.
        ends: the last position of the whole that each history is a piece of; None where each is whole. Shape
            (histories,).
    """

    items: Tensor
    positions: Tensor
    segments: Tensor
    last: Tensor
    bits: Tensor | None = None
    ends: Tensor | None = None

    def padded(self, rows: int, histories: int) -> "Packed":
        """Pad to at least `rows` rows with empty ones, and to `histories` histories that end in slot 0."""
        more = (0, max(0, histories - len(self.last)))
        return replace(
            self,
            items=padded_rows(self.items, rows),
            positions=padded_rows(self.positions, rows),
            segments=padded_rows(self.segments, rows),
            bits=None if self.bits is None else padded_rows(self.bits, rows),
            last=F.pad(self.last, more),
            ends=None if self.ends is None else F.pad(self.ends, more),
        )

    def from_end(self, width: int) -> Tensor:
        """Return the positions counted so that a whole history ends at `width` - 1. Shape (rows, width)."""
        ends = self.positions.flatten()[self.last] if self.ends is None else self.ends
        return self.positions + (width - 1 - ends)[self.segments - 1]  # an empty slot gets any position

    def dealt(self, first: int, every: int) -> "Packed":
        """Return each `every`-th row from `first` on. Histories of other rows end in slot 0, as padding does.

        How many there are stays the same: nothing waits for the device.
        """
        names = ("items", "positions", "segments", "bits")
        rows = {n: t[first::every] for n in names if (t := getattr(self, n)) is not None}
        width = self.items.shape[1]
        row, column = self.last // width, self.last % width
        ends = self.positions.flatten()[self.last] if self.ends is None else self.ends  # there may be no row
        last = torch.where(row % every == first, row // every * width + column, 0)
        return replace(self, last=last, ends=ends, **rows)


def padded_rows(tensor: Tensor, rows: int) -> Tensor:
    """Pad with rows of zeros, along the last but one axis, to at least `rows` rows."""
    return F.pad(tensor, (0, 0, 0, max(0, rows - tensor.shape[-2])))


@dataclass(frozen=True, eq=False)
class Batch(Tensors):
    """A training batch: inputs, and at each slot the next item and items that were not chosen.

    Losses are computed at all slots, since few are empty (2% on Beauty), and weighted by `used`.

    Attributes:
        inputs: the packed histories.
        targets: the next item; 0 at an empty slot. Shape (rows, width).
        negatives: items outside the user's training history. Shape (negatives, rows, width).
        used: 1 at a slot in use, 0 at an empty one. float32, shape (rows, width).
    """

    inputs: Packed
    targets: Tensor
    negatives: Tensor
    used: Tensor

    def padded(self, rows: int, histories: int) -> Self:
        """Pad the inputs, and all that lies beside them: a shape that does not depend on who is drawn.

        What more a method's batch has of each history is padded in proportion.
        """
        beside = {name: padded_rows(getattr(self, name), rows) for name in ("targets", "negatives", "used")}
        return replace(self, inputs=self.inputs.padded(rows, histories), **beside)

    def dealt(self, first: int, every: int) -> Self:
        """Return the part of the batch that lies in each `every`-th row from `first` on."""
        beside = {
            name: getattr(self, name)[..., first::every, :] for name in ("targets", "negatives", "used")
        }
        return replace(self, inputs=self.inputs.dealt(first, every), **beside)


def first_fit_decreasing(lengths: Ints, width: int) -> tuple[Ints, Ints, int]:
    """Place sequences of `lengths` (each 1..width) into rows of `width`: (row, column, number of rows).

    Longest first, each into the fullest row that still takes it. `free[c]` lists the rows with c free
    slots, and bit c of `mask` says whether that list holds any, so finding a row is one bit operation.
    """
    row = np.zeros(len(lengths), np.int64)
    column = np.zeros(len(lengths), np.int64)
    free: list[list[int]] = [[] for _ in range(width + 1)]
    mask, rows = 0, 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        if fitting := mask >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row[i] = free[room].pop()
            if not free[room]:
                mask &= ~(1 << room)
        else:
            room, row[i] = width, rows
            rows += 1
        column[i] = width - room
        if left := room - length:
            free[left].append(int(row[i]))
            mask |= 1 << left
    return row, column, rows


def pack(
    items: Tensor, starts: Ints, lengths: Ints, width: int, asks: int | None = None
) -> tuple[Packed, Tensor, Tensor]:
    """Lay the histories `items[starts[k]:starts[k] + lengths[k]]` into rows.

    Args:
        asks: an item number to put after each history, for which rows are one slot wider; `last` is then its
            slot.

    Returns them with the slots in use, history after history, as indices into the flattened rows (shape
    (tokens,)), and for each of these slots the index into `items` that it was filled from.
    """
    more = asks is not None
    width += more
    row, column, rows = first_fit_decreasing(lengths + more, width)
    source = ranges(starts, lengths)
    flat = ranges(row * width + column, lengths)
    columns = [flat.values, source.values, source.within, source.owner + 1]
    table = torch.from_numpy(np.stack(columns)).to(items.device)
    slots = torch.zeros(3, rows * width, dtype=torch.int64, device=items.device)
    slots[:, table[0]] = torch.stack([items[table[1]], table[2], table[3]])
    last = torch.from_numpy(row * width + column + lengths - 1 + more).to(items.device)
    if asks is not None:
        after = [np.full_like(lengths, asks), lengths, 1 + np.arange(len(lengths))]
        slots[:, last] = torch.from_numpy(np.stack(after)).to(items.device)
    inputs, positions, segments = slots.view(3, rows, width)
    return Packed(inputs, positions, segments, last), table[0], table[1]


def in_numpy(generator: torch.Generator) -> np.random.Generator:
    """Return a generator of NumPy's whose seed is the next number of this one."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


class Negatives:
    """Draws items uniformly from those outside a user's training history, as training sees it.

    One draw each, without rejection (`samrec.data.noise.outside`). A user who has chosen everything has no
    negative; any item then serves.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        interactions, seen = split.interactions, split.in_training
        tables = outside(
            interactions.users[seen], split.train_items[seen], interactions.num_users, split.num_items
        )
        self.num_items = split.num_items
        self.keys, self.begin, self.candidates = (torch.from_numpy(a).to(device) for a in tables)

    def draw(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one item for each entry of `users` (int64, any shape).

        The random bits come from the CPU, so that a seed freezes the same negatives on every device.
        """
        bits = torch.randint(2**62, users.shape, generator=generator).to(users.device)
        rank = bits % self.candidates[users]
        passed = torch.searchsorted(self.keys, users * (self.num_items + 1) + rank, right=True)
        return rank + passed - self.begin[users]


class TrainingBatches:
    """All training sequences of a split on one device, cut into packed batches.

    Each user contributes the last `max_length` + 1 items of the training part: inputs are all but the
    last of them, targets all but the first.

    Args:
        split: whose training parts are meant.
        max_length: width of a row.
        device: where the batches are to be.
        negatives: how many to draw for each position.
    """

    ahead = 1  # items at the end that are only targets

    def __init__(self, split: Split, max_length: int, device: torch.device, negatives: int = 1) -> None:
        self.split = split
        self.max_length = max_length
        self.items = torch.from_numpy(split.train_items).to(device)
        self.negatives = Negatives(split, device)
        self.count = negatives

    def packed(self, sequences: Ragged) -> tuple[Packed, Tensor, Tensor]:
        """Lay sequences of items into rows, on the device: `pack`."""
        items = torch.from_numpy(sequences.values).to(self.items.device)
        return pack(items, sequences.starts, sequences.lengths, self.max_length)

    def inputs(self, users: Ints) -> tuple[Ints, Ints]:
        """Return where the inputs of these users start in `split.train_items`, and how many there are."""
        trained = self.split.train_lengths[users] - self.ahead
        lengths = np.minimum(trained, self.max_length)
        return self.split.interactions.offsets[users] + trained - lengths, lengths

    def batch(self, users: Ints, generator: torch.Generator) -> Batch:
        """Pack these users' training sequences and draw negatives for every position."""
        starts, lengths = self.inputs(users)
        inputs, slots, source = pack(self.items, starts, lengths, self.max_length)
        owner = torch.from_numpy(np.repeat(users, lengths)).to(self.items.device)
        drawn = self.negatives.draw(owner.expand(self.count, -1), generator)
        chosen = torch.zeros(
            1 + self.count, inputs.items.numel(), dtype=torch.int64, device=self.items.device
        )
        chosen[:, slots] = torch.cat([self.items[source + 1][None], drawn])
        chosen = chosen.view(-1, *inputs.items.shape)
        return Batch(inputs, chosen[0], chosen[1:], (inputs.segments > 0).float())

    def epoch(self, batch_size: int, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Yield all trained users once, in an order and with negatives that depend only on `seed`."""
        order = np.random.default_rng(seed).permutation(self.split.trained)
        return self.of_users(order, batch_size, seed)

    def of_users(self, users: Ints, batch_size: int, seed: tuple[int, ...]) -> Iterator[Batch]:
        """Yield these users in this order, with negatives that depend only on `seed`."""
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
        )
        for first in range(0, len(users), batch_size):
            yield self.batch(users[first : first + batch_size], generator)

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return -(-len(self.split.trained) // batch_size)

    def rows(self, batch_size: int) -> int:
        """Return a number of rows into which nearly every batch fits, so that all have one shape.

        The mean need, six standard deviations, and a tenth for what packing leaves empty.
        """
        _, lengths = self.inputs(self.split.trained)
        slots = batch_size * float(lengths.mean()) + 6 * batch_size**0.5 * float(lengths.std())
        needed: int = math.ceil(1.1 * slots / self.max_length) + 1
        return min(batch_size, needed)


def evaluation_histories(split: Split, part: Part, max_length: int) -> tuple[Ints, Ints]:
    """Return (start, length) of the last `max_length` items of each evaluated user's history."""
    start, length, _ = split.history(part)
    kept = np.minimum(length, max_length)
    return start + length - kept, kept

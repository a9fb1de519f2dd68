"""Sequences of different lengths, one after another in one array."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from samrec.data.interactions import Ints


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences laid end to end, so that one array operation handles all of them.

    Attributes:
        values: sequence after sequence. Shape (values,).
        lengths: length of each sequence. Shape (sequences,).
    """

    values: Ints
    lengths: Ints

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Ints:
        """Where each sequence begins in `values`. Shape (sequences,)."""
        starts: Ints = np.cumsum(self.lengths) - self.lengths
        return starts

    @cached_property
    def owner(self) -> Ints:
        """The sequence that each value belongs to. Shape (values,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def within(self) -> Ints:
        """The place of each value in its sequence, from 0. Shape (values,)."""
        within: Ints = np.arange(len(self.values)) - self.starts[self.owner]
        return within

    def inside(self, first: Ints, lengths: Ints) -> NDArray[np.bool_]:
        """Tell whether each value lies in its sequence's span of `lengths` values from place `first`."""
        place = self.within - first[self.owner]
        return (place >= 0) & (place < lengths[self.owner])

    def spans(self, first: Ints, lengths: Ints) -> "Ragged":
        """Return the span of `lengths` values from place `first` of each sequence."""
        return slices(self.values, self.starts + first, lengths)

    def take(self, sequences: Ints) -> "Ragged":
        """Return these sequences, in this order."""
        return slices(self.values, self.starts[sequences], self.lengths[sequences])

    @staticmethod
    def chained(parts: "list[Ragged]") -> "Ragged":
        """Return the sequences of all parts, one part after another."""
        return Ragged(np.concatenate([p.values for p in parts]), np.concatenate([p.lengths for p in parts]))


def ranges(starts: Ints, lengths: Ints) -> Ragged:
    """Return the numbers from `starts[k]` on, `lengths[k]` of them, for each k."""
    begin = np.cumsum(lengths) - lengths
    return Ragged(np.repeat(starts - begin, lengths) + np.arange(int(lengths.sum())), lengths)


def slices(values: Ints, starts: Ints, lengths: Ints) -> Ragged:
    """Return `values[starts[k]:starts[k] + lengths[k]]` for each k."""
    return Ragged(values[ranges(starts, lengths).values], lengths)

"""Sums over batches, as exact as in float64 after rounding, without a float64 copy of θ."""

from collections.abc import Sequence

import torch
from torch import Tensor

from landscape.objective.shards import alike, local
from landscape.runtime.ranks import Ranks

PIECE = 2**16  # numbers that are added at once, so that what is in between stays in the cache
REDUCED = 2**22  # numbers that ranks add up at once


class Sum:
    """Σ_b of vectors that come as tensors which lie end to end in them, divided by a weight at the end.

    A single summand is never added to anything. For several summands in float32, the part that each addition
    rounds off is kept in bfloat16 (Neumaier 1974; here by the branch-free sum of Knuth). Together they hold
    32 bits, so that the result is rounded once. In float64, nothing is kept.
    """

    def __init__(self, like: Tensor) -> None:
        """Begin a sum of vectors such as `like`, (n,) or (K, n)."""
        self._kind, self._like = like, local(like)
        self._first: list[Tensor] | None = None
        self._total = self._lost = self._like[..., :0]
        self._batches = 0

    def add(self, parts: Sequence[Tensor]) -> None:
        """Add a vector; its tensors, with K in front of their own shapes if there are K, are not written."""
        self._batches += 1
        parts = list(map(local, parts))
        if self._batches == 1:
            self._first = parts
            return
        self._lay_out(1.0)
        first = 0
        for part in parts:
            rows = part.reshape(*self._like.shape[:-1], -1)
            for begin in range(0, rows.shape[-1], PIECE):
                some = rows[..., begin : begin + PIECE]
                self._add(slice(first + begin, first + begin + some.shape[-1]), some)
            first += rows.shape[-1]

    def mean(self, weight: float, ranks: Ranks) -> Tensor:
        """Return the sum over the batches of all ranks, divided by `weight`, in the precision of θ."""
        self._lay_out(weight if ranks.size == 1 else 1.0)
        if self._batches == 1 and ranks.size == 1:
            return alike(self._total, self._kind)
        step = PIECE if ranks.size == 1 else REDUCED
        for begin in range(0, self._total.shape[-1], step):
            piece = slice(begin, begin + step)
            exact = self._total[..., piece].double()
            if self._lost.numel():
                exact += self._lost[..., piece]
            self._total[..., piece] = (exact if ranks.size == 1 else ranks.summed(exact)) / weight
        return alike(self._total, self._kind)

    def _lay_out(self, weight: float) -> None:
        """Lay the first summand end to end, divided by a weight; each tensor is dropped at once."""
        if self._first is None:
            return
        self._total, first = torch.empty_like(self._like, memory_format=torch.contiguous_format), 0
        self._first.reverse()
        while self._first:
            part = self._first.pop()
            rows = part.reshape(*self._like.shape[:-1], -1)
            torch.div(rows, weight, out=self._total[..., first : first + rows.shape[-1]])
            first += rows.shape[-1]
        self._first = None

    def _add(self, piece: slice, some: Tensor) -> None:
        total = self._total[..., piece]
        if total.dtype == torch.float64:
            total += some
            return
        if not self._lost.numel():
            self._lost = torch.zeros_like(self._total, dtype=torch.bfloat16)
        found = total + some
        added = found - total
        self._lost[..., piece] += (total - (found - added)) + (some - added)
        total.copy_(found)

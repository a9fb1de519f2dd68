"""How the numbers of tensors are dealt to the ranks of a process group, and gathered from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass(frozen=True)
class Dealt:
    """How the numbers of some tensors, end to end, are dealt to the ranks of the process group.

    Attributes:
        shapes: of the tensors.
        rank, ranks: the number of this rank, and how many there are.
    """

    shapes: tuple[torch.Size, ...]
    rank: int
    ranks: int

    @property
    def shares(self) -> list[int]:
        """How many numbers of each tensor a rank holds, with what fills it up."""
        return [-(-shape.numel() // self.ranks) for shape in self.shapes]

    @property
    def numel(self) -> int:
        """How many numbers the whole vector has."""
        return sum(shape.numel() for shape in self.shapes)

    def places(self) -> list[tuple[int, int, int]]:
        """Return where this rank's numbers are: first place in the whole, first in the share, and count."""
        found, first, here = [], 0, 0
        for shape, share in zip(self.shapes, self.shares, strict=True):
            begin = min(self.rank * share, shape.numel())
            found.append((first + begin, here, min(share, shape.numel() - begin)))
            first, here = first + shape.numel(), here + share
        return found

    def share_of(self, whole: Tensor) -> Tensor:
        """Return this rank's share of one tensor, shape (share,)."""
        ((begin, _, count),), (share,) = self.places(), self.shares
        found = whole.new_zeros(share)
        found[:count] = whole.reshape(-1)[begin : begin + count]
        return found

    def whole(self, share: Tensor) -> Tensor:
        """Return one tensor from the ranks' shares, in its own shape: an all-gather."""
        (shape,) = self.shapes
        return gathered(share).reshape(-1)[: shape.numel()].view(shape)


def gathered(numbers: Tensor) -> Tensor:
    """Return the ranks' plain tensors of one shape along a new first axis: an all-gather."""
    import torch.distributed as dist

    own, ranks = numbers.detach().contiguous(), dist.get_world_size()
    found = own.new_empty(ranks, *own.shape)
    if own.numel():
        dist.all_gather(list(found), own)
    return found


def objects(value: Any) -> list[Any]:
    """Return every rank's value (any small object), in the order of ranks."""
    import torch.distributed as dist

    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


class Gather(torch.autograd.Function):
    """From a rank's share to the whole, which all ranks use for the same: the transpose of `Deal`."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, dealt: Dealt) -> Tensor:
        ctx.dealt = dealt
        return _noted(dealt.whole(share), share, dealt)

    @staticmethod
    def backward(ctx: Any, whole: Tensor) -> Any:
        return Deal.apply(whole, ctx.dealt), None  # type: ignore[no-untyped-call] # torch's


class Deal(torch.autograd.Function):
    """From the whole, the same on all ranks, to a rank's share of it."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, dealt: Dealt) -> Tensor:
        ctx.dealt = dealt
        return dealt.share_of(whole)

    @staticmethod
    def backward(ctx: Any, share: Tensor) -> Any:
        return Gather.apply(share, ctx.dealt), None  # type: ignore[no-untyped-call] # torch's


_whole: dict[int, tuple[Any, Tensor, Dealt]] = {}
"""The gathered tensors that are in memory; a weak reference keeps the key from being given to another."""


SMALL = 2**12  # numbers: graphs keep so small a tensor, since to gather it anew takes longer


def _noted(whole: Tensor, share: Tensor, dealt: Dealt) -> Tensor:
    if whole.numel() <= SMALL:
        return whole
    for key in [key for key, (known, *_) in _whole.items() if known.expired()]:
        del _whole[key]
    known: Any = StorageWeakRef(whole.untyped_storage())  # type: ignore[no-untyped-call] # torch's
    _whole[known.cdata] = known, share.detach(), dealt
    return whole


def _packed(tensor: Tensor) -> Any:
    found = _whole.get(tensor.untyped_storage()._cdata)
    if found is None or found[1].dtype != tensor.dtype:
        return tensor
    _, share, dealt = found
    return share, dealt, tensor.size(), tensor.stride(), tensor.storage_offset()


def _unpacked(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    share, dealt, size, stride, offset = packed
    return _noted(dealt.whole(share), share, dealt).as_strided(size, stride, offset)


@contextmanager
def regathering() -> Iterator[None]:
    """Let graphs keep the shares of gathered tensors, which are gathered anew when a graph needs them."""
    with saved_tensors_hooks(_packed, _unpacked):
        yield

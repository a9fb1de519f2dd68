"""Random points around θ, for checks: they cost a copy of θ rather than as many random numbers."""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.objective.params import ParamSpace
from landscape.objective.shards import Shard, fill, local
from landscape.objective.sums import PIECE
from landscape.runtime.dealing import gathered

FEW = 2**13  # numbers to which a tensor is folded
FARTHEST = 1000
PERIOD = 65_537  # a prime, so that the rows of no matrix are alike


def fill_normal(tensors: Iterable[Tensor], seed: int) -> Iterator[Tensor]:
    """Yield contiguous tensors, each filled with standard normal numbers; after `PERIOD` of them, they recur.

    They are as good as others for a direction, and a random number costs twenty times what a copy of it does.
    """
    few = _normal(seed).numpy()
    few, first = np.concatenate([few, few]), 0

    def draw(count: int) -> Any:
        nonlocal first
        begin, first = first, (first + count) % PERIOD
        return few[begin : begin + count]

    for tensor in tensors:
        fill(tensor if isinstance(tensor, Shard) else tensor.view(-1), draw, PERIOD)
        yield tensor


def drawn(params: ParamSpace, seed: int) -> Tensor:
    """Return a random vector that moves every tensor by about its own size, shape (numel,).

    A small one is moved by more, by a tenth of the size of all, since its own part of a slope would not show;
    but not by more than `FARTHEST` times its size, where weights have physical units.
    """
    found, weights = torch.empty_like(params.theta), params.split(params.theta)
    sizes = {name: size_of(w) for name, w in weights.items()}
    squares = sum(size**2 * weights[name].numel() for name, size in sizes.items())
    least = 0.1 * (squares / max(params.numel, 1)) ** 0.5 or 1.0
    for size, part in zip(sizes.values(), fill_normal(params.views(found).values(), seed), strict=True):
        part.mul_(max(size, min(least, FARTHEST * size or least)))
    return found


def size_of(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's numbers, summed in float64."""
    pieces = torch.split(tensor.reshape(-1), PIECE)
    lengths = [torch.linalg.vector_norm(some, dtype=torch.float64) for some in pieces]
    return float(torch.stack(lengths).norm()) / math.sqrt(max(tensor.numel(), 1))


def folded(tensor: Tensor) -> Tensor:
    """Return a tensor as at most `FEW` numbers in float64: sums of its own with random signs.

    Their length is that of the tensor to within a percent or two, and that of a difference of two tensors is
    that of their difference: the count sketch of Charikar et al. (2002). A short tensor stays as it is. Each
    rank's share of a sharded tensor is folded by itself, and the results are laid end to end.
    """
    flat = local(tensor).detach().reshape(-1)
    found = _folded(flat)
    return gathered(found).flatten() if isinstance(tensor, Shard) else found


def _folded(flat: Tensor) -> Tensor:
    if len(flat) <= FEW:
        return flat.double()
    signs, found = _signs(flat.dtype, flat.device), flat.new_zeros(FEW, dtype=torch.float64)
    for number, some in enumerate(torch.split(flat, PIECE)):
        first = number * PIECE % PERIOD
        signed, whole = some * signs[first : first + len(some)], len(some) - len(some) % FEW
        found += signed[:whole].view(-1, FEW).sum(0, dtype=torch.float64)
        found[: len(some) - whole] += signed[whole:]
    return found


def _normal(seed: int) -> Tensor:
    """Return `PERIOD` standard normal numbers on the CPU, in float32, whatever torch's defaults are."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(PERIOD, generator=generator, device="cpu", dtype=torch.float32)


@cache
def _signs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `PERIOD` random signs, twice."""
    signs = _normal(0).sign()
    return torch.cat([signs, signs]).to(device, dtype)

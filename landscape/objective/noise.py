"""Random points around θ, for checks: they cost a copy of θ rather than as many random numbers."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from landscape.objective.params import ParamSpace
from landscape.objective.shards import share_of

PERIOD = 65_537  # a prime, so that the rows of no matrix are alike


def normals(like: Iterable[Tensor], seed: int) -> Iterator[Tensor]:
    """Yield standard normal numbers for tensors, of each one's kind; after `PERIOD` of them, they come again.

    They are as good as others for a direction, and a random number costs twenty times what a copy of it does.
    """
    few = torch.randn(PERIOD, generator=torch.Generator().manual_seed(seed))
    few, first = torch.cat([few, few]), 0
    for tensor in like:
        count = tensor.numel()
        some = few[first : first + min(count, PERIOD)].to(tensor)
        first = (first + count) % PERIOD
        yield share_of(some.repeat(-(-count // PERIOD))[:count], tensor)


def drawn(params: ParamSpace, seed: int) -> Tensor:
    """Return a random vector that moves every tensor by about its own size, shape (numel,)."""
    found, weights = torch.empty_like(params.theta), params.split(params.theta)
    sizes = {name: size_of(w) for name, w in weights.items()}
    squares = sum(size**2 * weights[name].numel() for name, size in sizes.items())
    least = 0.1 * (squares / max(params.numel, 1)) ** 0.5 or 1.0
    parts = params.split(found)
    for (name, part), z in zip(parts.items(), normals(parts.values(), seed), strict=True):
        torch.mul(z, max(sizes[name], least), out=part)
    return found


def size_of(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's numbers, summed in float64."""
    length = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
    return length / math.sqrt(max(tensor.numel(), 1))

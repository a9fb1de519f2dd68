"""Random points around θ, for checks: they cost a copy of θ rather than as many random numbers."""

import torch
from torch import Tensor

from landscape.objective.params import ParamSpace

PERIOD = 65_537  # a prime, so that the rows of no matrix are alike


def normals(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers of the kind of `like`; after `PERIOD` numbers, the same ones come again.

    They are as good as others for a direction, and a random number costs twenty times what a copy of it does.
    """
    count = like.numel()
    few = torch.randn(min(count, PERIOD), generator=generator, dtype=torch.float64).to(like)
    if count <= PERIOD:
        return few.view(like.shape)
    found = torch.empty_like(like, memory_format=torch.contiguous_format)
    flat, whole = found.view(-1), count // PERIOD * PERIOD
    flat[:whole].view(-1, PERIOD).copy_(few.expand(count // PERIOD, -1))
    flat[whole:].copy_(few[: count - whole])
    return found


def drawn(params: ParamSpace, seed: int) -> Tensor:
    """Return a random vector that moves every tensor by about its own size, shape (numel,)."""
    found, generator = torch.empty_like(params.theta), torch.Generator().manual_seed(seed)
    weights = params.split(params.theta)
    sizes = {name: size_of(w) for name, w in weights.items()}
    squares = sum(size**2 * weights[name].numel() for name, size in sizes.items())
    least = 0.1 * (squares / max(params.numel, 1)) ** 0.5 or 1.0
    for name, part in params.split(found).items():
        torch.mul(normals(part, generator), max(sizes[name], least), out=part)
    return found


def size_of(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's numbers, summed in float64."""
    length = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return float(length) / max(tensor.numel(), 1) ** 0.5

"""One tensor per parameter, as one vector; a tensor may be sparse, and a parameter that is missing has 0."""

from collections.abc import Iterable

import torch
from torch import Tensor

Vector = dict[Tensor, Tensor]
HALVES = (torch.float16, torch.bfloat16)  # squares of large entries are beyond float16


def gradients(parameters: Iterable[Tensor], scale: Tensor | float | None = None) -> Vector:
    """Return the gradients themselves, not copies; where they have a scale, divided by it."""
    found = {p: gradient for p in parameters if (gradient := p.grad) is not None}
    return found if scale is None else combined({}, found, 1 / scale)


def copies(vector: Vector) -> Vector:
    """Return copies: whoever owns a gradient (DDP's buckets, say) may write to it."""
    return {p: t.clone() for p, t in vector.items()}


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together, a scalar on the device of the first."""
    lengths = [  # a half is summed up in float32, and its own norm then stands for it
        torch.linalg.vector_norm(t, dtype=torch.float32) if t.dtype in HALVES else t
        for t in map(entries, tensors)
    ]
    return torch.nn.utils.get_total_norm(lengths)


def dot(a: Vector, b: Vector) -> Tensor:
    """Return ⟨a, b⟩, a scalar on the device of the first tensor."""
    products = [entries(_wide(a[p]) * _wide(b[p]).conj()).sum().real for p in a if p in b]
    if not products:
        return torch.zeros(())
    return torch.stack([product.to(products[0].device) for product in products]).sum()


def combined(a: Vector, b: Vector, scale: Tensor | float) -> Vector:
    """Return a + scale b."""
    return {p: _combined(a.get(p), b.get(p), scale) for p in a | b}


def add(a: Vector, b: Vector) -> None:
    """Add `b` to `a`, whose tensors are written to. A tensor of `b` that `a` lacks is copied."""
    for p, t in b.items():
        if p not in a:
            a[p] = t.clone()
        elif a[p].is_sparse:
            a[p] = t + a[p]
        else:
            a[p].add_(t)


def moved(p: Tensor, direction: Tensor, scale: Tensor) -> Tensor:
    """Return p + scale · direction, dense; scale is a scalar, or has a shape that broadcasts to p's."""
    if direction.is_sparse:
        return p + (_wide(direction) * scale).to(p.dtype)
    return torch.addcmul(_wide(p), _wide(direction), scale).to(p.dtype)


def replace(p: Tensor, gradient: Tensor) -> None:
    """Make `gradient` the gradient of `p`, inside of the tensor that is there: others may own it."""
    if p.grad is None or p.grad.is_sparse or gradient.is_sparse:
        p.grad = gradient
    elif p.grad is not gradient:
        p.grad.copy_(gradient)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALVES else tensor


def _combined(a: Tensor | None, b: Tensor | None, scale: Tensor | float) -> Tensor:
    if b is None:
        assert a is not None
        return a
    scaled = b * (scale.to(b) if isinstance(scale, Tensor) else scale)
    if a is None:
        return scaled
    total = scaled + a if a.is_sparse else a + scaled
    return total.coalesce() if total.is_sparse else total  # torch would keep the terms of every sum so far


def where(condition: Tensor, tensor: Tensor) -> Tensor:
    """Return the tensor where the condition (a scalar) holds, else 0, whatever stands in it."""
    condition = condition.to(tensor.device)
    if not tensor.is_sparse:
        return torch.where(condition, tensor, 0.0)
    tensor = tensor.coalesce()
    values = torch.where(condition, tensor.values(), 0.0)
    parts = tensor.indices(), values, tensor.shape
    return torch.sparse_coo_tensor(*parts, is_coalesced=True, check_invariants=False)  # torch asks to be told


def entries(tensor: Tensor) -> Tensor:
    """Return the entries that a tensor stores, of a sparse one each index once."""
    return tensor.coalesce().values() if tensor.is_sparse else tensor

"""Cross-entropy over a large vocabulary, with derivatives in closed form: its logits are never all held."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

LOGITS = {"cpu": 2**22, "cuda": 2**26}
"""At once; a pass holds up to four times as many numbers."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int = -100
) -> Tensor:
    """Return Σ -log softmax(W h)[target] over positions, as the sum that an `Objective`'s loss returns.

    It equals `F.cross_entropy(hidden @ weight.T, targets, reduction="sum")`, and so do its gradient and its
    Hessian products in `reverse` mode. Logits z are computed in chunks of positions, and again wherever they
    are needed; a kept graph holds none. With p = softmax(z), a position's second derivative along a change t
    of z is p ∘ t - p (pᵀt).

    Args:
        hidden: the inputs of the last layer, shape (*, d).
        weight: W, the weights of the last layer, shape (vocabulary, d); they may be the table of embeddings.
        targets: shape (*).
        ignore_index: the target of positions that do not count.

    Raises:
        RuntimeError: a third derivative is taken.
    """
    y = targets.flatten()
    used = y != ignore_index
    rows = hidden.reshape(-1, hidden.shape[-1])
    total: Tensor = _Loss.apply(rows, weight, y.where(used, 0), used.to(hidden.dtype))  # type: ignore[no-untyped-call] # torch's
    return total


class _Loss(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, y: Tensor, used: Tensor) -> Tensor:
        ctx.save_for_backward(x, w, y, used)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for part in _parts(x, w):
            z = x[part] @ w.T
            costs = z.logsumexp(1) - z.gather(1, y[part, None]).squeeze(1)
            total += (costs * used[part]).sum(dtype=torch.float64)
        return total.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx, dw = _Gradient.apply(*ctx.saved_tensors, scale)  # type: ignore[no-untyped-call] # torch's
        return dx, dw, None, None


class _Gradient(Function):
    """Gₓ = s G W and G_w = s GᵀX, with G = p - 1_target at the positions that count, 0 at others."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, y: Tensor, used: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, w, y, used, scale)
        dx, dw = torch.empty_like(x), torch.zeros_like(w)
        for part in _parts(x, w):
            g = _slope(_shares(x[part], w), y[part]).mul_(used[part, None] * scale)
            torch.mm(g, w, out=dx[part])
            dw.addmm_(g.T, x[part])
        return dx, dw

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor]:
        """Return the derivatives of ⟨a, Gₓ⟩ + ⟨b, G_w⟩ = s ⟨G, t⟩, where t = a Wᵀ + X bᵀ."""
        if torch.is_grad_enabled():  # `once_differentiable` would take what is computed here for constants
            raise RuntimeError("linear_cross_entropy has two derivatives, and no third")
        x, w, y, used, scale = ctx.saved_tensors
        dx, dw = torch.empty_like(x), torch.zeros_like(w)
        d_scale = torch.zeros((), dtype=torch.float64, device=x.device)
        for part in _parts(x, w):
            counts = used[part, None] * scale
            p, t = _shares(x[part], w), torch.addmm(a[part] @ w.T, x[part], b.T)
            curved = (t - (p * t).sum(1, keepdim=True)).mul_(p).mul_(counts)
            g = _slope(p, y[part])
            d_scale += (t.mul_(g).sum(1) * used[part]).sum(dtype=torch.float64)
            g.mul_(counts)
            dx[part] = torch.addmm(curved @ w, g, b)
            dw.addmm_(curved.T, x[part]).addmm_(g.T, a[part])
        return dx, dw, None, None, d_scale.to(scale.dtype)


def _parts(x: Tensor, w: Tensor) -> Iterator[slice]:
    rows = max(1, LOGITS.get(x.device.type, LOGITS["cpu"]) // len(w))
    return (slice(first, first + rows) for first in range(0, len(x), rows))


def _shares(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x @ w.T, 1)


def _slope(p: Tensor, y: Tensor) -> Tensor:
    """Return p - 1_target, in place."""
    return p.scatter_(1, y[:, None], p.gather(1, y[:, None]) - 1)

"""Matrices with a known spectrum, and five small models in float64 whose matrices are written out."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from landscape import Objective
from landscape.objective.derivatives import twice_differentiable


def rotated(values, dtype: torch.dtype = torch.float64) -> tuple[Tensor, NDArray[np.float64]]:
    """Return a symmetric matrix with these eigenvalues, and the eigenvectors, one a column."""
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values), len(values))))
    matrix = torch.from_numpy(q @ np.diag(values) @ q.T)
    return ((matrix + matrix.T) / 2).to(dtype), q


def with_spectrum(values, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a symmetric matrix with these eigenvalues."""
    return rotated(values, dtype)[0]


def signs(count: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the probes of a seed, one a row, drawn by other means."""
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(0, 2, n, dtype=np.int8) * 2.0 - 1 for _ in range(count)])


class Causal(nn.Module):
    """A one-layer causal transformer with fused attention, tied input and output rows."""

    def __init__(self, items: int = 5, dim: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items, dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.ffn = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=x.dtype)
        x = x + self.attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
        x = x + F.gelu(self.ffn(self.norm(x)))
        return x @ self.embedding.weight.T


class Square(torch.autograd.Function):
    """x² by a function of one's own, which forward mode cannot follow."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 2 * x * slope


def squares(z: Tensor, y: Tensor) -> Tensor:
    return (z - y).square().sum(-1) / 2


def logistic(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z.squeeze(-1), y, reduction="none")


def softmax(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, reduction="none")


def next_token(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y, reduction="none").sum(1)


def built(model: nn.Module, batches: list[tuple[Tensor, Tensor]], costs: Callable[..., Tensor]) -> Objective:
    """An objective whose units are examples; each has weight 1."""

    def criterion(z: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        return costs(z, batch[1]).sum(), len(batch[1])

    def by_unit(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        each = costs(model(batch[0]), batch[1])
        return each, torch.ones_like(each)

    return Objective(
        model,
        batches,
        lambda model, batch: criterion(model(batch[0]), batch),
        per_example=by_unit,
        forward=lambda model, batch: model(batch[0]),
        criterion=criterion,
    )


def _linear_regression() -> Objective:
    data = [(torch.randn(n, 4), torch.randn(n, 2)) for n in (5, 9)]
    return built(nn.Linear(4, 2), data, squares)


def _logistic_regression() -> Objective:
    data = [(torch.randn(n, 6), (torch.rand(n) > 0.4).double()) for n in (7, 12)]
    return built(nn.Linear(6, 1), data, logistic)


def _mlp() -> Objective:
    data = [(torch.randn(n, 3), torch.randint(3, (n,))) for n in (6, 10)]
    return built(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)), data, softmax)


def _convolution() -> Objective:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3))
    model(torch.randn(20, 1, 4, 4))  # gives the running statistics something to hold
    data = [(torch.randn(n, 1, 4, 4), torch.randint(3, (n,))) for n in (4, 7)]
    return built(model, data, softmax)


def _transformer() -> Objective:
    data = [(torch.randint(5, (n, 4)), torch.randint(5, (n, 4))) for n in (3, 5)]
    return built(Causal(), data, next_token)


WORLDS: dict[str, Callable[[], Objective]] = {
    "linear regression": _linear_regression,
    "logistic regression": _logistic_regression,
    "MLP": _mlp,
    "convolution": _convolution,
    "causal transformer": _transformer,
}


@cache
def world(name: str) -> Objective:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        return WORLDS[name]()
    finally:
        torch.set_default_dtype(before)


@twice_differentiable
def jacobian(objective: Objective, part: str) -> tuple[Tensor, Tensor]:
    """Return all units' costs or outputs, flat, and their Jacobian by θ: shapes (m,) and (m, n)."""

    def of(theta: Tensor) -> Tensor:
        weights = {f"model.{name}": t for name, t in objective.params.split(theta).items()}
        bound = objective._bound
        found = [functional_call(bound, weights, (batch, part)) for batch in objective.batches]
        return torch.cat([(f[0] if part == "per_example" else f).flatten() for f in found])

    return of(objective.theta), jacrev(of)(objective.theta)


@twice_differentiable
def dense(objective: Objective, matrix: str) -> Tensor:
    """Write a matrix out, from its definition."""

    def mean_loss(theta: Tensor) -> Tensor:
        weights = {f"model.{name}": t for name, t in objective.params.split(theta).items()}
        sums = [functional_call(objective._bound, weights, (batch,))[0] for batch in objective.batches]
        return torch.stack(sums).sum() / objective.weight

    if matrix == "hessian":
        # Not torch.func's jacrev(jacrev), which torch 2.13 has wrong in the weight of a LayerNorm.
        return torch.autograd.functional.hessian(mean_loss, objective.theta)
    if matrix == "fisher":
        _, rows = jacobian(objective, "per_example")
        return (rows.T @ rows / objective.weight).detach()
    z, rows = jacobian(objective, "outputs")
    sizes = [functional_call(objective._bound, {}, (batch, "outputs")).shape for batch in objective.batches]

    def cost(outputs: Tensor) -> Tensor:
        parts = torch.split(outputs, [size.numel() for size in sizes])
        return torch.stack(
            [
                objective.criterion(part.view(size), batch)
                for part, size, batch in zip(parts, sizes, objective.batches, strict=True)
            ]
        ).sum()

    curved = torch.autograd.functional.hessian(cost, z.detach())
    return (rows.T @ curved @ rows / objective.weight).detach()

"""Small random networks of the usual layers, with right second derivatives and, on request, wrong ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class Once(torch.autograd.Function):
    """z³, with a backward pass that torch refuses to differentiate."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 3 * slope * ctx.saved_tensors[0] ** 2


class Attentive(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(2 * width, 2, 3 * width, dropout=0.1, batch_first=True)
        self.embed, self.out = nn.Embedding(9, 2 * width, padding_idx=0), nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        ids = x.abs().mul(3).long().clamp(max=8).flatten(1)
        ids[:, 0] = 1  # a row that sees nothing is NaN
        return self.out(self.inner(self.embed(ids), src_key_padding_mask=ids == 0).mean(1))


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.out = nn.GRU(6, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x.flatten(1, 2))[0][:, -1])


class RightNorm(nn.Linear):
    """`weight_norm` written out, which torch differentiates rightly."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside)
        self.length = nn.Parameter(self.weight.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.length * self.weight / self.weight.norm(dim=1, keepdim=True), self.bias)


def mlp(width: int, *between: nn.Module, first: Callable[..., nn.Module] = nn.Linear) -> nn.Module:
    return nn.Sequential(nn.Flatten(), first(36, width), *between, nn.Linear(width, 3))


def pooled(width: int) -> nn.Module:
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 3))
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.MaxPool2d(2), head)


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda width: mlp(width, nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
    "gelu": lambda width: mlp(width, nn.GELU()),
    "max-pooling": pooled,
    "batch norm": lambda width: mlp(width, nn.BatchNorm1d(width), nn.ReLU()),
    "layer norm": lambda width: mlp(width, nn.LayerNorm(width), nn.Tanh()),
    "attention": Attentive,
    "gru": Recurrent,
    "weight norm, right": lambda width: mlp(width, nn.ReLU(), first=RightNorm),
}
WRONG: dict[str, Callable[[int], nn.Module]] = {
    "first layer": lambda width: mlp(width, nn.Tanh(), first=lambda *size: weight_norm(nn.Linear(*size))),
    "a small one in a larger net": lambda width: mlp(
        4 * width, nn.ReLU(), weight_norm(nn.Linear(4 * width, 4)), nn.GELU(), nn.Linear(4, 4 * width)
    ),
}
"""Torch 2.13 has the second derivative of `weight_norm` wrong on CPUs."""


def network(make: Callable[[int], nn.Module], seed: int, dtype: torch.dtype) -> tuple[nn.Module, list]:
    """Return a network of a random width, trained for a random while, and two batches of pairs."""
    torch.manual_seed(seed)
    model = make(int(torch.randint(2, 9, ()))).to(dtype)
    data = [(torch.randn(n, 1, 6, 6).to(dtype), torch.randint(3, (n,))) for n in (20, 11)]
    if seed % 3 == 0:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "bias" in name:
                    p.zero_()  # as many start: kinks where inputs are 0
        data[0][0][:, :, :3] = 0
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(seed % 4 * 10):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    return model.eval(), data

"""Models that people know, in plain torch and with random weights, so that nothing is downloaded.

Only torch is imported, so that the peers' environment builds the same ones: equal seeds and versions of torch
give equal weights and batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


class Residual(nn.Module):
    """Two convolutions and what passes them by (He et al. 2016)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = _conv(width, out, 3, stride), _conv(out, out, 3, 1)
        self.past = _conv(width, out, 1, stride) if stride > 1 or width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.past(x))


def _conv(width: int, out: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))


def resnet(widths: list[int], depth: int) -> nn.Module:
    """Return a ResNet for images of 32 by 32."""
    layers: list[nn.Module] = [_conv(3, widths[0], 3, 1), nn.ReLU()]
    for before, width in zip([widths[0], *widths], widths, strict=False):
        layers += [Residual(before, width, 2 if width > before else 1)]
        layers += [Residual(width, width, 1) for _ in range(depth - 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


class Attending(nn.Module):
    """A layer of a transformer, normalized before (GPT-2, ViT) or after (BERT, SASRec) each part."""

    def __init__(self, dim: int, heads: int, causal: bool, before: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.before = heads, causal, before
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        if self.before:
            x = x + self.attention(first(x))
            x = x + self.mlp(second(x))
        else:
            x = second((x := first(x + self.attention(x))) + self.mlp(x))
        return x

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output


class Transformer(nn.Module):
    """Tokens or patches in; logits out, with tied weights for tokens."""

    def __init__(
        self, dim: int, depth: int, heads: int, length: int, tokens: int, causal: bool, before: bool
    ):
        super().__init__()
        self.tokens = tokens
        self.enter = nn.Embedding(tokens, dim) if tokens else nn.Conv2d(3, dim, 4, 4)
        self.place = nn.Parameter(0.02 * torch.randn(length, dim))
        self.layers = nn.Sequential(*(Attending(dim, heads, causal, before) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        if tokens:
            nn.init.normal_(self.enter.weight, std=0.02)
        else:
            self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x) if self.tokens else self.enter(x).flatten(2).transpose(1, 2)
        x = self.norm(self.layers(x + self.place[: x.shape[1]]))
        return F.linear(x, self.enter.weight) if self.tokens else self.head(x.mean(1))


@dataclass(frozen=True)
class Known:
    """A model and the shape of one batch.

    Attributes:
        shape: of the batch; images if `tokens` is 0.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0

    def batch(self) -> Batch:
        """Return random inputs and targets."""
        if not self.tokens:
            return torch.randn(self.shape), torch.randint(10, self.shape[:1])
        return torch.randint(self.tokens, self.shape), torch.randint(self.tokens, self.shape)


def _sequence(dim: int, depth: int, heads: int, tokens: int, shape: tuple[int, int], kind: str) -> Known:
    causal, before = kind != "bert", kind == "gpt"
    return Known(partial(Transformer, dim, depth, heads, shape[1], tokens, causal, before), shape, tokens)


MODELS: Mapping[str, Known] = {
    "ResNet-20": Known(partial(resnet, [16, 32, 64], 3), (4, 3, 32, 32)),
    "GPT, 5 M": _sequence(256, 6, 8, 2000, (1, 64), "gpt"),
    "SASRec": _sequence(64, 2, 2, 12101, (64, 50), "sasrec"),
    "ResNet-18": Known(partial(resnet, [64, 128, 256, 512], 2), (8, 3, 32, 32)),
    "ViT-S": Known(partial(Transformer, 384, 12, 6, 64, 0, False, True), (8, 3, 32, 32)),
    "BERT base": _sequence(768, 12, 12, 30522, (1, 64), "bert"),
    "GPT-2 small": _sequence(768, 12, 12, 50257, (1, 16), "gpt"),
}


def drawn(name: str) -> tuple[nn.Module, Batch, list[Tensor]]:
    """Return a model, its batch, and a vector, one tensor per parameter: the same in every process."""
    torch.manual_seed(0)
    model, batch = MODELS[name].build().eval(), MODELS[name].batch()
    return model, batch, [torch.randn_like(p) for p in model.parameters()]


def cross_entropy(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy, a mean over all targets or their sum."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction=reduction)


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed cross-entropy, and the number of targets."""
    return cross_entropy(model(batch[0]), batch[1], "sum"), batch[1].numel()

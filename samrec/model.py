"""SASRec: a causal Transformer over item histories (Kang & McAuley, ICDM 2018, arXiv 1808.09781)."""

from abc import ABC, abstractmethod
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samrec.architecture import PRESETS, Architecture
from samrec.data.packing import Packed
from samrec.features import FeaturedEmbedding
from samrec.sharding import ShardedEmbedding

ItemTable = nn.Embedding | ShardedEmbedding | FeaturedEmbedding


class Draws:
    """Random 16-bit numbers for the dropout of one pass, dealt out layer by layer.

    Each row of the batch has its own, so rows that are added to a batch change nothing in the others.
    Drawn outside of the model, one set can serve both passes of SAM, and a captured graph.

    Args:
        bits: int16, shape (rows, `SASRec.draws(width)`), uniform.
    """

    def __init__(self, bits: Tensor) -> None:
        self.bits = bits
        self.dealt = 0

    @staticmethod
    def fresh(
        rows: int, count: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw `count` numbers per row, four to a 64-bit word. A float each took 42% of a training step."""
        words = torch.empty(rows, -(-count // 4), dtype=torch.int64, device=device)
        return words.random_(-(2**63), None, generator=generator).view(torch.int16)

    def take(self, shape: torch.Size) -> Tensor:
        """Deal the next numbers, as a tensor of `shape`, whose first axis is the rows'."""
        first, self.dealt = self.dealt, self.dealt + prod(shape[1:])
        return self.bits[:, first : self.dealt].view(-1, *shape[1:])


class Dropout(nn.Module):
    """Dropout by given random numbers; without any, nothing is dropped.

    The probability is rounded to a multiple of 2^-16 below 1, and the scale is the exact inverse of what is
    kept.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold = min(round(p * 2**16), 2**16 - 1)  # of the 2^16 equally likely draws, these drop
        self.scale = 1 / (1 - self.threshold / 2**16)

    def forward(self, x: Tensor, draws: Draws | None) -> Tensor:
        if draws is None or self.threshold == 0:
            return x
        kept = draws.take(x.shape) >= self.threshold - 2**15
        exact = torch.promote_types(x.dtype, torch.float32)  # a number alone would be of the default dtype
        return x * (kept * torch.tensor(self.scale, dtype=exact))


def block_mask(segments: Tensor, causal: bool = True) -> Tensor:
    """Return what to add to attention scores, shape (rows, 1, width, width): 0 to see, -inf not to.

    A slot sees itself and what stands before it in its own history (and, unless `causal`, what comes after),
    nothing of a neighbour in the row. Empty slots see one another, which keeps their softmax finite; nothing
    reads them.
    """
    seen = segments[:, :, None] == segments[:, None, :]
    if causal:
        seen = seen & torch.ones(seen.shape[1:], dtype=torch.bool, device=segments.device).tril()
    return torch.where(seen, 0.0, -torch.inf).unsqueeze(1)


class Attention(nn.Module):
    """Multi-head self-attention, written out: dropout on the weights, and a second derivative anywhere."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor, draws: Draws | None) -> Tensor:
        """Mix `context` (keys and values) for each of `queries`, both of shape (rows, width, d)."""
        rows, width, dim = queries.shape
        if queries is context:
            projected = self.qkv(context)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q, kv = F.linear(queries, weight[:dim], bias[:dim]), F.linear(context, weight[dim:], bias[dim:])
            projected = torch.cat([q, kv], -1)
        q, k, v = projected.view(rows, width, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (dim // self.heads) ** -0.5) @ k.transpose(-1, -2) + mask
        mixed = self.dropout(scores.softmax(-1), draws).to(v.dtype) @ v
        output: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, width, dim))
        return output


class FeedForward(nn.Module):
    """The point-wise layer: d to expansion · d, activation, back to d."""

    def __init__(self, dim: int, dropout: float, architecture: Architecture) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, architecture.expansion * dim)
        self.outer = nn.Linear(architecture.expansion * dim, dim)
        self.activation = F.gelu if architecture.activation == "gelu" else F.relu
        self.inner_dropout = Dropout(0 if architecture.residual_dropout else dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, draws: Draws | None) -> Tensor:
        inner = self.inner_dropout(self.activation(self.inner(x)), draws)
        output: Tensor = self.dropout(self.outer(inner), draws)
        return output


class Block(nn.Module):
    """One Transformer layer."""

    def __init__(self, dim: int, heads: int, dropout: float, architecture: Architecture) -> None:
        super().__init__()
        self.norm = architecture.norm
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.dropout = Dropout(dropout if architecture.residual_dropout else 0)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, dropout, architecture)

    def forward(self, x: Tensor, mask: Tensor, draws: Draws | None) -> Tensor:
        def attended(queries: Tensor, context: Tensor) -> Tensor:
            added: Tensor = self.dropout(self.attention(queries, context, mask, draws), draws)
            return added

        if self.norm == "post":
            x = self.attention_norm(x + attended(x, x))
            output: Tensor = self.ffn_norm(x + self.ffn(x, draws))
            return output
        normed = self.attention_norm(x)
        if self.norm == "original":
            x = self.ffn_norm(normed + attended(normed, x))
            output = x + self.ffn(x, draws)
        else:
            x = x + attended(normed, normed)
            output = x + self.ffn(self.ffn_norm(x), draws)
        return output


class Recommender(nn.Module, ABC):
    """What every model that ranks has: an item scores its embedding times what is expected next.

    Attributes:
        item: one row per item, and none for padding; both input embedding and output layer. Ranks may
            share it, and it may have features; `weight` are then the sums.
        max_length: the longest history seen, L.
        asks: the item number that stands after a history to ask what comes next (`samrec.data.packing.pack`);
            None where the last item itself does.
    """

    item: ItemTable
    max_length: int
    asks: int | None = None

    @abstractmethod
    def draws(self, width: int) -> int:
        """How many random numbers the dropout of one row takes."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def ends(self, histories: Packed) -> Tensor:
        """Return what is predicted after each history, in the space of the item table. (histories, d)."""
        found: Tensor = self(histories).flatten(0, 1)[histories.last]
        return found

    def embedded(self, items: Tensor) -> Tensor:
        """Look up what stands in histories: (…) -> (…, d)."""
        found: Tensor = self.item(items)
        return found

    def dealt(self, histories: Packed) -> Draws | None:
        """Return what dropout deals from: the histories' own numbers or fresh ones; None in evaluation."""
        if not self.training:
            return None
        if histories.bits is not None:
            return Draws(histories.bits)
        rows, width = histories.items.shape
        return Draws(Draws.fresh(rows, self.draws(width), histories.items.device))


class SASRec(Recommender):
    """Predicts the next item from a history; the item table is both input embedding and output layer.

    Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, section 3; see `PRESETS` for the
    variants that others published under the name.

    Args:
        num_items: number of rows of the item table. Padding has no row.
        dim: width d of the model.
        max_length: the longest history seen, L.
        layers, heads: Transformer layers, and attention heads per layer (dividing `dim`).
        dropout: dropout rate on the embedded input, attention weights, and what layers add: `Architecture`.
        architecture: one of `PRESETS`, or another.
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        max_length: int = 50,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        architecture: Architecture = PRESETS["sasrec"],
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.scale = dim**0.5 if architecture.scaled else 1.0
        self.post = architecture.norm == "post"
        self.from_end = architecture.positions == "end"
        self.item = nn.Embedding(num_items, dim)
        self.position = nn.Embedding(max_length, dim)
        self.norm = nn.LayerNorm(dim)  # of the input or of the output
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout, architecture) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if architecture.init == "normal":
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, histories: Packed, embedded: Tensor | None = None, causal: bool = True) -> Tensor:
        """Return what the model expects next at each slot, shape (rows, width, d).

        Args:
            histories: packed into rows, with the random numbers of dropout or without.
            embedded: `self.embedded(histories.items)`, if it has been looked up already.
            causal: a slot sees nothing that comes after it; what learns from masked items lets it.
        """
        draws = self.dealt(histories)
        items = self.embedded(histories.items) if embedded is None else embedded
        positions = histories.from_end(self.position.num_embeddings) if self.from_end else histories.positions
        x = items * self.scale + self.position(positions)
        x = self.dropout(self.norm(x) if self.post else x, draws)
        mask = block_mask(histories.segments, causal).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask, draws)
        output: Tensor = x if self.post else self.norm(x)
        return output

    def draws(self, width: int) -> int:
        dim, count = self.item.embedding_dim, 0
        sizes = {self.dropout: width * dim}
        for block in self.blocks:
            assert isinstance(block, Block)
            sizes[block.attention.dropout] = block.attention.heads * width**2
            sizes[block.ffn.inner_dropout] = width * block.ffn.inner.out_features
            sizes |= dict.fromkeys((block.dropout, block.ffn.dropout), width * dim)
        for dropout, size in sizes.items():
            count += size if dropout.threshold else 0
        return count

"""S3Rec's pre-training (Zhou et al., CIKM 2020, arXiv 2008.07873); fine-tuning is SASRec's training.

The encoder sees both sides of a slot, and is asked four things: which attributes an item has, which item is
hidden, which attributes the hidden item has, and which of two segments was cut out of a history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import InputError
from samrec.data.attributes import Attributes
from samrec.data.interactions import Ints
from samrec.data.packing import Batch, Packed, in_numpy
from samrec.data.ragged import Ragged, slices
from samrec.data.split import Split
from samrec.methods.learner import Learner
from samrec.methods.masking import MaskedBatches, MaskToken
from samrec.model import SASRec

PIECES = 3
"""Pieces per history: the rest with the segment masked, the segment, and one of another history."""


@dataclass(frozen=True)
class Weights:
    """What each objective counts."""

    associated_attribute: float
    masked_item: float
    masked_attribute: float
    segment: float


@dataclass(frozen=True, eq=False)
class PretrainingBatch(Batch):
    """Histories with items hidden, and the same histories in pieces.

    The fields of a training batch, but that `targets` are the items at the slots themselves, hidden or not.

    Attributes:
        pieces: packed into rows of their own; of history k, the one with a segment hidden (3k), that segment
            (3k + 1), and as many items from somewhere else (3k + 2), at the positions of the segment.
    """

    pieces: Packed

    def padded(self, rows: int, histories: int) -> Self:
        padded = super().padded(rows, histories)
        return replace(padded, pieces=self.pieces.padded(2 * rows, PIECES * histories))


class PretrainingBatches(MaskedBatches):
    """The training parts of a split, packed for pre-training: the last `max_length` items of each.

    Args:
        mask: the probability that an item is hidden; the last of a history always is, as it is the one that
            recommending asks for.
    """

    def __init__(self, split: Split, max_length: int, device: torch.device, mask: float) -> None:
        super().__init__(split, max_length, device, negatives=1)
        self.mask = mask
        self.elsewhere = split.training.values

    def batch(self, users: Ints, generator: torch.Generator) -> PretrainingBatch:
        rng = in_numpy(generator)
        histories, last = self.histories(users)
        masked = self.masked(users, histories, (rng.random(len(last)) < self.mask) | last, generator)
        used = (masked.inputs.segments > 0).float()
        pieces, first = in_pieces(histories, self.elsewhere, self.split.num_items, rng)
        packed, slots, source = self.packed(pieces)
        packed.positions.view(-1)[slots] += torch.from_numpy(first[pieces.owner]).to(slots.device)[source]
        ends = torch.from_numpy(np.repeat(histories.lengths - 1, PIECES)).to(slots.device)
        return PretrainingBatch(
            masked.inputs, masked.targets, masked.negatives, used, replace(packed, ends=ends)
        )


def in_pieces(
    histories: Ragged, elsewhere: Ints, token: int, rng: np.random.Generator
) -> tuple[Ragged, Ints]:
    """Cut a segment of 1 item to half of the items out of each history; return its `PIECES` and their places.

    Args:
        elsewhere: items, one history after another, to take the other segments from.

    Returns:
        The pieces as `PretrainingBatch.pieces` orders them, and the position of each one's first item.
    """
    lengths = 1 + rng.integers(np.maximum(1, histories.lengths // 2))
    first = rng.integers(histories.lengths - lengths + 1)
    cut = histories.inside(first, lengths)
    rest = Ragged(np.where(cut, token, histories.values), histories.lengths)
    other = slices(elsewhere, rng.integers(len(elsewhere) - lengths + 1), lengths)
    order = np.arange(PIECES * len(histories)).reshape(PIECES, -1).T.flatten()
    pieces = Ragged.chained([rest, histories.spans(first, lengths), other]).take(order)
    return pieces, np.stack([np.zeros_like(first), first, first], 1).flatten()


class Pretraining(Learner):
    """What S3Rec trains before it recommends: the encoder, by the four objectives, each of a bilinear form.

    As in the authors' code, attributes are asked of the encoder's output, where the paper asks the item's
    embedding, and losses are sums over slots and attributes, which makes that of many attributes heavy.

    Args:
        attributes: attributes of the items; None leaves out the two objectives that need them.
        weights: what each objective counts.
    """

    def __init__(self, model: SASRec, attributes: Attributes | None, weights: Weights) -> None:
        super().__init__(model)
        dim = model.item.embedding_dim
        self.weights = weights
        self.token = MaskToken(dim)
        self.of_item = nn.Linear(dim, dim)
        self.of_segment = nn.Linear(dim, dim)
        self.attributes = AttributeHead(dim, attributes) if attributes else None
        self.parts = ("masked item", "segment")
        if attributes:
            self.parts += ("associated attribute", "masked attribute")
        _begin(self.of_item, self.of_segment)

    def forward(self, batch: PretrainingBatch) -> Tensor:
        table, token = self.model.item, self.model.item.num_embeddings
        output = self._encoded(batch.inputs)
        hidden = (batch.inputs.items == token) * batch.used
        # at all slots, since few are empty: shapes are then fixed
        chosen = table(torch.stack([batch.targets, batch.negatives[0]]))
        right, wrong = (self.of_item(output) * chosen).sum(-1)
        item = (F.softplus(wrong - right) * hidden).sum()

        ends = (
            self._encoded(batch.pieces).flatten(0, 1)[batch.pieces.last].view(-1, PIECES, table.embedding_dim)
        )
        rest, pieces = self.of_segment(ends[:, :1]), ends[:, 1:]
        right, wrong = (rest * pieces).sum(-1).unbind(1)
        real = torch.arange(len(ends), device=ends.device) < batch.pieces.segments.amax() / PIECES
        segment = torch.where(real, F.softplus(wrong - right), 0.0).sum()

        parts = [self.weights.masked_item * item, self.weights.segment * segment]
        if self.attributes:
            costs = self.attributes(output, hidden.bool(), batch.targets)
            seen = (costs * (batch.used - hidden)).sum()
            parts += [
                self.weights.associated_attribute * seen,
                self.weights.masked_attribute * (costs * hidden).sum(),
            ]
        return torch.stack(parts)

    def _encoded(self, histories: Packed) -> Tensor:
        embedded = self.token(self.model.item, histories.items)
        output: Tensor = self.model(histories, embedded, causal=False)
        return output


class AttributeHead(nn.Module):
    """Asks what attributes an item has, by an embedding of each and how common it is.

    Each attribute's score has a bias, unlike the paper's. It begins at the log-odds of an item having
    the attribute. From even odds the first epoch would do nothing but lower hundreds of scores, by an output
    that is the same for all items, and the encoder be caught there: on Beauty the loss of attributes seen
    was then 2.22 per slot after 15 epochs, and is 0.60 after 8.
    """

    of_item: Tensor

    def __init__(self, dim: int, attributes: Attributes) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(attributes.count, dim))
        self.bias = nn.Parameter(torch.from_numpy(attributes.log_odds).to(self.embedding.dtype))
        self.seen, self.hidden = nn.Linear(dim, dim), nn.Linear(dim, dim)
        _begin(self.seen, self.hidden)
        self.register_buffer("of_item", torch.from_numpy(attributes.of_item))

    def forward(self, output: Tensor, hidden: Tensor, items: Tensor) -> Tensor:
        """Return the binary cross-entropy over all attributes at each slot, shape (rows, width).

        Args:
            output: what the encoder makes of each slot, shape (rows, width, d).
            hidden: whether the slot's item is hidden, which is asked by a form of its own.
            items: the true items.
        """
        asked = torch.where(hidden[..., None], self.hidden(output), self.seen(output))
        scores = F.linear(asked, self.embedding, self.bias)
        own = self.of_item[items]
        # Σ softplus(s) over all, less s of those that it has: -log σ(s) = softplus(s) - s
        has = scores.gather(-1, own.clamp(min=0)) * (own >= 0)
        return F.softplus(scores).sum(-1) - has.sum(-1)


OF_ITEM = "attributes.of_item"
"""The name under which a pre-training's checkpoint holds which attributes each item has."""


def keeping_attributes(learner: Learner, extra: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return what a checkpoint holds beside its model, if the learner's attributes are those of its training.

    Older checkpoints do not hold them; they get the learner's.

    Raises:
        InputError: it was trained with other attributes, or only one of the two has any.
    """
    own = learner.state_dict()
    now, then = own.get(OF_ITEM), extra.get(OF_ITEM)
    had = any(name.startswith("attributes.") for name in extra)
    if had != (now is not None) or (now is not None and then is not None and not torch.equal(now, then)):
        what = "with other attributes" if had else "without attributes"
        raise InputError(f"{source} was trained {what}; give --attributes as in its training")
    return {OF_ITEM: now, **extra} if now is not None else dict(extra)


def _begin(*forms: nn.Linear) -> None:
    """Start bilinear forms as the encoder's own weights start."""
    for form in forms:
        nn.init.normal_(form.weight, std=0.02)
        nn.init.zeros_(form.bias)

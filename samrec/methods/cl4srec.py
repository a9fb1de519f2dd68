"""CL4SRec: SASRec with a contrastive loss on two views of each history (Xie et al., ICDE 2022).

arXiv 2010.14395. Two different ones of three operators are drawn for each history, one per view. What the
encoder makes of both is to be told from what it makes of all other views in the batch.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from samrec.data.interactions import Ints
from samrec.data.packing import Batch, Packed, TrainingBatches, in_numpy
from samrec.data.ragged import Ragged, slices
from samrec.data.split import Split
from samrec.losses import Loss
from samrec.methods.learner import NextItem
from samrec.methods.masking import MaskToken, drawn
from samrec.model import Recommender


def crop(histories: Ragged, ratio: float, rng: np.random.Generator) -> Ragged:
    """Keep ⌊ratio · n⌋ items of n that stand side by side, at least one: item crop."""
    kept = np.maximum(1, portion(histories.lengths, ratio))
    return histories.spans(rng.integers(histories.lengths - kept + 1), kept)


def mask(histories: Ragged, ratio: float, token: int, rng: np.random.Generator) -> Ragged:
    """Hide ⌊ratio · n⌋ items of n behind the token: item mask."""
    hidden = drawn(histories, portion(histories.lengths, ratio), rng)
    return Ragged(np.where(hidden, token, histories.values), histories.lengths)


def reorder(histories: Ragged, ratio: float, rng: np.random.Generator) -> Ragged:
    """Shuffle ⌊ratio · n⌋ items of n that stand side by side: item reorder."""
    count = portion(histories.lengths, ratio)
    first = rng.integers(histories.lengths - count + 1)
    moves = np.flatnonzero(histories.inside(first, count))
    order = np.lexsort([rng.random(len(moves)), histories.owner[moves]])
    values = histories.values.copy()
    values[moves] = values[moves[order]]
    return Ragged(values, histories.lengths)


def portion(lengths: Ints, ratio: float) -> Ints:
    """Return ⌊ratio · length⌋, where 0.7 · 10 is 7 whatever the rounding."""
    whole: Ints = np.floor(ratio * lengths + 1e-9).astype(np.int64)
    return whole


@dataclass(frozen=True)
class Augmentation:
    """The share of a history that each operator keeps, hides or shuffles."""

    crop: float
    mask: float
    reorder: float

    def views(self, histories: Ragged, token: int, rng: np.random.Generator) -> Ragged:
        """Return two views of each history, 2k and 2k + 1 of history k, by two different operators."""
        drawn = rng.integers(3, size=len(histories))
        other = (drawn + rng.integers(1, 3, size=len(histories))) % 3
        operator = np.stack([drawn, other], 1).flatten()
        chosen = [np.flatnonzero(operator == number) for number in range(3)]
        cropped, hidden, shuffled = (histories.take(views // 2) for views in chosen)
        views = Ragged.chained(
            [
                crop(cropped, self.crop, rng),
                mask(hidden, self.mask, token, rng),
                reorder(shuffled, self.reorder, rng),
            ]
        )
        return views.take(np.argsort(np.concatenate(chosen)))


@dataclass(frozen=True, eq=False)
class ContrastiveBatch(Batch):
    """A training batch, and two views of each of its histories.

    Attributes:
        views: packed into rows of their own; history k has the views 2k and 2k + 1.
    """

    views: Packed

    def padded(self, rows: int, histories: int) -> Self:
        padded = super().padded(rows, histories)
        return replace(padded, views=self.views.padded(2 * rows, 2 * histories))


class ContrastiveBatches(TrainingBatches):
    """Training batches with views of the inputs, drawn anew in each epoch."""

    def __init__(
        self, split: Split, max_length: int, device: torch.device, negatives: int, augmentation: Augmentation
    ) -> None:
        super().__init__(split, max_length, device, negatives)
        self.augmentation = augmentation

    def batch(self, users: Ints, generator: torch.Generator) -> ContrastiveBatch:
        plain = super().batch(users, generator)
        rng = in_numpy(generator)
        histories = slices(self.split.train_items, *self.inputs(users))
        views = self.augmentation.views(histories, self.split.num_items, rng)
        packed, _, _ = self.packed(views)
        return ContrastiveBatch(plain.inputs, plain.targets, plain.negatives, plain.used, packed)


class CL4SRec(NextItem):
    """SASRec with a contrastive loss added to its own.

    Args:
        weight: λ, the weight of the contrastive loss; that of the recommendation loss is 1.
        temperature: what similarities, dot products, are divided by.
    """

    def __init__(self, model: Recommender, criterion: Loss, weight: float, temperature: float) -> None:
        super().__init__(model, criterion)
        self.parts = ("recommendation", "contrast")
        self.token = MaskToken(model.item.embedding_dim)
        self.weight = weight
        self.temperature = temperature

    def forward(self, batch: ContrastiveBatch) -> Tensor:  # type: ignore[override]  # a learner sees batches of its own kind
        views = batch.views
        embedded = self.token(self.model.item, views.items)
        ends = self.model(views, embedded).flatten(0, 1)[views.last]
        contrast = info_nce(ends / self.temperature, ends, views.segments.amax())
        return torch.cat([super().forward(batch), self.weight * batch.used.sum() * contrast[None]])


def info_nce(queries: Tensor, keys: Tensor, count: Tensor) -> Tensor:
    """Return the mean of -log softmax of each view's other view among the other 2N - 1: InfoNCE.

    Args:
        queries, keys: what was made of the views, 2k and 2k + 1 those of one history. Shape (2N or more, d).
        count: 2N; what stands after that is padding.
    """
    place = torch.arange(len(queries), device=queries.device)
    left_out = (place[:, None] == place) | (place >= count)  # a view itself, and padding
    scores = (queries @ keys.T).masked_fill(left_out, -torch.inf)
    losses = F.cross_entropy(scores, place ^ 1, reduction="none")
    return torch.where(place < count, losses, 0.0).sum() / count

"""Item features: embeddings of attributes, added to those of the items (LightFM, arXiv 1507.08439)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import InputError
from samrec.data.attributes import attributes_of
from samrec.data.interactions import Interactions

OF_ITEM = "item.of_item"
"""The name under which a recommender's weights hold which attributes each item has."""


class FeaturedEmbedding(nn.Module):
    """An item table of own_i + Σ_a feature_a, over the attributes a of item i: both input and output layer.

    A row is added up attribute by attribute, so it is the same to the last bit wherever it is looked up.

    Args:
        own: the items' own embeddings.
        of_item: each item's attributes, from 0; -1 where there are no more. int64, shape (items, most).
    """

    of_item: Tensor

    def __init__(self, own: nn.Embedding, of_item: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = own.num_embeddings, own.embedding_dim
        self.own = own
        self.features = nn.Embedding(int(of_item.max()) + 1, own.embedding_dim)
        nn.init.normal_(self.features.weight, std=0.02)
        self.register_buffer("of_item", of_item)

    def forward(self, items: Tensor) -> Tensor:
        """Look up items of any shape. Shape (*items.shape, d)."""
        found: Tensor = self.own(items)
        table = F.pad(self.features.weight, (0, 0, 1, 0))  # a row of zeros for no attribute
        for attribute in (self.of_item[items] + 1).unbind(-1):
            found = found + F.embedding(attribute, table)
        return found

    @property
    def weight(self) -> Tensor:
        """The vectors of all items, computed anew. Shape (items, d)."""
        found: Tensor = self(torch.arange(self.num_embeddings, device=self.own.weight.device))
        return found


def read_features(path: Path, interactions: Interactions) -> Tensor:
    """Read which attributes each item has, as `FeaturedEmbedding` takes it; warn of items not in the data.

    Raises:
        InputError: as `attributes_of`.
    """
    return torch.from_numpy(attributes_of(path, interactions).of_item)


def kept_features(weights: Mapping[str, Tensor], num_items: int) -> Tensor | None:
    """Return the attributes that a checkpoint's weights hold; None of a model without features.

    Raises:
        InputError: they are not attributes of `num_items` items.
    """
    of_item = weights.get(OF_ITEM)
    if of_item is None:
        return None
    fits = of_item.dtype == torch.int64 and of_item.dim() == 2 and len(of_item) == num_items
    if not (fits and of_item.numel() and of_item.min() >= -1 and of_item.max() >= 0):
        raise InputError("the checkpoint's item features are not lists of attributes, one per item")
    return of_item


def check_features(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Make sure that weights to go on from are of a model with the same item features.

    Raises:
        InputError: they are not.
    """
    now, then = model.state_dict().get(OF_ITEM), weights.get(OF_ITEM)
    if now is None and then is None:
        return
    if now is None or then is None or not torch.equal(now, then):
        had = "without item features" if then is None else "with other item features"
        raise InputError(f"{source} was trained {had}; give --item-features as in its training")

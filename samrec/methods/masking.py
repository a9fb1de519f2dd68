"""The mask token, which stands for a hidden item, and batches with items hidden."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samrec.data.interactions import Ints
from samrec.data.packing import Batch, TrainingBatches
from samrec.data.ragged import Ragged, slices
from samrec.model import ItemTable


class MaskToken(nn.Module):
    """The embedding that stands for an item that is hidden; as an item it has the number after the last.

    It is not a row of the item table.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(nn.init.normal_(torch.empty(dim), std=0.02))

    def forward(self, table: ItemTable, items: Tensor) -> Tensor:
        """Look items up, hidden ones too: (…) -> (…, d).

        Args:
            table: the item table, of n rows.
            items: rows of it, and n where an item is hidden.
        """
        hidden = items == table.num_embeddings
        return torch.where(hidden[..., None], self.embedding, table(items * ~hidden))


def drawn(histories: Ragged, counts: Ints, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw `counts[k]` of the items of history k, without replacement; tell which. Shape (values,)."""
    order = np.lexsort([rng.random(len(histories.values)), histories.owner])
    chosen = np.zeros(len(order), bool)
    chosen[order[histories.within < counts[histories.owner]]] = True
    return chosen


class MaskedBatches(TrainingBatches):
    """Training parts with items hidden: the last `max_length` items of each, all of them inputs."""

    ahead = 0

    def histories(self, users: Ints) -> tuple[Ragged, NDArray[np.bool_]]:
        """Return the items of these users, and whether each is the last of its history."""
        found = slices(self.split.train_items, *self.inputs(users))
        return found, found.within == found.lengths[found.owner] - 1

    def masked(
        self, users: Ints, histories: Ragged, hidden: NDArray[np.bool_], generator: torch.Generator
    ) -> Batch:
        """Hide items of `histories`, and draw negatives: a batch whose targets are the items themselves.

        Each slot has its target, hidden or not; `used` are the hidden ones.
        """
        token, device = self.split.num_items, self.items.device
        given = Ragged(np.where(hidden, token, histories.values), histories.lengths)
        inputs, slots, source = self.packed(given)
        values = torch.from_numpy(histories.values).to(device)
        owner = torch.from_numpy(users[histories.owner]).to(device)
        negatives = self.negatives.draw(owner.expand(self.count, -1), generator)
        asked = torch.zeros(1 + self.count, inputs.items.numel(), dtype=torch.int64, device=device)
        asked[:, slots] = torch.cat([values[None], negatives])[:, source]
        asked = asked.view(-1, *inputs.items.shape)
        return Batch(inputs, asked[0], asked[1:], (inputs.items == token).float())

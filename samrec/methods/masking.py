"""The mask token, which stands for a hidden item. It is not a row of the item table."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskToken(nn.Module):
    """The embedding that stands for an item that is hidden; as an item it has the number after the last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(dim))

    def forward(self, table: Tensor, items: Tensor) -> Tensor:
        """Look items up, hidden ones too: (…) -> (…, d).

        Args:
            table: the item table, shape (n, d).
            items: rows of it, and n where an item is hidden.
        """
        hidden = items == len(table)
        return torch.where(hidden[..., None], self.embedding, F.embedding(items * ~hidden, table))

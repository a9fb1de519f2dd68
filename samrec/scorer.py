"""A model as a function of plain tensors, for programs that know nothing of samrec."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.storage.files import replacing
from samrec.data.packing import Packed
from samrec.model import Recommender
from samrec.scores import summands


class Scorer(nn.Module):
    """Scores all items after histories, each in a row of its own.

    Args:
        model: on any device; it is put into evaluation mode, and takes no gradients.
    """

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)

    def forward(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of all items, float64, shape (batch, items).

        Args:
            histories: rows of the item table in the order of time, then any rows up to `max_length`. int64,
                shape (batch, max_length).
            lengths: how many items each history has, 1 to `max_length`; for any other length, all scores are
                NaN. int64, shape (batch,).
        """
        given, lengths = lengths, lengths.clamp(1, self.model.max_length)
        asks = self.model.asks
        more = asks is not None
        histories = F.pad(histories, (0, more), value=asks)
        rows, width = histories.shape
        place = torch.arange(width, device=histories.device)
        number = torch.arange(rows, device=histories.device)
        ends = lengths[:, None]
        used = place < ends + more
        items = histories if asks is None else torch.where(place == ends, asks, histories)
        packed = Packed(
            items=torch.where(used, items, 0),
            positions=torch.where(used, place, 0),
            segments=torch.where(used, number[:, None] + 1, 0),
            last=number * width + lengths - 1 + more,
        )
        scores = summands(self.model.ends(packed)) @ summands(self.model.item.weight).T
        return torch.where((given == lengths)[:, None], scores, torch.nan)


def save_scorer(model: Recommender, path: Path) -> None:
    """Write a model's `Scorer` as a program that `torch.export.load` reads, for any number of histories.

    Raises:
        InputError: the file cannot be written.
    """
    example = torch.zeros(2, model.max_length, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    program = torch.export.export(Scorer(model), example, dynamic_shapes=({0: batch}, {0: batch}))
    with replacing(path) as temporary:
        torch.export.save(program, temporary)

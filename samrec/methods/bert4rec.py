"""BERT4Rec: an encoder that sees both sides, trained on masked items (Sun et al., CIKM 2019).

arXiv 1904.06690; the replication by Petrov & Macdonald (RecSys 2022, arXiv 2207.07483) shows how much its
ranking depends on long training. A mask token after the history asks what comes next.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from samrec.data.interactions import Ints
from samrec.data.packing import Batch, Packed, in_numpy
from samrec.data.split import Split
from samrec.methods.masking import MaskedBatches, MaskToken, drawn
from samrec.model import SASRec


class BERT4Rec(SASRec):
    """SASRec's encoder without its causal mask, and a token for what it is to tell.

    Positions are one more than `max_length`, so that it sees as many items as other methods do.

    Args:
        num_items, dim, max_length, settings: as for `SASRec`.
    """

    def __init__(self, num_items: int, dim: int = 64, max_length: int = 50, *settings: Any) -> None:
        super().__init__(num_items, dim, max_length + 1, *settings)
        self.max_length = max_length
        self.asks = num_items
        self.token = MaskToken(dim)

    def embedded(self, items: Tensor) -> Tensor:
        found: Tensor = self.token(self.item, items)
        return found

    def forward(self, histories: Packed, embedded: Tensor | None = None, causal: bool = False) -> Tensor:
        return super().forward(histories, embedded, causal)


class ClozeBatches(MaskedBatches):
    """Training batches with items hidden, drawn anew in each epoch.

    A history has `mask` of its items hidden, rounded, and at least one; or the last alone, as ranking asks.

    Args:
        max_length: that of the model. A batch has one item more, as one of `TrainingBatches` has its last
            target.
        mask: the share of hidden items.
        last: the probability that only the last item of a history is hidden.
    """

    def __init__(
        self, split: Split, max_length: int, device: torch.device, negatives: int, mask: float, last: float
    ) -> None:
        super().__init__(split, max_length + 1, device, negatives)
        self.mask, self.last = mask, last

    def batch(self, users: Ints, generator: torch.Generator) -> Batch:
        rng = in_numpy(generator)
        histories, last = self.histories(users)
        counts = np.maximum(1, np.rint(self.mask * histories.lengths).astype(np.int64))
        hidden = drawn(histories, counts, rng)
        last_alone = rng.random(len(histories)) < self.last
        return self.masked(users, histories, np.where(last_alone[histories.owner], last, hidden), generator)

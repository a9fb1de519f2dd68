"""Bags of embeddings whose gradients have derivatives."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bag(nn.EmbeddingBag):
    """The function of its base class, made of `F.embedding` and sums or maxima.

    Torch lacks the derivatives of the gradient of `F.embedding_bag`. The rows are held here, shape (bags,
    longest, d). What torch refuses goes to torch, which says why.
    """

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        laid_out, weights = self._laid_out(input, offsets), per_sample_weights
        refused = weights is not None and (self.mode != "sum" or weights.shape != input.shape)
        if laid_out is None or refused:
            return super().forward(input, offsets, per_sample_weights)
        places, used = laid_out
        ids = F.pad(input.flatten(), (0, 1))[places]
        if self.padding_idx is not None:
            used = used & (ids != self.padding_idx)
        rows, used = F.embedding(ids, self.weight), used[..., None]
        if weights is not None:
            rows = rows * F.pad(weights.flatten(), (0, 1))[places][..., None]
        if self.mode == "max":
            highest = rows.masked_fill(~used, -torch.inf).max(1).values
            return highest.where(used.any(1), 0)
        total = rows.where(used, 0).sum(1)
        return total / used.sum(1).clamp(min=1) if self.mode == "mean" else total

    def _laid_out(self, input: Tensor, offsets: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return where the ids of each bag lie, shape (bags, longest), and which of these places are its own.

        The others are one past the last id. None where torch has to tell what is wrong, or reads it its way.
        """
        if input.is_nested or not input.numel() or input.dim() != (2 if offsets is None else 1):
            return None
        if offsets is None:
            places = torch.arange(input.numel(), device=input.device).view(input.shape)
            return places, torch.ones_like(places, dtype=torch.bool)
        ends = offsets if self.include_last_offset else F.pad(offsets, (0, 1), value=len(input))
        starts, lengths = ends[:-1], ends.diff()
        if not len(starts) or starts[0] != 0 or ends[-1] > len(input) or (lengths < 0).any():
            return None
        steps = torch.arange(max(1, int(lengths.max())), device=input.device)
        used = steps < lengths[:, None]
        return (starts[:, None] + steps).where(used, len(input)), used

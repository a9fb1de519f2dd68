"""What training minimizes, as (sum, weight): batches of different sizes then average exactly."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from samrec.data.packing import Batch
from samrec.model import SASRec


def bce(model: SASRec, batch: Batch) -> tuple[Tensor, int]:
    """Binary cross-entropy with one negative a position (SASRec, eq. 7).

    Returns the sum over positions of -log σ(r_target) - log(1 - σ(r_negative)), and their number.
    """
    expected = model(batch.inputs).flatten(0, 1)[batch.inputs.flat]
    logits = model.logits(expected, torch.stack([batch.targets, batch.negatives]))
    return F.softplus(-logits[0]).sum() + F.softplus(logits[1]).sum(), batch.targets.numel()


def cross_entropy(model: SASRec, batch: Batch) -> tuple[Tensor, int]:
    """Cross-entropy over all items at every position: Σ log Σ_i exp(r_i) - r_target.

    Positions are taken in chunks of at most `CHUNK` scores, which a cache holds. Where a training batch
    has more than `KEPT` in all, they are not kept for the backward pass but computed again there, so
    that positions × items is never held at once.
    """
    expected = model(batch.inputs).flatten(0, 1)[batch.inputs.flat]
    table = model.item.weight
    size = max(1, CHUNK // len(table))
    recompute = model.training and len(expected) * len(table) > KEPT
    total = expected.new_zeros(())
    for chunk, targets in zip(torch.split(expected, size), torch.split(batch.targets, size), strict=True):
        if recompute:
            kept = checkpoint(_chunk, chunk, table, targets, use_reentrant=False, preserve_rng_state=False)
            total = total + kept
        else:
            total = total + _chunk(chunk, table, targets)
    return total, batch.targets.numel()


def _chunk(expected: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(expected @ table.T, targets, reduction="sum")


CHUNK = 2**20  # 4 MB in float32: of 2^18 to 2^24, the fastest on two cores
KEPT = 2**26  # 256 MB in float32

Loss = Callable[[SASRec, Batch], tuple[Tensor, int]]
LOSSES: Mapping[str, Loss] = {"bce": bce, "ce": cross_entropy}

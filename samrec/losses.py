"""What training minimizes, as (sum, weight): batches of different sizes then average exactly."""

import torch
from torch import Tensor
from torch.nn import functional as F

from samrec.data.packing import Batch
from samrec.model import SASRec


def bce(model: SASRec, batch: Batch) -> tuple[Tensor, int]:
    """Binary cross-entropy with one negative a position (SASRec, eq. 7).

    Returns the sum over positions of -log σ(r_target) - log(1 - σ(r_negative)), and their number.
    """
    expected = model(batch.inputs).flatten(0, 1)[batch.inputs.flat]
    logits = model.logits(expected, torch.stack([batch.targets, batch.negatives]))
    return F.softplus(-logits[0]).sum() + F.softplus(logits[1]).sum(), batch.targets.numel()

"""How the learning rate and SAM's radius change over a run."""

import math

from samrec.choices import Schedule


def share(schedule: Schedule, warmup: int, epochs: int, at: float) -> float:
    """Return which share of a value holds at epoch `at` (from 0, a fraction inside an epoch).

    It rises from 0 over `warmup` epochs; then it is constant, or falls to 0 at the end of `epochs`,
    linearly or as half a cosine (SGDR without restarts: Loshchilov & Hutter, ICLR 2017, eq. 5).
    """
    if at < warmup:
        return at / warmup
    left = 1 - (at - warmup) / max(epochs - warmup, 1)
    if schedule == "linear":
        return left
    return (1 - math.cos(math.pi * left)) / 2 if schedule == "cosine" else 1.0

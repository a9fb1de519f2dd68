"""How many scores exist at once, so that all rows × all items never do."""

import torch

SCORES = {"cpu": 2**20, "cuda": 2**27}
"""At once. In float32 4 MB, which a CPU's cache holds: of 2^18 to 2^24, the fastest on two cores; 512 MB on
any other device, which is bound by launches instead."""


def chunk_rows(length: int, device: torch.device) -> int:
    """Return how many rows of `length` scores to compute at once, at least one.

    A row is the scores of all items for a user, or those of an item for many users.
    """
    return max(1, SCORES.get(device.type, SCORES["cuda"]) // length)

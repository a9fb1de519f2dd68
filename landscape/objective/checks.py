"""What a loss must be, so that it can be measured: the same twice, finite, with a positive weight."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.errors import InputError


def total_weight(evaluate: Callable[[Any], Any], batches: Sequence[Any]) -> float:
    """Evaluate each batch twice, and return the sum of their weights.

    A loss that moves by itself would turn every measurement into noise.

    Args:
        evaluate: maps a batch to (sum of the loss, weight).

    Raises:
        InputError: a sum is not a finite scalar, or differs between the two; or a weight is not positive.
    """
    total = 0.0
    for index, batch in enumerate(batches):
        (first, weight), (second, _) = evaluate(batch), evaluate(batch)
        if not isinstance(first, Tensor) or first.numel() != 1:
            raise InputError("the loss must return (sum, weight), the sum a scalar tensor")
        if not torch.isfinite(first):
            raise InputError(f"the loss is {first.item():g} on batch {index}; nothing can be measured there")
        if first.item() != second.item():
            raise InputError(
                f"the loss differs between two evaluations of batch {index} "
                f"({first.item()!r}, then {second.item()!r}); it must not draw random numbers"
            )
        if not float(weight) > 0:
            raise InputError(f"the weight of batch {index} is {weight}; it must be positive")
        total += float(weight)
    return total

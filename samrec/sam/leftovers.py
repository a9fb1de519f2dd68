"""Gradients that were there before a closure ran: its second pass, elsewhere, would not see them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from samrec.sam.vectors import entries

MARK = "_version_after_sams_step"


def mark(parameters: Iterable[Tensor]) -> None:
    """Remember that these gradients have served their step."""
    for p in parameters:
        if p.grad is not None and not p.grad.is_inference():
            setattr(p.grad, MARK, p.grad._version)


class Leftovers:
    """What a backward pass since the last step has left in the gradients: nothing, in most loops."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        changed = (
            (p, p.grad)
            for p in parameters
            if p.grad is not None
            and not p.grad.is_inference()
            and getattr(p.grad, MARK, None) != p.grad._version
        )
        self._found = [
            (p, gradient, gradient.clone()) for p, gradient in changed if bool(entries(gradient).any())
        ]

    def __bool__(self) -> bool:
        return bool(self._found)

    def mixed(self) -> bool:
        """Whether they are in the present gradients, and stand for other data than a second pass would see.

        A loop that calls backward for the whole batch and then a closure that does the same has twice its
        gradient, whose direction is right.
        """
        return any(
            p.grad is gradient and not torch.allclose(entries(gradient), 2 * entries(before), rtol=1e-3)
            for p, gradient, before in self._found
        )

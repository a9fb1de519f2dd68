"""Gradients that were there before a closure ran: its second pass, elsewhere, would not see them."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from samrec.sam import vectors

MARK = "_version_after_sams_step"


def mark(parameters: Iterable[Tensor]) -> None:
    """Remember that these gradients have served their step."""
    gradient = _first(parameters)
    if gradient is not None:
        setattr(gradient, MARK, gradient._version)


class Leftovers:
    """What a backward pass since the last step has left in the gradients: nothing, in most loops.

    Whether there was one is asked of one gradient alone, since each step asks.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        first = _first(parameters)
        changed = first is not None and getattr(first, MARK, None) != first._version
        gradients = vectors.gradients(parameters) if changed else {}
        self._found = [(p, g, g.clone()) for p, g in gradients.items() if bool(vectors.entries(g).any())]

    def __bool__(self) -> bool:
        return bool(self._found)

    def untouched(self) -> bool:
        """Whether the present gradients are they, and nothing else."""
        return all(
            p.grad is gradient and torch.equal(gradient, before) for p, gradient, before in self._found
        )

    def mixed(self) -> bool:
        """Whether they are in the present gradients, and stand for other data than a second pass would see.

        A loop that calls backward for the whole batch and then a closure that does the same has twice its
        gradient, whose direction is right.
        """
        return any(
            p.grad is gradient
            and not torch.allclose(vectors.entries(gradient), 2 * vectors.entries(before), rtol=1e-3)
            for p, gradient, before in self._found
        )


def _first(parameters: Iterable[Tensor]) -> Tensor | None:
    return next((p.grad for p in parameters if p.grad is not None), None)

"""Gradients from before a closure ran, whose batches the second pass, at w + e, would miss."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from samrec.sam import vectors

NO_BACKWARD = "the closure left no gradient: it has to call loss.backward()"
MIXED = (
    "there were gradients before the closure ran, of data that its second pass would not see: "
    "clear them, or accumulate inside of the closure"
)
MARK = "_version_after_sams_step"


def mark(parameters: Iterable[Tensor]) -> None:
    """Remember that these gradients have served their step."""
    gradient = _first(parameters)
    if gradient is not None:
        setattr(gradient, MARK, gradient._version)


class Leftovers:
    """What a backward pass since the last step has left in the gradients; nothing in most loops.

    Each step asks whether there was such a pass, so only one gradient is looked at.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        first = _first(parameters)
        changed = first is not None and getattr(first, MARK, None) != first._version
        gradients = vectors.gradients(parameters) if changed else {}
        self._found = [(p, g, g.clone()) for p, g in gradients.items() if bool(vectors.entries(g).any())]

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self, cleared: bool) -> None:
        """Check that the first pass has made new gradients, not mixed with old ones.

        Args:
            cleared: whether it cleared the old ones.

        Raises:
            ValueError: it made none, or they are mixed.
        """
        if self._found and all(p.grad is g and torch.equal(g, before) for p, g, before in self._found):
            raise ValueError(NO_BACKWARD)
        if not cleared and any(p.grad is g and not _twice(g, before) for p, g, before in self._found):
            raise ValueError(MIXED)


def _twice(gradient: Tensor, before: Tensor) -> bool:
    """Whether a closure has doubled a gradient, as in a loop that calls backward for the same batch before.

    The direction is right then, and the second pass misses nothing.
    """
    return torch.allclose(vectors.entries(gradient), 2 * vectors.entries(before), rtol=1e-3)


def _first(parameters: Iterable[Tensor]) -> Tensor | None:
    return next((p.grad for p in parameters if p.grad is not None), None)

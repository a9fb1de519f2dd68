"""Derivatives by torch, and an error wherever torch would return a wrong one in silence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.errors import InputError


def gradient(outputs: Any, inputs: Sequence[Tensor], along: Any = None, **options: Any) -> list[Tensor]:
    """Return derivatives as `torch.autograd.grad` does, and 0 for inputs that were not used.

    Raises:
        InputError: with `create_graph`, if a derivative was taken by a function that has no second one. Torch
            cuts the graph there: a second derivative would be 0.
    """
    if isinstance(outputs, Tensor) and not outputs.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = list(torch.autograd.grad(outputs, list(inputs), along, materialize_grads=True, **options))
    if options.get("create_graph"):
        _check_twice(found)
    return found


def _check_twice(gradients: Sequence[Tensor]) -> None:
    waiting: list[Node] = [g.grad_fn for g in gradients if g.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().endswith("Error"):  # what `once_differentiable` leaves behind
            raise InputError(
                "the loss can be differentiated once only: a function in it is once_differentiable"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let attention run by the one path that can be differentiated twice. This is set for the whole process.

    It is the backend MATH, and never the fast path of `nn.TransformerEncoder` and `nn.MultiheadAttention`,
    which torch takes where no gradient is recorded: there the loss would be another function than the one
    whose derivatives are measured.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

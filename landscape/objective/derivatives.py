"""Derivatives as torch takes them, where it says nothing that is wrong."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.errors import InputError


def gradient(outputs: Any, inputs: Sequence[Tensor], along: Any = None, **options: Any) -> list[Tensor]:
    """Return derivatives as `torch.autograd.grad` does, and 0 of what has not been read.

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


def twice_differentiable() -> AbstractContextManager[None]:
    """Let attention run in the one backend that can be differentiated twice. Set for the whole process."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context

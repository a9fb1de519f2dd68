"""Derivatives by torch, and an error wherever torch would return a wrong one in silence."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

from landscape.errors import InputError, need_memory, words_of
from landscape.runtime.precision import Setting, full_precision

KINKED = (
    "Relu",
    "LeakyRelu",
    "Prelu",
    "Rrelu",
    "Threshold",
    "Hard",
    "Abs",
    "Clamp",
    "Max",
    "Min",
    "Amax",
    "Amin",
    "AdaptiveMax",
    "SmoothL1",
    "Huber",
    "L1",
)
STRAIGHT = ("FakeQuantize", "FusedMovingAvgObs")  # rounds, and passes its gradient straight through

T = TypeVar("T")


class UndefinedError(InputError, RuntimeError):
    """A loss has no value or no derivative somewhere. A RuntimeError too, for those who try several ways."""


def defined(evaluate: Callable[..., T]) -> Callable[..., T]:
    """Return the same function of a batch, whose errors are told in one line.

    It was evaluated at the model's weights before, without a graph. What fails now needs other weights, or
    cannot be recorded.
    """

    def evaluated(*arguments: Any) -> T:
        try:
            return evaluate(*arguments)
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the user's own code may raise anything; its traceback stays above
            need_memory(error)
            raise UndefinedError(
                f"the loss cannot be evaluated at these weights: {words_of(error)}"
            ) from error

    return evaluated


def gradient(outputs: Any, inputs: Sequence[Tensor], along: Any = None, **options: Any) -> list[Tensor]:
    """Return derivatives as `torch.autograd.grad` does, and 0 for inputs that were not used.

    Raises:
        InputError: with `create_graph`, if a derivative was taken by a function that has no second one. Torch
            cuts the graph there: a second derivative would be 0. Or torch does not have such a derivative, or
            refuses it, or records none (`need_recording`).
    """
    if isinstance(outputs, Tensor) and not outputs.requires_grad:
        need_recording()
        return [torch.zeros_like(tensor) for tensor in inputs]
    try:
        with full_precision:
            found = list(torch.autograd.grad(outputs, list(inputs), along, materialize_grads=True, **options))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        need_memory(error)
        if "is not implemented" in str(error):  # a second derivative
            raise UndefinedError(f"torch lacks a derivative of this loss: {error}") from error
        if "a second time" in str(error):
            raise UndefinedError(
                "the loss cannot be differentiated: a derivative taken inside has freed its graph; give that "
                "autograd.grad create_graph=True (where it has create_graph=self.training, measure "
                "landscape.in_training_mode(loss)), and leave out backward()"
            ) from error
        raise UndefinedError(f"the loss cannot be differentiated: {words_of(error)}") from error
    found = [tensor.to_dense() if tensor.is_sparse else tensor for tensor in found]
    if options.get("create_graph"):
        _check_twice(found)
    return found


def need_recording() -> None:
    """Make sure that torch records graphs: in its inference mode, derivatives are those of constants.

    Raises:
        InputError: the inference mode is on.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("torch.inference_mode() leaves no derivatives; use torch.no_grad() in its place")


def second(gradients: Sequence[Tensor], inputs: Sequence[Tensor], along: Any, **options: Any) -> list[Tensor]:
    """Return derivatives of Σ ⟨gradient, along⟩; gradients that are constant add nothing to it."""
    curved = [(g, v) for g, v in zip(gradients, along, strict=True) if g.requires_grad]
    if not curved:
        return [torch.zeros_like(v) for v in along]
    return gradient([g for g, _ in curved], inputs, [v for _, v in curved], **options)


def product(total: Tensor, leaves: Sequence[Tensor], along: Sequence[Tensor]) -> list[Tensor]:
    """Return ∇²L · v of what was computed from leaves, reverse over reverse: the gradient of ∇L · v."""
    return second(gradient(total, leaves, create_graph=True), leaves, along)


def leaves_of(total: Tensor) -> list[Tensor]:
    """Return the tensors that a result was computed from, as its graph knows them."""
    nodes = _nodes([total])
    return [node.variable for node in nodes if hasattr(node, "variable")]


def operations(tensors: Sequence[Tensor]) -> set[str]:
    """Return the names of the operations that made some tensors, as their graphs have them."""
    return {node.name() for node in _nodes(tensors)}


def has_own_backward(tensors: Sequence[Tensor]) -> bool:
    """Tell whether an operation that made some tensors has its backward pass in Python."""
    return any(isinstance(node, BackwardCFunction) for node in _nodes(tensors))


def kinked(gradients: Sequence[Tensor]) -> bool:
    """Tell whether an operation with kinks is in the graphs, as far as its name tells."""
    return any(name.startswith(KINKED) for name in operations(gradients))


def straight_through(total: Tensor) -> bool:
    """Tell whether torch rounds on the way to a result, by an operation with the gradient of the identity."""
    return any(name.startswith(STRAIGHT) for name in operations([total]))


def _check_twice(gradients: Sequence[Tensor]) -> None:
    if any(node.name().endswith("Error") for node in _nodes(gradients)):  # what `once_differentiable` leaves
        raise InputError("the loss can be differentiated only once: a function in it is once_differentiable")


def _nodes(tensors: Sequence[Tensor]) -> set[Node]:
    """Return all nodes of the graphs behind some tensors."""
    waiting: list[Node] = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen


class _Called:
    """In place of `CheckpointFunction`: calls what it is given."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *arguments: Any) -> Any:
        return function(*arguments)


def _between(*_: Any, **__: Any) -> Iterator[None]:
    """In place of what torch does before and after a checkpointed function that is not reentrant: nothing."""
    yield


_PLAIN: dict[str, Any] = {
    "CheckpointFunction": _Called,
    "_checkpoint_without_reentrant_generator": _between,
}


def _differentiate_twice() -> Callable[[], None]:
    fast, changed = torch.backends.mha.get_fastpath_enabled(), ExitStack()
    changed.callback(torch.backends.mha.set_fastpath_enabled, fast)
    changed.callback(vars(checkpoint).update, {name: getattr(checkpoint, name, None) for name in _PLAIN})
    torch.backends.mha.set_fastpath_enabled(False)
    vars(checkpoint).update(_PLAIN)
    changed.enter_context(sdpa_kernel(SDPBackend.MATH))
    changed.callback(full_precision.unset)
    full_precision.set()
    return changed.close


twice_differentiable = Setting(_differentiate_twice)
"""Let torch take the paths that can be differentiated twice.

Attention runs by the backend MATH, and never by the fast path of `nn.TransformerEncoder` and
`nn.MultiheadAttention`, which torch takes where no gradient is recorded: there the loss would be another
function than the one whose derivatives are measured. Activation checkpointing is off: it would compute
activations anew from whatever weights the model holds by then. Measuring takes the memory that it saves.
Float32 is multiplied at its `full_precision`.
"""

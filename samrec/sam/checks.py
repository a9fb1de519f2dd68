"""Checks of what SAM is built from, and of what it steps by."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT


def check_radius(rho: float | Tensor) -> None:
    """Raise ValueError unless every radius is finite and at least 0."""
    radii = torch.as_tensor(rho)
    if not (radii.isfinite() & (radii >= 0)).all():
        raise ValueError(f"rho is {rho}; it must be a finite number, at least 0")


def check_storages(parameters: Iterable[Tensor]) -> None:
    """Raise ValueError if a model computes with other tensors than the parameters, which alone would move.

    Two parameters may be one tensor in memory, and one that is sharded is gathered from elsewhere.
    """
    seen = set()
    for p in parameters:
        if hasattr(p, "to_local"):
            raise ValueError(
                "SAM cannot move sharded parameters (FSDP2, DTensor); use DistributedDataParallel"
            )
        if p.layout != torch.strided or p.is_meta or not p.numel():
            continue
        place = (p.device, p.data_ptr(), p.numel())
        if place in seen:
            raise ValueError(
                "two parameters share their storage by .data; tie modules by one Parameter instead"
            )
        seen.add(place)


def wrapped(base_optimizer: Callable[..., Optimizer], params: ParamsT, defaults: dict[str, Any]) -> Optimizer:
    """Build the optimizer that SAM wraps.

    Raises:
        TypeError: `base_optimizer` is an optimizer already, or its name.
        ValueError: its step needs a closure.
    """
    if isinstance(base_optimizer, str):
        raise TypeError(f"base_optimizer is {base_optimizer!r}; give a class, such as torch.optim.SGD")
    if isinstance(base_optimizer, Optimizer):
        name = type(base_optimizer).__name__
        raise TypeError(
            f"base_optimizer is an optimizer; give its class and arguments: SAM(params, {name}, lr=…)"
        )
    base = base_optimizer(params, **defaults)
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(base).__name__} calls the closure itself; SAM wraps optimizers that step by gradients"
        )
    return base


def closures_of(given: Any) -> Sequence[Callable[[], Any]]:
    """Return the closures of a step. Raise ValueError if it was given anything else, or none."""
    if given is None:
        raise ValueError(
            "SAM evaluates the loss twice: step needs a closure that does the backward pass, "
            "or first_step before it"
        )
    closures = [given] if callable(given) else given
    if not isinstance(closures, Sequence) or not closures or not all(map(callable, closures)):
        raise ValueError(f"step takes a closure or a list of closures, not {given!r:.60}")
    return closures


def total(losses: Sequence[Any]) -> Tensor:
    """Return the sum of what several closures returned. Raise ValueError if one is not a loss."""
    if not all(isinstance(loss, Tensor | float | int) for loss in losses):
        raise ValueError("each of several closures has to return its loss, a scalar")
    return torch.stack([torch.as_tensor(loss) for loss in losses]).sum(0)

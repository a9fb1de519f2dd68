"""Checks of what SAM is built from."""

import inspect
from collections.abc import Callable, Iterable
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
        TypeError: `base_optimizer` is an optimizer already.
        ValueError: its step needs a closure.
    """
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

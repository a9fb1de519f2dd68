"""The matrix of one batch times a vector, by differentiation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, jvp, vmap

from landscape.curvature.basis import dot
from landscape.errors import InputError
from landscape.objective.batches import doubled
from landscape.objective.derivatives import (
    gradient,
    kinked,
    operations,
    second,
    twice_differentiable,
)
from landscape.objective.differences import NOISE, ROUGH
from landscape.objective.noise import drawn, size_of
from landscape.objective.objective import Objective
from landscape.objective.params import ParamSpace

ADJOINT = 0.02  # share by which ⟨w, J v⟩ and ⟨Jᵀw, v⟩ may differ: what bfloat16 within a model rounds
FAR = 100  # times its own size, and ε^⅓, is the most by which a difference moves a tensor that is not 0
SHORTEST = 0.6  # ε to this power, in the same unit, is the shortest step around a kink
Parts = Sequence[Tensor]


class BatchProduct(Protocol):
    """The matrix of one batch times a vector, both as one tensor per parameter.

    Several vectors `at_once` are tensors with one more axis in front.
    """

    def __call__(self, vector: Parts, at_once: bool = False) -> Parts: ...


class HessianReverse:
    """Reverse over reverse: the gradient's graph is built once, and each product differentiates it."""

    def __init__(self, objective: Objective, batch: Any) -> None:
        self.leaves, total = objective.traced(batch)
        self.total, self.grads = total.detach(), gradient(total, self.leaves, create_graph=True)

    def __call__(self, vector: Parts, at_once: bool = False) -> Parts:
        return second(self.grads, self.leaves, vector, retain_graph=True, is_grads_batched=at_once)


class HessianForward:
    """Forward over reverse: v is carried forward through the computation of the gradient."""

    def __init__(self, objective: Objective, batch: Any) -> None:
        self.objective, self.batch = objective, batch
        self.names = [entry.name for entry in objective.params.entries]
        self.theta = list(objective.params.split(objective.theta).values())

    def __call__(self, vector: Parts, at_once: bool = False) -> Parts:
        if at_once:
            found: Parts = vmap(self.__call__)(list(vector))
            return found

        def summed(theta: Parts) -> Tensor:
            return self.objective.summed(dict(zip(self.names, theta, strict=True)), self.batch)

        with twice_differentiable:  # grad, not jacrev, which torch 2.13 has wrong in LayerNorm
            along: Parts = jvp(grad(summed), (self.theta,), (list(vector),))[1]
        return along


class HessianDifferences:
    """(∇s(θ + hu) - ∇s(θ - hu)) ‖v‖ / 2h along u = v/‖v‖; its error is of order h² + ε/h.

    A tensor that is small beside the others, as in physical units, shortens the steps along which it moves.
    At a kink between the two points ∇s jumps, and a short h makes that as large as it likes. So where the
    loss has kinks, both halves of a difference must agree. Otherwise a shorter step is tried; where none is
    short enough, as at a kink right at θ, the half that moves less counts.

    Args:
        kinked: whether the loss has kinks.
    """

    def __init__(self, objective: Objective, batch: Any, kinked: bool = False) -> None:
        self.objective, self.batch, self.kinked = objective, batch, kinked
        self.sizes = [size_of(weight) for weight in objective.params.split(objective.theta).values()]
        self.eps = torch.finfo(objective.theta.dtype).eps

    def __call__(self, vector: Parts, at_once: bool = False) -> Parts:
        if at_once:
            raise NotImplementedError("one vector at a time")
        theta = self.objective.theta
        flat = self.objective.params.flat(vector).to(theta)
        norm = float(flat.norm())
        if not norm:
            return [torch.zeros_like(v) for v in vector]
        pairs = zip(vector, self.sizes, strict=True)
        longest = max((size_of(v) / (FAR * size) for v, size in pairs if size), default=0.0)
        unit = 1 / max(norm / (1 + size_of(theta)), longest)
        here = self._gradient(theta) if self.kinked else []
        share = self.eps ** (1 / 3)
        even, noise = share**0.5, NOISE * self.eps * _length(here)
        while True:
            step = share * unit
            ahead, behind = (self._gradient(theta + sign * step * flat) for sign in (1, -1))
            both = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
            halves = [_less(ahead, here), _less(here, behind)] if here else []
            if not halves or _length(_less(*halves)) <= even * max(map(_length, halves)) + noise:
                return both
            if share <= self.eps**SHORTEST:
                return [half / step for half in min(halves, key=_length)]
            share /= 10

    def _gradient(self, theta: Tensor) -> Parts:
        leaves, total = self.objective.traced(self.batch, theta=theta)
        return gradient(total, leaves)


def _less(a: Parts, b: Parts) -> Parts:
    return [x - y for x, y in zip(a, b, strict=True)]


def _length(parts: Parts) -> float:
    return float(np.linalg.norm([float(part.double().norm()) for part in parts]))


def by_differences(objective: Objective) -> Callable[[Any], HessianDifferences]:
    """Return products of batches by differences, in float64 if the loss can be evaluated there."""
    try:
        precise = objective.in_float64()
        graph = precise.traced(precise.batches[0])[1]
        total = float(graph.detach())
        same = abs(total - objective.first_batch().value()) <= ROUGH * abs(total)
    except (InputError, RuntimeError, TypeError):  # other random numbers, no kernel, or types that do not mix
        same = False
    if not same:
        graph = objective.traced(objective.batches[0])[1]
        return partial(HessianDifferences, objective, kinked=kinked([graph]))
    bent = kinked([graph])
    return lambda batch: HessianDifferences(precise, doubled(batch), bent)


class _Outer:
    """Jᵀ M J, with J the Jacobian of what a batch computes: J v is the derivative of Jᵀ w by w, times v."""

    leaves: list[Tensor]

    def __init__(self, outputs: Tensor, leaves: list[Tensor]) -> None:
        self.outputs, self.leaves = outputs, leaves
        self.cotangent = torch.zeros_like(outputs, requires_grad=True)
        pulled = gradient(outputs, leaves, self.cotangent, create_graph=True)
        self.used = [i for i, p in enumerate(pulled) if p.requires_grad]
        self.pulled = [pulled[i] for i in self.used]

    def tangent(self, vector: Parts, at_once: bool = False) -> Tensor:
        """Return J v, of the shape of the outputs."""
        if not self.pulled:
            ahead = vector[0].shape[:1] if at_once else ()
            return torch.zeros_like(self.outputs).expand(*ahead, *self.outputs.shape)
        along = [vector[i] for i in self.used]
        (found,) = gradient(self.pulled, [self.cotangent], along, retain_graph=True, is_grads_batched=at_once)
        return found

    def check(self, params: ParamSpace) -> None:
        """Make sure that ⟨w, J v⟩ is ⟨Jᵀw, v⟩ along a random v, with w of random signs.

        Raises:
            InputError: it is not. Where a backward pass has no graph of its own, J v would be 0.
        """
        v, found = drawn(params, 0), self.outputs.detach()
        generator = torch.Generator("cpu").manual_seed(0)
        w = (2 * torch.randint(2, found.shape, generator=generator, device="cpu") - 1).to(found)
        moved = self.tangent(list(params.split(v).values())).detach().double() * w
        pulled = gradient(self.outputs, self.leaves, w, retain_graph=True)
        one, other, size = float(moved.sum()), dot(params.flat(pulled), v), float(moved.norm())
        if not abs(one - other) <= ADJOINT * max(size, abs(other)):
            raise InputError(
                f"the derivative J of the outputs is wrong: ⟨w, J v⟩ is {one:g} and ⟨Jᵀw, v⟩ {other:g}; a "
                "function in the model has a backward pass that torch cannot differentiate"
            )

    def middle(self, tangent: Tensor, at_once: bool) -> Tensor:
        """Return M u."""
        return tangent

    def __call__(self, vector: Parts, at_once: bool = False) -> Parts:
        if not self.pulled:
            return [torch.zeros_like(v) for v in vector]
        moved = self.middle(self.tangent(vector, at_once), at_once)
        return gradient(self.outputs, self.leaves, moved, retain_graph=True, is_grads_batched=at_once)


class GaussNewton(_Outer):
    def __init__(self, objective: Objective, batch: Any) -> None:
        leaves, outputs = objective.traced(batch, "outputs")
        super().__init__(outputs, leaves)
        self.at = outputs.detach().requires_grad_()
        (self.slope,) = gradient(objective.criterion(self.at, batch), [self.at], create_graph=True)

    def middle(self, tangent: Tensor, at_once: bool) -> Tensor:
        if not self.slope.requires_grad:
            return torch.zeros_like(tangent)
        (found,) = gradient(self.slope, [self.at], tangent, retain_graph=True, is_grads_batched=at_once)
        return found


class EmpiricalFisher(_Outer):
    def __init__(self, objective: Objective, batch: Any) -> None:
        leaves, sums = objective.traced(batch, "per_example")
        super().__init__(sums, leaves)


class Checked:
    """Builds Jᵀ M J of batches; checks J of the first, and of each that takes another way through the model.

    Args:
        kind: makes that of a batch.
    """

    def __init__(self, kind: type[GaussNewton | EmpiricalFisher]) -> None:
        self._kind = kind
        self._known: set[str] = set()  # operations in what was checked

    def __call__(self, objective: Objective, batch: Any) -> GaussNewton | EmpiricalFisher:
        """Return that of a batch.

        Raises:
            InputError: J is wrong.
        """
        product = self._kind(objective, batch)
        found = operations([product.outputs])
        if is_checked(objective) and not found <= self._known:
            product.check(objective.params)
            self._known |= found
        return product


def unit_slopes(objective: Objective, vector: Tensor) -> NDArray[np.float64]:
    """Return ⟨∇s_u, v⟩, the derivative of each unit's summed loss along v, shape (units,).

    Raises:
        InputError: the objective was not given its loss per example, or torch has its derivative wrong.
    """
    parts = list(objective.params.split(vector.to(objective.theta)).values())
    build = Checked(EmpiricalFisher)
    slopes = [build(objective, batch).tangent(parts).detach() for batch in objective.batches]
    found: NDArray[np.float64] = np.concatenate(
        objective.of_all([slope.double().cpu().numpy() for slope in slopes])
    )
    return found


def is_checked(objective: Objective) -> bool:
    """Tell whether the derivatives of an objective are to be checked."""
    return objective.provenance.get("derivatives") != "unchecked"

"""Measures of the gradient."""

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.flatness.point import Estimate, Point, influences
from landscape.objective import Objective, gradient
from landscape.results import Array


def gradient_norm(point: Point) -> Estimate:
    """‖∇L‖; its standard error is that of the gradient along itself."""
    value = float(point.gradient.double().norm())
    if not value:
        return Estimate(value)
    try:
        units_given(point)
    except InputError:
        return Estimate(value)
    along = slopes(point.objective, point.gradient / value)
    return Estimate(value, by_unit=value + influences(along, point.units[1]))


def fisher_rao(point: Point) -> Estimate:
    """θᵀFθ, the second moment of the units' slopes along θ."""
    squares, weights = slopes(point.objective, point.theta) ** 2, point.units[1]
    value = float(squares.sum() / weights.sum())
    return Estimate(value, by_unit=value + influences(squares, weights))


def units_given(point: Point) -> None:
    """Check that the objective knows the loss of each unit.

    Raises:
        InputError: it was not given the units of its loss, or they have no derivative.
    """
    objective = point.objective
    if not objective.traced(objective.batches[0], "units")[1].requires_grad:
        raise InputError("the units of this objective's loss have no derivative; compute them with gradients")


def slopes(objective: Objective, along: Tensor) -> Array:
    """Return ⟨∇s_u, v⟩ of each unit's sum of the loss, shape (units,).

    Jᵀ w, with J the Jacobian of the units, is linear in w, and its derivative by w along v is J v.

    Raises:
        InputError: the objective was not given the units of its loss.
    """
    found = []
    parts = objective.params.split(along.to(objective.theta)).values()
    for batch in objective.batches:
        leaves, sums = objective.traced(batch, "units")
        w = torch.zeros_like(sums, requires_grad=True)
        pulled = gradient(sums, leaves, w, create_graph=True)
        total = torch.stack([(p * v).sum() for p, v in zip(pulled, parts, strict=True)]).sum()
        (product,) = gradient(total, [w])
        found.append(product.double().cpu().numpy())
    return np.concatenate(found)

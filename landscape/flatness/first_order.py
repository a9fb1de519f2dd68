"""Measures of the gradient."""

from landscape.curvature.products import unit_slopes
from landscape.errors import InputError
from landscape.flatness.point import Estimate, Point
from landscape.statistics import influences


def gradient_norm(point: Point) -> Estimate:
    """‖∇L‖; its standard error is that of the gradient along itself."""
    value = float(point.gradient.double().norm())
    if not value:
        return Estimate(value)
    try:
        units_given(point)
    except InputError:
        return Estimate(value)
    along = unit_slopes(point.objective, point.gradient / value)
    return Estimate(value, by_unit=value + influences(along, point.units[1]))


def fisher_rao(point: Point) -> Estimate:
    """θᵀFθ, the second moment of the units' slopes along θ.

    Liang et al. 2019 have examples for units. A user's slope is the sum of those of its positions.
    """
    squares, weights = unit_slopes(point.objective, point.theta) ** 2, point.units[1]
    value = float(squares.sum() / weights.sum())
    return Estimate(value, by_unit=value + influences(squares, weights))


def units_given(point: Point) -> None:
    """Check that the objective knows the slope of each unit's loss, by its first batch.

    Raises:
        InputError: it was not given the units of its loss, they have no derivative, or torch cannot
            differentiate their backward pass.
    """
    objective = point.objective
    if not objective.traced(objective.batches[0], "per_example")[1].requires_grad:
        raise InputError("the units of this objective's loss have no derivative; compute them with gradients")
    unit_slopes(objective.first_batch(), objective.theta)

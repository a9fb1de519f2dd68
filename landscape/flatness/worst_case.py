"""Measures of the worst perturbation δ = C u within a ball. Their standard errors hold δ fixed."""

import numpy as np
from torch import Tensor

from landscape.errors import InputError
from landscape.flatness.ascent import Box, Sphere, one_step, projected_ascent
from landscape.flatness.point import Estimate, Point
from landscape.statistics import influences


def sam(point: Point) -> Estimate:
    """SAM's one-step rise."""
    return _stepped(point, point.ones)


def asam(point: Point) -> Estimate:
    """ASAM's one-step rise."""
    return _stepped(point, point.magnitudes)


def worst(point: Point) -> Estimate:
    """The highest rise within a ball."""
    return _risen(point, *projected_ascent(point, Sphere(point.settings.rho), point.ones))


def worst_adaptive(point: Point) -> Estimate:
    """The highest rise within ASAM's ball."""
    return _risen(point, *projected_ascent(point, Sphere(point.settings.rho), point.magnitudes))


def keskar(point: Point) -> Estimate:
    """The highest rise within a box, in percent of 1 + L."""
    sides = point.settings.epsilon * (point.magnitudes + 1)
    delta, highest = projected_ascent(point, Box(), sides)
    value = 100 * (highest - point.loss) / (1 + point.loss)
    (sums, weights), risen = point.units, point.objective.per_example(point.theta + delta)[0]
    slopes = 100 * (risen - sums) - value * sums  # of rise and of L alike, by the quotient rule
    by_unit = value + influences(slopes / (1 + point.loss), weights)
    return Estimate(value, by_unit=by_unit, shown={"resolved": point.resolves(highest - point.loss)})


def loss_above_minus_one(point: Point) -> None:
    """Check that 1 + L can be divided by.

    Raises:
        InputError: it is not positive.
    """
    if not point.loss > -1:
        raise InputError(f"keskar divides by 1 + L, and L is {point.loss:g}; use worst, or a loss above -1")


def m_sharpness(point: Point) -> Estimate:
    """SAM's one-step rise, with a δ for each batch; weighted as the batches are in L."""
    found = []
    for batch in point.objective.per_batch():
        delta = one_step(batch.grad(), point.settings.rho, point.ones)
        sums, weights = batch.per_example()
        found.append((batch.per_example(point.theta + delta)[0] - sums, weights, [bool(delta.any())]))
    found = point.objective.of_all(found)
    rises, weights, moved = (np.concatenate(column) for column in zip(*found, strict=True))
    value = float(rises.sum() / weights.sum())
    m = max(len(of_batch) for of_batch, *_ in found)
    shown = {"m": m, "resolved": not moved.any() or point.resolves(value)}
    return Estimate(value, by_unit=value + influences(rises, weights), shown=shown)


def _stepped(point: Point, scale: Tensor) -> Estimate:
    delta = one_step(point.gradient, point.settings.rho, scale)
    return _risen(point, delta, point.objective.value(point.theta + delta), exact=not delta.any())


def _risen(point: Point, delta: Tensor, height: float, exact: bool = False) -> Estimate:
    """Estimate a rise to L(θ + δ), which is given; it is exact if there was no step, for want of a slope."""
    value = height - point.loss
    (sums, weights), risen = point.units, point.objective.per_example(point.theta + delta)[0]
    by_unit = value + influences(risen - sums, weights)
    return Estimate(value, by_unit=by_unit, shown={"resolved": exact or point.resolves(value)})

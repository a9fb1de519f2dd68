"""Measures of the mean loss under Gaussian noise δ = σ C z."""

import numpy as np

from landscape.errors import InputError
from landscape.flatness.noise import Noise, sigma_reaching
from landscape.flatness.point import Estimate, Point
from landscape.statistics import influences


def average(point: Point) -> Estimate:
    """The mean rise."""
    return _mean_rise(point, point.noise)


def average_adaptive(point: Point) -> Estimate:
    """The mean rise, with noise relative to each weight."""
    return _mean_rise(point, point.adaptive_noise)


def low_pass(point: Point) -> Estimate:
    """The mean loss itself, from the draws of `average`."""
    rise = point.noise.rise(point.settings.sigma)
    sums, weights = point.units
    value = point.loss + rise.mean
    return Estimate(value, point.loss + rise.by_draw, value + influences(sums + rise.by_unit, weights))


def pac_bayes_sigma(point: Point) -> Estimate:
    """1/σ² at the σ that raises the mean loss by `rise`; Jiang et al. 2020 raise the training error."""
    return _inverse_variance(point, point.noise)


def pac_bayes_sigma_adaptive(point: Point) -> Estimate:
    """1/σ² as before, with noise relative to each weight."""
    return _inverse_variance(point, point.adaptive_noise)


def rise_resolved(point: Point) -> None:
    """Make sure that the rise which σ has to reach is more than the loss rounds off.

    Raises:
        InputError: it is less: the σ would be that of rounding errors.
    """
    if not point.resolves(point.settings.rise):
        raise InputError(
            f"a rise of {point.settings.rise:g} is less than {str(point.precision)[6:]} resolves of a loss "
            f"of {point.loss:g}; give a rise of more than {point.least_rise:.2g}"
        )


def _mean_rise(point: Point, noise: Noise) -> Estimate:
    rise = noise.rise(point.settings.sigma)
    by_unit = rise.mean + influences(rise.by_unit, point.units[1])
    return Estimate(rise.mean, rise.by_draw, by_unit, {"resolved": point.resolves(rise.mean)})


def _inverse_variance(point: Point, noise: Noise) -> Estimate:
    """Move σ as the rise at it moves: with rise ~ σ^p next to σ, d(1/σ²) / d rise is 2 / (p rise σ²)."""
    target = point.settings.rise
    reached = sigma_reaching(noise, target)
    if np.isinf(reached.sigma):
        return Estimate(0.0, shown={"sigma": reached.sigma})
    value = reached.sigma**-2
    slope = 2 * value / (reached.power * target)
    rise, weights = reached.rise, point.units[1]
    return Estimate(
        value,
        by_draw=value + slope * (rise.by_draw - rise.mean),
        by_unit=value + slope * influences(rise.by_unit, weights),
        shown={"sigma": reached.sigma},
    )

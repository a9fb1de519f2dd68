"""Every error bar against what it is made of: closed forms, and brute force."""

import numpy as np
import pytest
from scipy.stats import t as student

from landscape.statistics import (
    fieller,
    half_width,
    influences,
    interval,
    mean,
    ratio_error,
    ratio_parts,
    standard_error,
)

RNG = np.random.default_rng(0)
SUMS, WEIGHTS = RNG.uniform(0, 3, 40), RNG.uniform(1, 5, 40)


def test_the_error_of_a_mean():
    value, error = mean(SUMS)
    assert value == SUMS.mean()
    assert error == pytest.approx(np.sqrt(SUMS.var(ddof=1) / 40), rel=1e-14)
    assert standard_error(SUMS) == pytest.approx(error, rel=1e-14)


def test_independent_samples_add_their_variances_and_empty_ones_do_not_count():
    a, b = SUMS[:10], WEIGHTS[:25]
    assert standard_error(a, np.empty(0), b) == pytest.approx(np.hypot(mean(a)[1], mean(b)[1]), rel=1e-14)
    assert standard_error(np.empty(0)) is None


def test_half_an_interval_is_students_t_of_standard_errors():
    for count in (2, 3, 40):
        value, error = mean(SUMS[:count])
        assert half_width(SUMS[:count]) == pytest.approx(interval(value, error, count)[1] - value)
    assert half_width(np.empty(0), SUMS[:1]) is None
    assert half_width(np.ones(3)) == 0


def test_half_an_interval_of_two_samples_has_satterthwaites_degrees_of_freedom():
    a, b = SUMS[:4], WEIGHTS[:25]
    one, other = mean(a)[1] ** 2, mean(b)[1] ** 2
    freedom = (one + other) ** 2 / (one**2 / 3 + other**2 / 24)
    expected = student.ppf(0.975, freedom) * (one + other) ** 0.5
    assert half_width(a, b, np.empty(0)) == pytest.approx(expected, rel=1e-12)


def test_with_equal_weights_a_ratio_has_the_error_of_a_mean():
    parts = ratio_parts(SUMS, np.full(40, 2.0))
    assert parts.sum() == pytest.approx(0, abs=1e-14)
    assert ratio_error(parts) == pytest.approx(mean(SUMS / 2)[1], rel=1e-12)
    assert ratio_error(parts[:1]) is None


def test_parts_of_a_ratio_are_its_derivatives_by_the_units():
    """r moves by the part of a unit as the unit counts a little more, dr/dε of (Σ + ε s) / (Σ + ε w)."""
    step = 1e-6
    moved = (SUMS.sum() + step * SUMS) / (WEIGHTS.sum() + step * WEIGHTS) - SUMS.sum() / WEIGHTS.sum()
    np.testing.assert_allclose(ratio_parts(SUMS, WEIGHTS), moved / step, rtol=1e-4, atol=1e-8)


def test_influences_are_parts_whose_mean_has_the_error_of_the_ratio():
    found = influences(SUMS, WEIGHTS)
    assert found.mean() == pytest.approx(0, abs=1e-14)
    assert standard_error(found) == pytest.approx(ratio_error(ratio_parts(SUMS, WEIGHTS)), rel=1e-12)
    assert influences(SUMS[:1], WEIGHTS[:1]).size == 0


def test_fiellers_interval_holds_all_ratios_that_are_not_refuted():
    x, y = RNG.normal(2, 1, 30), RNG.normal(3, 1, 30)
    low, high = fieller(x.mean(), y.mean(), [(x, y)])
    for ratio in np.linspace(low - 1, high + 1, 101):
        away = abs((y - ratio * x).mean()) / mean(y - ratio * x)[1]
        # the degrees of freedom of one sample are n - 1, whatever the ratio
        assert (away <= student.ppf(0.975, 29)) == (low <= ratio <= high)
    turned = fieller(y.mean(), x.mean(), [(y, x)])
    assert turned == pytest.approx((1 / high, 1 / low), rel=1e-9)
    assert fieller(0.01, 1.0, [(x - x.mean() + 0.01, y)]) is None

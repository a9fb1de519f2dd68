"""One measure at two checkpoints: its ratio, its difference, and their intervals."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from landscape.flatness.comparison import Contrast, compare
from landscape.flatness.words import verdict
from tests.results import NONE, measured, standard_error


def contrast(x, y, name="sam"):
    """The contrast of one measure's pseudo-values (or value) at two checkpoints."""
    comparison = compare({"a": measured({name: x}), "b": measured({name: y})})
    (row,) = (row for row in comparison.rows if row.measure == name)
    return row.contrasts[0]


def correlated(seed, mean_x=2.0, mean_y=1.8, n=40):
    """Pseudo-values that share most of their noise."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(n)
    return mean_x + common + 0.3 * rng.standard_normal(n), mean_y + common + 0.3 * rng.standard_normal(n)


@pytest.mark.parametrize("mean_x", [2.0, 0.5])
def test_the_ends_of_the_interval_are_where_y_less_r_x_is_t_standard_errors_from_zero(mean_x):
    x, y = correlated(0, mean_x)
    found = contrast(x, y)
    quantile = student.ppf(0.975, len(x) - 1)
    for r in (found.low, found.high):
        assert abs((y - r * x).mean()) == pytest.approx(quantile * standard_error(y - r * x), rel=1e-9)
    assert found.low < found.ratio < found.high
    assert found.ratio == y.mean() / x.mean()


def test_draws_and_units_make_up_one_error():
    """Their variances add, with Satterthwaite's degrees of freedom (Σv)² / Σ v²/(n - 1)."""
    (draws_x, draws_y), (units_x, units_y) = correlated(0, n=5), correlated(1, n=40)
    x, y = 2.0, 1.5
    draws_x, draws_y = draws_x + x - draws_x.mean(), draws_y + y - draws_y.mean()
    found = contrast((x, draws_x, units_x), (y, draws_y, units_y))
    parts = [standard_error(b - y / x * a) ** 2 for a, b in ((draws_x, draws_y), (units_x, units_y))]
    quantile = student.ppf(0.975, sum(parts) ** 2 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 39))
    for r in (found.low, found.high):
        error = standard_error(draws_y - r * draws_x, units_y - r * units_x)
        assert abs(y - r * x) == pytest.approx(quantile * error, rel=1e-9)
    assert found.standard_error == pytest.approx(standard_error(draws_y - draws_x, units_y - units_x))


def test_turning_the_ratio_over_turns_the_interval_over():
    x, y = correlated(1)
    one, other = contrast(x, y), contrast(y, x)
    assert (1 / other.high, 1 / other.ratio, 1 / other.low) == pytest.approx((one.low, one.ratio, one.high))


def test_units_of_measurement_fall_out():
    (x, y), factor = correlated(2), 1e-7
    one, other = contrast(x, y), contrast(factor * x, factor * y)
    assert (other.low, other.ratio, other.high) == pytest.approx((one.low, one.ratio, one.high), rel=1e-9)
    assert other.standard_error == pytest.approx(factor * one.standard_error)


def test_the_interval_leaves_out_one_where_the_paired_difference_is_beyond_its_error():
    """Fieller's set holds r = 1 if and only if |y - x| is within t of its standard errors."""
    cases = [correlated(seed, 2.0, 2.0 + 0.02 * seed) for seed in range(12)]
    found = [contrast(x, y) for x, y in cases]
    quantile = student.ppf(0.975, 39)
    assert [c.differs for c in found] == [abs(c.difference) > quantile * c.standard_error for c in found]
    assert {c.differs for c in found} == {True, False}


def test_the_interval_holds_the_true_ratio_nineteen_times_in_twenty():
    """Few draws and many units, which both vary."""
    rng = np.random.default_rng(0)
    true, held, trials = 0.8, 0, 600
    for _ in range(trials):
        pairs = []
        for count, noise in ((5, 0.3), (40, 0.8)):
            common = rng.standard_normal(count)
            pairs.append([noise * (f * common + 0.5 * rng.standard_normal(count)) for f in (1.0, true)])
        (draws_x, draws_y), (units_x, units_y) = pairs
        x, y = 1 + draws_x.mean() + units_x.mean(), true + draws_y.mean() + units_y.mean()
        found = contrast(
            (x, draws_x - draws_x.mean() + x, units_x - units_x.mean() + x),
            (y, draws_y - draws_y.mean() + y, units_y - units_y.mean() + y),
        )
        held += found.low is not None and found.low <= true <= found.high
    assert held / trials == pytest.approx(0.95, abs=0.025)


def test_what_both_share_falls_out():
    """A tenth less for every user is a tenth less, however much users differ."""
    x = np.random.default_rng(0).exponential(size=50)
    found = contrast(x, 0.9 * x)
    assert (found.low, found.ratio, found.high) == pytest.approx((0.9, 0.9, 0.9))
    assert found.differs


def test_a_checkpoint_does_not_differ_from_itself():
    x = np.random.default_rng(0).exponential(size=50)
    assert contrast(x, x) == Contrast(0.0, 0.0, 1.0, 1.0, 1.0, 0.0)
    assert contrast(x, x).differs is False


def test_what_rounding_adds_is_no_difference():
    """As it adds to a rise in float32 where each hidden unit is rescaled, which keeps the function."""
    x = np.random.default_rng(0).exponential(size=50)
    assert contrast(x, 1.00003 * x).differs is False
    assert contrast(x, 0.99997 * x).differs is False
    assert contrast(x, 1.001 * x).differs
    said = verdict(compare({"a": measured({"sam": x}), "b": measured({"sam": 1.00003 * x})}))
    assert said[0] == "b against a: no clear difference in sam."


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (0.0, 1.0),
        (-1.0, -2.0),
        (1.0, -0.5),
        (math.nan, 1.0),
        (1.0, math.inf),
        (np.linspace(-9, 10, 40), np.linspace(4, 6, 40)),
        (np.linspace(-9, 10, 40), 5.0),
    ],
    ids=["zero", "negative", "other sign", "nan", "inf", "within its error of zero", "and not paired"],
)
def test_there_is_no_ratio_to_what_may_be_zero(x, y):
    found = contrast(x, y)
    assert (found.ratio, found.low, found.high, found.differs) == (None,) * 4


def test_an_interval_without_ends_is_of_no_ratio():
    """x is above 0 by more than two standard errors, but not by t of them: any large ratio fits."""
    spread = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    error, quantile = standard_error(spread), student.ppf(0.975, 4)
    for share, known in ((0.99, False), (1.01, True)):
        x = spread + share * quantile * error
        found = contrast(x, np.linspace(3, 5, 5)[[2, 0, 3, 1, 4]])
        assert share * quantile > 2
        assert (found.ratio is not None, found.low is not None, found.differs is not None) == (known,) * 3


def test_the_interval_of_a_value_is_over_draws_and_units():
    draws, units = correlated(0, n=5)[0], correlated(1, n=40)[0]
    (row,) = (r for r in compare({"a": measured({"sam": (2.0, draws, units)})}).rows if r.measure == "sam")
    parts = standard_error(draws) ** 2, standard_error(units) ** 2
    quantile = student.ppf(0.975, sum(parts) ** 2 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 39))
    assert row.reaches == (pytest.approx(quantile * sum(parts) ** 0.5),)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (1.0, 2.0),
        (np.array([1.0, 1.1]), 2.0),
        (np.array([1.0, 1.1]), np.array([2.0, 2.1, 2.2])),
        ((1.0, NONE, np.array([1.0, 1.1])), (2.0, np.array([2.0, 2.1]), np.array([2.0, 2.2]))),
    ],
    ids=["exact", "one exact", "other units", "draws of one alone"],
)
def test_without_pairs_there_is_a_ratio_and_no_interval(x, y):
    found = contrast(x, y)
    assert found.ratio is not None
    assert (found.standard_error, found.low, found.high, found.differs) == (None,) * 4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from landscape.surface.chebyshev import FINEST, Axis, at_points, on_grid

RNG = np.random.default_rng(0)
AT = np.linspace(-0.7, 1.3, 203)


def axis(level, pieces=1):
    return Axis(-0.7, 1.3, level, pieces)


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("level", range(1, FINEST))
def test_points_of_a_level_are_among_those_of_the_next(level, pieces):
    coarse = axis(level, pieces)
    assert set(coarse.nodes) <= set(coarse.finer().nodes)
    assert len(coarse.nodes) == pieces * 2**level + 1
    assert (np.diff(coarse.nodes) > 0).all()
    assert (coarse.nodes[0], coarse.nodes[-1]) == (-0.7, 1.3)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_symmetric_interval_has_mirrored_points_and_an_exact_zero(pieces):
    nodes = Axis(-0.3, 0.3, 4, pieces).nodes
    np.testing.assert_array_equal(nodes, -nodes[::-1])
    assert 0.0 in nodes


@given(level=st.integers(1, FINEST), pieces=st.integers(1, 4), seed=st.integers(0, 99))
def test_polynomials_of_the_degree_are_met_exactly(level, pieces, seed):
    grid = axis(level, pieces)
    polynomial = np.polynomial.Chebyshev(np.random.default_rng(seed).standard_normal(2**level + 1))
    found = grid.interpolation(AT) @ polynomial(grid.nodes - 0.3)
    np.testing.assert_allclose(found, polynomial(AT - 0.3), atol=1e-10)


def test_a_value_at_a_node_comes_back_as_it_is():
    grid = axis(3, 2)
    values = RNG.standard_normal(len(grid.nodes))
    np.testing.assert_array_equal(grid.interpolation(grid.nodes) @ values, values)


def test_coefficients_agree_with_numpy():
    grid = Axis(-1, 1, 3)
    coefficients = RNG.standard_normal(9)
    values = chebyshev.chebval(grid.nodes, coefficients)
    np.testing.assert_allclose(grid.coefficients(values)[0], coefficients, atol=1e-13)
    two = np.stack([values, 2 * values], 1)
    np.testing.assert_allclose(grid.coefficients(two)[0, :, 1], 2 * coefficients, atol=1e-13)


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.parametrize("function", [np.exp, np.cos, lambda x: 1 / (1 + 4 * x**2), lambda x: np.tanh(3 * x)])
def test_the_tail_predicts_the_error_to_an_order_of_magnitude(level, function):
    grid = axis(level)
    error = np.abs(grid.interpolation(AT) @ function(grid.nodes) - function(AT)).max()
    assert error / 10 - 1e-14 < grid.tail(function(grid.nodes)) < 30 * max(error, 1e-14)


def test_the_tail_of_what_is_met_exactly_is_nothing():
    grid = axis(3)
    assert grid.tail(grid.nodes**2) < 1e-12
    assert grid.tail(np.ones(9)) == 0


def test_noise_has_no_tail_that_ends():
    grid = axis(4)
    assert grid.tail(RNG.choice([-1.0, 1.0], len(grid.nodes))) > 1


def test_the_error_of_a_kink_falls_with_pieces():
    def error(pieces):
        grid = axis(3, pieces)
        return np.abs(grid.interpolation(AT) @ np.abs(grid.nodes - 0.3) - np.abs(AT - 0.3)).max()

    assert error(2) < 1e-12  # the pieces meet at the kink
    assert error(1) > 0.01


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_polynomial_of_values_that_are_never_negative_is_not_drawn_below_zero(pieces):
    axes = [axis(3, pieces), axis(2)]
    spike = np.exp(-400 * (axes[0].nodes[:, None] - 0.3) ** 2) * (1 + axes[1].nodes ** 2)
    at = [AT, AT[::9]]
    points = np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 2)
    raw = axes[0].interpolation(AT) @ spike @ axes[1].interpolation(AT[::9]).T
    assert raw.min() < -0.01
    drawn = on_grid(axes, spike, at)
    np.testing.assert_array_equal(drawn, np.maximum(raw, 0))
    np.testing.assert_allclose(at_points(axes, spike, points), drawn.ravel(), atol=1e-12)
    assert on_grid(axes, spike - 1, at).min() < -1  # a loss that may be negative is drawn as it is

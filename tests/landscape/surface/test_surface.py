import math

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Direction, InputError, Objective


@pytest.fixture
def tilted(quadratic, symmetric):
    """A quadratic at a point that is not its centre, seen as one matrix so that it has filters."""
    at = torch.linspace(-1, 2, 12).double().view(3, 4)
    return quadratic(symmetric, at, torch.ones(3, 4).double())


def loss_at(objective, *terms):
    theta = objective.theta
    for x, direction in terms:
        theta = theta.add(direction, alpha=x)  # in one rounding
    return objective.value(theta)


def test_a_plane_of_a_quadratic_is_exact_and_indexed_ij(tilted, symmetric):
    vectors = [torch.from_numpy(np.random.default_rng(i).standard_normal(12)) for i in (1, 2)]
    result = ll.plane(tilted, grid=7, radius=0.5, directions=tuple(Direction(v, "given") for v in vectors))
    g, (d1, d2) = tilted.grad(), vectors
    for i, x in enumerate(result.coordinates[0]):
        for j, y in enumerate(result.coordinates[1]):
            step = x * d1 + y * d2
            expected = tilted.value() + float(g @ step + step @ symmetric @ step / 2)
            assert result.losses[i, j] == pytest.approx(expected, rel=1e-11)


def test_the_centre_is_the_loss_of_the_checkpoint(tilted):
    for result in (ll.line(tilted, grid=5), ll.plane(tilted, grid=5)):
        middle = result.losses[(2,) * result.losses.ndim]
        assert middle == result.center == tilted.value()


def test_the_centre_of_a_transformer_is_its_loss(sasrec_objective):
    result = ll.plane(sasrec_objective, grid=3)
    assert abs(result.losses[1, 1] - sasrec_objective.value()) < 1e-6


def test_second_differences_are_the_curvature_along_the_direction(sasrec_objective, dense_hessian):
    d = ll.random_direction(sasrec_objective.params, seed=0).vector
    h = 1e-5  # so near that no ReLU turns over
    result = ll.line(sasrec_objective, grid=3, radius=h, directions=[Direction(d, "given")])
    left, middle, right = result.losses
    curvature = float(d @ dense_hessian @ d)
    assert (left - 2 * middle + right) / h**2 == pytest.approx(curvature, rel=1e-4)


def test_the_radius_on_the_axis_is_the_radius_moved(tilted):
    d = ll.random_direction(tilted.params, seed=0).vector
    result = ll.line(tilted, grid=4, radius=0.7)
    assert result.coordinates[0][0] == -0.7
    assert result.coordinates[0][-1] == 0.7
    assert result.losses[-1] == loss_at(tilted, (0.7, d))
    assert result.directions[0]["norm"] == pytest.approx(float(d.norm()))


def test_spans_are_those_asked_for_along_random_directions_too(tilted):
    assert ll.line(tilted, grid=3, spans=[(0.0, 0.5)]).coordinates[0].tolist() == [0.0, 0.25, 0.5]
    result = ll.plane(tilted, grid=3, spans=[(0.0, 0.5), (-1.0, 1.0)])
    assert [axis[0] for axis in result.coordinates] == [0.0, -1.0]


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_an_automatic_radius_is_where_either_side_has_doubled(quadratic, side):
    """L = 1 + x falls on the other side, and the square root of 1 - 2x is no number beyond 1/2."""
    objective = quadratic(torch.zeros(1, 1).double(), torch.zeros(1).double())
    axis = [Direction(torch.tensor([side]).double(), "axis")]
    for function, radius in ((lambda x: 3 + x, 3.0), (lambda x: 1 + (1 - 2 * x).sqrt(), 0.5)):
        objective._bound.loss = lambda model, _, f=function: (f(model.theta.sum()), 1)
        found = ll.line(objective, directions=axis, radius="auto", grid=3)
        assert found.coordinates[0][-1] == pytest.approx(radius, rel=0.06)
        assert found.coordinates[0][0] == -found.coordinates[0][-1]


def test_a_relative_radius_is_the_farthest_step_by_the_weights(tilted):
    d = torch.from_numpy(np.random.default_rng(1).standard_normal(12))
    found = ll.line(tilted, grid=3, spans=[(-2.0, 0.5)], directions=[Direction(d, "given")])
    expected = 2 * float(d.norm() / tilted.theta.norm())
    assert found.settings["relative_radius"] == [pytest.approx(expected, rel=1e-12)]


def test_a_symmetric_loss_gives_a_symmetric_surface(quadratic):
    objective = quadratic(torch.eye(4).double(), torch.zeros(2, 2).double())
    vectors = torch.eye(4).double()[:2]
    losses = ll.plane(objective, grid=6, directions=tuple(Direction(v, "axis") for v in vectors)).losses
    np.testing.assert_array_equal(losses, losses[::-1])
    np.testing.assert_array_equal(losses, losses.T)


def test_a_loss_that_is_not_finite_stays_so():
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0)
    objective = Objective(model, [None], lambda m, _: (m.weight.log().sum(), 1))
    losses = ll.line(objective, grid=5, radius=2).losses
    assert math.isnan(losses[0])
    assert np.isfinite(losses[2])


def test_equal_seeds_give_equal_surfaces(sasrec_objective):
    a, b = (ll.plane(sasrec_objective, grid=3, seed=4).losses for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "kwargs", [{"grid": 1}, {"radius": 0}, {"radius": math.inf}, {"directions": [None, None]}]
)
def test_slices_that_span_nothing_are_refused(tilted, kwargs):
    with pytest.raises(InputError):
        ll.line(tilted, **kwargs)

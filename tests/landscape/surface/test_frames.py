"""Where to look: eigenvectors, between checkpoints, along a training."""

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.surface.directions import Direction, coordinates, cosine, difference, perpendicular, principal
from landscape.surface.frames import between_frame, eigen_frame, trajectory_frame
from landscape.surface.geometry import convex_share, doubling_widths, quadratic_model
from landscape.surface.loss_cache import LossCache
from landscape.surface.sampler import doubling_radius, evaluate_slice
from tests.results import shown

RNG = np.random.default_rng(0)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def bowl(quadratic):
    """L = xᵀAx/2 + 1 with eigenvalues 8, 4, 2, -1 along no axis, at its stationary point."""
    rotation = torch.linalg.qr(torch.from_numpy(RNG.standard_normal((4, 4))))[0]
    matrix = rotation @ torch.diag(vector(8, 4, 2, -1)) @ rotation.T
    objective = quadratic(matrix, torch.zeros(4).double())
    objective._bound.loss = lambda model, _: (model() + 1, 1)
    return objective


@pytest.mark.parametrize(("ends", "expected"), [(False, (8, 4)), (True, (8, -1))])
def test_a_plane_of_eigenvectors_has_their_curvatures(bowl, ends, expected):
    frame = eigen_frame(bowl, 2, ends)
    assert [d.details["eigenvalue"] for d in frame.directions] == pytest.approx(expected, rel=1e-3)
    result = evaluate_slice(bowl, frame)
    x, y = np.meshgrid(*result.coordinates, indexing="ij")
    np.testing.assert_allclose(result.losses, 1 + (expected[0] * x**2 + expected[1] * y**2) / 2, atol=1e-2)
    assert result.directions[0]["norm"] == pytest.approx(1)
    (along,) = eigen_frame(bowl, 1, ends).directions
    assert along.details["eigenvalue"] == pytest.approx(expected[-1] if ends else expected[0], rel=1e-3)


def test_eigenvectors_are_never_mirrored(sasrec_objective):
    a, b = (eigen_frame(sasrec_objective, 2, seed=seed).directions for seed in (0, 7))
    for one, other in zip(a, b, strict=True):
        assert float(one.vector @ other.vector) > 0.99


def test_a_plane_through_three_checkpoints_passes_through_their_losses(sasrec_objective):
    theta = sasrec_objective.theta
    generator = torch.Generator().manual_seed(0)
    others = {n: theta + 0.1 * torch.randn(len(theta), generator=generator).double() for n in "bc"}
    frame = between_frame(sasrec_objective, others, 2, "a")
    u, v = (d.vector for d in frame.directions)
    assert abs(float(u @ v)) < 1e-10 * float(u @ u)
    assert float(u.norm()) == pytest.approx(float(v.norm()))
    result = evaluate_slice(sasrec_objective, frame, grid=3)
    for mark, point in zip(result.marks, (theta, *others.values()), strict=True):
        assert mark["loss"] == pytest.approx(sasrec_objective.value(point), rel=1e-9)
        assert all(
            low < x < high for x, (low, high) in zip(mark["at"], result.settings["spans"], strict=True)
        )


def test_the_line_between_two_goes_from_one_to_the_other(bowl):
    other = vector(1, 0, 2, 0)
    result = evaluate_slice(bowl, between_frame(bowl, {"b": other}, 1, "a"))
    assert result.settings["spans"] == [[-0.25, 1.25]]
    assert [mark["at"] for mark in result.marks] == [[0.0], [pytest.approx(1.0)]]
    assert result.marks[1]["loss"] == pytest.approx(bowl.value(other))


def test_too_many_points_or_none_between_are_refused(bowl):
    a, b, c = vector(1, 0, 0, 0), vector(0, 1, 0, 0), vector(2, 0, 0, 0)
    for others, dimension in (({}, 1), ({"b": a, "c": b}, 1), ({"b": a, "c": b, "d": c}, 2)):
        with pytest.raises(InputError, match="a line takes 2"):
            between_frame(bowl, others, dimension, "a")
    with pytest.raises(InputError, match="on one line"):
        between_frame(bowl, {"b": a, "c": c}, 2, "a")
    with pytest.raises(InputError, match="two checkpoints are called 'b'"):
        between_frame(bowl, {"b": a, "c": b}, 2, "b")
    with pytest.raises(InputError, match="the same point"):
        between_frame(bowl, {"b": bowl.theta.clone()}, 1, "a")
    with pytest.raises(InputError, match="4 and 3 parameters"):
        difference(a, a[:3])


def test_principal_components_of_points_on_a_plane_hold_all_of_their_variance():
    basis = torch.linalg.qr(torch.from_numpy(RNG.standard_normal((50, 2))))[0].T
    steps = torch.from_numpy(RNG.standard_normal((9, 2))) * vector(3, 1)
    points = steps @ basis + 1
    directions = principal(points)
    shares = [d.details["explained_variance"] for d in directions]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > shares[1]
    for d in directions:
        assert float(d.vector.norm()) == pytest.approx(1)
        assert d.vector[d.vector.abs().argmax()] > 0
    for point in points:
        x, y = coordinates(point - points[0], directions)
        torch.testing.assert_close(points[0] + x * directions[0].vector + y * directions[1].vector, point)


def test_shares_of_variance_are_those_of_a_singular_value_decomposition():
    points = torch.from_numpy(RNG.standard_normal((7, 20)))
    values = np.linalg.svd((points - points.mean(0)).numpy(), compute_uv=False) ** 2
    found = [d.details["explained_variance"] for d in principal(points)]
    np.testing.assert_allclose(found, values[:2] / values.sum(), rtol=1e-10)


@pytest.mark.parametrize("height", [1e-2, 1e-4])
def test_a_flat_trajectory_has_its_second_component_in_float32_too(height):
    """Its Gram matrix in float32 would be off by 1e-7 of the first component's share."""
    theta, u, v = torch.from_numpy(RNG.standard_normal((3, 20_000))).float()
    places = ((0.0, 0.0), (3.0, 1.0), (5.0, -1.0), (10.0, 0.5), (8.0, 0.2))
    points = torch.stack([theta + x * u + height * y * v for x, y in places])
    for found, exact in zip(principal(points), principal(points.double()), strict=True):
        assert abs(cosine(found, exact)) == pytest.approx(1, abs=1e-5)
        share = "explained_variance"
        assert found.details[share] == pytest.approx(exact.details[share], rel=1e-4)


@pytest.mark.parametrize("length", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_a_line_span_no_plane_though_they_are_rounded(length, dtype):
    theta, u = torch.from_numpy(RNG.standard_normal((2, 20_000))).to(dtype)
    with pytest.raises(InputError, match="fewer than 2"):
        principal(torch.stack([theta + length * x * u for x in (0.0, 0.3, 0.5, 1.0)]))


def test_a_trajectory_lies_on_its_plane_and_ends_at_the_centre(bowl):
    points = [bowl.theta + s * vector(1, 2, 0, 0) + s**2 * vector(0, 0, 1, 0) for s in (3.0, 2.0, 1.0, 0.0)]
    result = evaluate_slice(bowl, trajectory_frame(bowl, points), grid=3)
    assert result.trajectory.shape == (4, 2)
    np.testing.assert_allclose(result.trajectory[-1], 0, atol=1e-12)
    points_at = LossCache(bowl, trajectory_frame(bowl, points).directions)
    for point, step in zip(points, result.trajectory, strict=True):
        assert points_at.at(step[None])[0] == pytest.approx(bowl.value(point))
    with pytest.raises(InputError, match="span fewer than 2"):
        trajectory_frame(bowl, points[:2])


def test_what_a_projection_leaves_out_is_perpendicular_to_its_plane(quadratic, symmetric):
    objective = quadratic(symmetric, torch.linspace(-1, 2, 12).double())
    theta = objective.theta
    sizes = torch.linspace(0.1, 10, 12)  # and far from θ
    sizes[-1] = 100  # far longer along one axis than along the other
    points = [theta + 90 + sizes * torch.from_numpy(RNG.standard_normal(12)) for _ in range(5)]
    frame = trajectory_frame(objective, points)
    for point, step, loss, apart in zip(
        points, frame.trajectory, frame.along["losses"], frame.along["distances"], strict=True
    ):
        assert loss == pytest.approx(objective.value(point), rel=1e-12)
        assert np.hypot(np.linalg.norm(step), apart) == pytest.approx(float((point - theta).norm()))
        assert apart > 0
    lengths = {round(high - low, 12) for low, high in frame.spans}
    assert len(lengths) == 1  # both axes share a scale
    for (low, high), steps in zip(frame.spans, frame.trajectory.T, strict=True):
        assert low < min(0, *steps)
        assert high > max(0, *steps)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.ones(4), "directions must be a list of Direction"),
        ([torch.ones(4)], "directions must be a list of Direction"),
        (Direction(vector(1, 0, 0, 0), "mine"), "directions must be a list of Direction"),
        ([], r"expected 1 direction\(s\), found 0"),
        ([Direction(vector(1, 0, 0, 0), "mine")] * 2, r"expected 1 direction\(s\), found 2"),
        ([Direction(vector(1), "mine")], r"is of \(1,\) on cpu; it must be a tensor like objective.theta"),
        ([Direction(vector(1, 0, 0, 0)[None], "mine")], r"is of \(1, 4\) on cpu"),
        ([Direction(np.ones(4), "mine")], "is none; it must be a tensor"),
        ([Direction(vector(0, 0, 0, 0), "mine")], "zero, not finite or complex"),
        ([Direction(vector(1, 0, np.nan, 0), "mine")], "zero, not finite or complex"),
        ([Direction(1j * vector(1, 0, 0, 0), "mine")], "zero, not finite or complex"),
    ],
)
def test_what_is_no_direction_of_the_objective_is_refused(bowl, directions, message):
    with pytest.raises(InputError, match=message):
        ll.line(bowl, directions=directions)


def test_the_quadratic_model_refuses_them_too(bowl):
    with pytest.raises(InputError, match=r"is of \(1,\) on cpu"):
        quadratic_model(bowl, [Direction(vector(1), "mine")])


def test_parallel_directions_span_no_plane(bowl):
    along = vector(1, 2, 3, 4)
    with pytest.raises(InputError, match="are parallel, so they do not span a plane"):
        ll.plane(bowl, directions=[Direction(along, "mine"), Direction(-2 * along, "mine")])


@pytest.mark.parametrize("where", [[0.0], [0.0, 1.0, 2.0], 1.0, [0.0, np.nan]])
def test_a_place_on_a_plane_is_two_finite_numbers(where):
    axes = [axis(0), axis(1)]
    for more in ({"marks": {"here": where}}, {"trajectory": np.array([where, where])}):
        with pytest.raises(InputError, match=r"is 2 finite number\(s\), one per direction"):
            ll.Frame(axes, **more)


@pytest.mark.parametrize("point", [vector(1), vector(1, 2, 3, 4)[None], {"weight": vector(1)}, np.ones(4)])
def test_a_point_of_another_model_is_refused(bowl, point):
    with pytest.raises(InputError, match=r"is not one of this objective|expected a landscape\.Objective"):
        between_frame(bowl, {"b": point}, 1, "a")
    with pytest.raises(InputError, match=r"is not one of this objective|expected a landscape\.Objective"):
        trajectory_frame(bowl, [bowl.theta, point, point])


def test_no_points_span_no_plane(bowl):
    with pytest.raises(InputError, match="span fewer than 2"):
        trajectory_frame(bowl, [])


def test_coordinates_along_directions_that_depend_on_each_other_are_refused():
    with pytest.raises(InputError, match="depend on each other"):
        coordinates(vector(1, 2, 3, 4), [axis(0), axis(0)])
    with pytest.raises(InputError, match="must be a tensor like"):
        coordinates(vector(1), [axis(0)])
    with pytest.raises(InputError, match="none are given"):
        coordinates(vector(1), [])


def test_a_trajectory_of_lists_is_an_array(bowl):
    found = evaluate_slice(bowl, ll.Frame([axis(0), axis(1)], trajectory=[[0.0, 1.0], [0.0, 0.5]]), grid=3)
    np.testing.assert_array_equal(found.trajectory, [[0, 1], [0, 0.5]])


def test_a_perpendicular_is_as_long_and_spans_the_same_plane():
    a, b = (difference(torch.zeros(5).double(), torch.from_numpy(RNG.standard_normal(5))) for _ in range(2))
    c = perpendicular(b, a)
    assert float(a.vector @ c.vector) == pytest.approx(0, abs=1e-12)
    assert float(c.vector.norm()) == pytest.approx(float(a.vector.norm()))
    assert float(c.vector @ b.vector) > 0
    assert torch.linalg.matrix_rank(torch.stack([a.vector, b.vector, c.vector])) == 2


def test_the_quadratic_model_is_a_quadratic_loss_itself(bowl):
    result = ll.plane(bowl, directions=[difference(bowl.theta, torch.from_numpy(v)) for v in np.eye(4)[:2]])
    bowl.params.theta.zero_()
    model = quadratic_model(bowl, [difference(bowl.theta, torch.from_numpy(v)) for v in np.eye(4)[:2]])
    np.testing.assert_allclose(model.at(result.coordinates), result.losses, atol=1e-12)


def test_the_quadratic_model_of_a_tilted_loss_is_that_loss(quadratic, symmetric):
    axes = [Direction(torch.from_numpy(RNG.standard_normal(12)), "mine") for _ in range(2)]
    objective = quadratic(symmetric, torch.linspace(-1, 1, 12).double(), torch.ones(12).double())
    for count, grid in ((1, [np.linspace(-1, 2, 4)]), (2, [np.linspace(-1, 2, 4), np.linspace(0, 3, 7)])):
        model, points = quadratic_model(objective, axes[:count]), LossCache(objective, axes[:count])
        steps = np.stack(np.meshgrid(*grid, indexing="ij"), -1)
        expected = points.at(steps.reshape(-1, count)).reshape(steps.shape[:-1])
        np.testing.assert_allclose(model.at(grid), expected, rtol=1e-10)


def test_the_projected_hessian_is_the_dense_one_projected(sasrec_objective, dense_hessian, tmp_path):
    frame = eigen_frame(sasrec_objective, 2)
    model = quadratic_model(sasrec_objective, frame.directions)
    basis = torch.stack([d.vector for d in frame.directions])
    np.testing.assert_allclose(model.hessian, (basis @ dense_hessian @ basis.T).numpy(), atol=1e-9)
    np.testing.assert_allclose(model.gradient, (basis @ sasrec_objective.grad()).numpy(), atol=1e-12)
    loaded = ll.load(model.save(tmp_path / "a.npz"))
    np.testing.assert_array_equal(loaded.hessian, model.hessian)


def axis(index):
    return difference(torch.zeros(4).double(), torch.eye(4).double()[index])


def test_a_parabola_doubles_where_it_should(quadratic):
    objective = quadratic(torch.diag(vector(8, 2, 2, 2)), torch.zeros(4).double())
    objective._bound.loss = lambda model, _: (model() + 1, 1)  # L = 1 + 4 x² + y² + …: doubled at 1/2 and 1
    line = ll.line(objective, directions=[axis(0)], radius=2)
    np.testing.assert_allclose(doubling_widths(line), 0.5, atol=1e-3)
    widths = doubling_widths(ll.plane(objective, directions=[axis(0), axis(1)], radius=2))
    assert widths.min() == pytest.approx(0.5, abs=5e-3)
    assert widths.max() == pytest.approx(1, abs=5e-3)
    assert np.isinf(doubling_widths(ll.line(objective, directions=[axis(0)], radius=0.1))).all()
    assert doubling_radius(LossCache(objective, [axis(0), axis(1)])) == pytest.approx(0.5, rel=0.06)
    assert ll.line(objective, directions=[axis(0)], radius="auto").losses[-1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("least", [1.0, 1e-2, 1e-4, 1e-6, 1e-10])
def test_a_minimum_that_is_nearly_fitted_doubles_where_it_should(quadratic, least):
    """L = c + x² + 4 y² doubles at √c and at √c / 2, also where that is far within the first drawn point."""
    objective = quadratic(torch.diag(vector(2, 8, 2, 2)), torch.zeros(4).double())
    objective._bound.loss = lambda model, _: (model() + least, 1)
    axes, width = [axis(0), axis(1)], least**0.5
    assert doubling_radius(LossCache(objective, axes[:1])) == pytest.approx(width, rel=0.06)
    np.testing.assert_allclose(doubling_widths(ll.line(objective, directions=axes[:1])), width, rtol=0.01)
    widths = doubling_widths(ll.plane(objective, directions=axes))
    assert (widths.min(), widths.max()) == pytest.approx((width / 2, width), rel=0.01)


@pytest.mark.parametrize("grid", [20, 21])
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_doubling_within_a_step_of_a_plain_grid_is_not_known(quadratic, dimension, grid):
    objective = quadratic(torch.diag(vector(2, 2, 2, 2)), torch.zeros(4).double())
    measure = (ll.line, ll.plane)[dimension - 1]
    for least, known in ((0.25, True), (1e-4, False)):
        objective._bound.loss = lambda model, _, least=least: (model() + least, 1)
        widths = doubling_widths(measure(objective, directions=[axis(0), axis(1)][:dimension], grid=grid))
        np.testing.assert_allclose(widths, 0.5 if known else np.nan, rtol=0.03)


def test_a_doubling_that_the_error_could_have_made_is_not_known(quadratic):
    objective = quadratic(torch.diag(vector(2, 2, 2, 2)), torch.zeros(4).double())
    objective._bound.loss = lambda model, _: (model() + 0.01 + 0.1 * (40 * model()).sin() ** 2, 1)
    with pytest.warns(UserWarning, match="do not reach"):
        rough = ll.line(objective, directions=[axis(0)], radius=3)
    assert rough.error > rough.center
    assert np.isnan(doubling_widths(rough)).all()


def test_a_loss_that_is_not_finite_has_doubled():
    losses = np.array([np.inf, 1, 1, 1, 1, 1, 1, np.nan, 1])
    widths = doubling_widths(shown(losses, np.linspace(-1, 1, 9), center=1.0))
    np.testing.assert_allclose(widths, [0.75, 0.5], atol=0.03)  # the last points with a loss


def test_a_loss_that_never_doubles_has_no_automatic_radius(quadratic):
    flat = quadratic(torch.zeros(4, 4).double(), torch.ones(4).double(), torch.zeros(4).double())
    with pytest.raises(InputError, match="which cannot double"):
        ll.line(flat, directions=[axis(0)], radius="auto")
    flat._bound.loss = lambda model, _: (model() + 1, 1)
    with pytest.raises(InputError, match="not doubled at a radius of 64"):
        ll.line(flat, directions=[axis(0)], radius="auto")


def test_how_much_of_a_slice_is_convex(bowl, quadratic):
    saddle = ll.plane(bowl, directions=eigen_frame(bowl, 2, ends=True).directions)
    assert convex_share(saddle) == 0
    assert convex_share(ll.plane(bowl, directions=eigen_frame(bowl, 2).directions)) == 1
    assert convex_share(ll.line(bowl, directions=eigen_frame(bowl, 1).directions)) == 1
    dome = quadratic(-torch.eye(2).double(), torch.zeros(2).double())
    axes = [Direction(direction, "axis") for direction in torch.eye(2).double()]
    assert convex_share(ll.plane(dome, directions=axes, grid=9)) == 0


@pytest.mark.parametrize(("mixed", "share"), [(0.0, 1), (1.9, 1), (-1.9, 1), (2.1, 0), (-2.1, 0)])
def test_convexity_counts_the_mixed_derivative(quadratic, mixed, share):
    """x² + y² + c xy curves upwards along both axes, and is a saddle where |c| > 2."""
    matrix = torch.tensor([[2.0, mixed], [mixed, 2.0]]).double()
    objective = quadratic(matrix, torch.zeros(2).double())
    axes = [Direction(torch.eye(2).double()[i], "axis") for i in (0, 1)]
    assert convex_share(ll.plane(objective, directions=axes, grid=9)) == share


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", [None, 9])
@pytest.mark.parametrize("matrix", [[[2, 0], [0, 0]], [[2, 2], [2, 2]], [[0, 0], [0, 0]]])
def test_a_convex_loss_that_is_flat_or_straight_somewhere_is_convex_all_over(quadratic, matrix, grid, dtype):
    """There a second difference is the rounding of three losses, whose sign is a matter of chance."""
    objective = quadratic(torch.tensor(matrix, dtype=dtype), torch.full((2,), 0.3, dtype=dtype))
    objective._bound.loss = lambda model, _: (model() + 10 + model.theta.sum(), 1)
    axes = [Direction(direction, "axis") for direction in torch.eye(2, dtype=dtype)]
    assert convex_share(ll.plane(objective, directions=axes, grid=grid)) == 1
    assert convex_share(ll.line(objective, directions=axes[1:], grid=grid)) == 1


def test_second_differences_of_uneven_steps_say_nothing():
    x = np.array([0.0, 0.1, 1.0, 2.0])
    assert np.isnan(convex_share(shown(-(x**2), x)))
    assert convex_share(shown(-(np.linspace(0, 2, 4) ** 2), np.linspace(0, 2, 4))) == 0

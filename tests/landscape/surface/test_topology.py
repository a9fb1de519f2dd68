from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import label

import landscape as ll
from landscape import Direction, Objective
from landscape.surface.topology import basins, certified, triangle_error
from tests.conftest import Quadratic

AXES = [Direction(vector, "axis") for vector in torch.eye(2).double()]
FLAT = Objective(
    Quadratic(torch.eye(2).double(), torch.ones(2).double()), [None], lambda model, _: (model(), 1)
)
BLANK = {
    1: ll.line(FLAT, grid=2, directions=AXES[:1]),
    2: ll.plane(FLAT, grid=2, directions=AXES),
}

STEPS = {1: [(1,)], 2: [(1, 0), (0, 1), (1, 1)]}  # to a neighbour; and back
TRIANGLES = {1: np.ones(3), 2: np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]])}


def shown(losses, *coordinates):
    """A slice that shows these losses; its coordinates are the indices unless given."""
    losses = np.asarray(losses, dtype=np.float64)
    axes = coordinates or tuple(np.arange(n, dtype=np.float64) for n in losses.shape)
    return replace(BLANK[losses.ndim], coordinates=axes, losses=losses, nodes=axes, samples=losses)


def pairs(found):
    return sorted((basin.birth, basin.death) for basin in found)


def wells(x, y):
    """Two wells: at (-1, 0) of loss 0 and at (1, 0) of loss 1/4; between them a pass at (0, 0) of loss 1."""
    return np.minimum((x + 1) ** 2, (x - 1) ** 2 + 0.25) + y**2


def wells_on(grid):
    axis = np.linspace(-2, 2, grid)
    return shown(wells(axis[:, None], axis), axis, axis)


def test_a_paraboloid_has_one_basin(quadratic):
    at = torch.tensor([0.5, -0.25]).double()
    objective = quadratic(torch.diag(torch.tensor([2.0, 3.0]).double()), at)
    for grid, radius in ((9, 1.0), (24, 3.0)):
        (basin,) = basins(ll.plane(objective, grid=grid, radius=radius, directions=AXES))
        assert (basin.death, basin.saddle, basin.parent) == (np.inf, None, None)
    (basin,) = basins(ll.plane(objective, grid=9, directions=AXES))
    assert basin.at == (-0.5, 0.25)
    assert basin.birth == 0


def bowl(quadratic):
    """One basin, along a valley against the diagonal of the triangles."""
    matrix = torch.tensor([[1, 0.9], [0.9, 1]], dtype=torch.float64)
    return quadratic(matrix, torch.tensor([0.513, -0.261], dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("grid", [24, 51, 101])
def test_a_valley_across_the_axes_shows_basins_that_shrink_with_the_square_of_the_step(quadratic, grid):
    essential, *made = basins(ll.plane(bowl(quadratic), grid=grid, radius=3.0, directions=AXES))
    assert essential.parent is None
    assert made
    assert made[0].persistence < (6 / (grid - 1)) ** 2


def test_what_triangles_make_of_a_valley_is_not_certified(quadratic):
    plane = ll.plane(bowl(quadratic), radius=3.0, directions=AXES)
    found = basins(plane)
    assert len(found) > 1
    assert len(certified(found, plane.error + triangle_error(plane))) == 1


def test_two_wells_are_certified_between_the_points_too():
    model = Quadratic(torch.eye(2).double(), torch.zeros(2).double())

    def loss(model, _):
        x, y = model.theta
        return (x**2 - 1) ** 2 + x / 10 + y**2, 1

    plane = ll.plane(Objective(model, [None], loss), radius=2.0, directions=AXES)
    deep, shallow = certified(basins(plane), plane.error + triangle_error(plane))
    assert deep.at[0] < 0 < shallow.at[0]


@pytest.mark.parametrize(("x", "y", "mixed"), [(2.0, 0.5, 0.0), (2.0, 0.5, -0.9), (0.5, 2.0, -0.9)])
def test_the_error_of_triangles_is_that_of_chords_of_a_parabola(quadratic, x, y, mixed):
    matrix = torch.tensor([[x, mixed], [mixed, y]]).double()
    objective = quadratic(matrix, torch.zeros(2).double())
    plane = ll.plane(objective, directions=AXES)
    step = 2 / 50
    # f'' h²/8 along an axis, or along the diagonal
    assert triangle_error(plane) == pytest.approx(4 / 3 * max(x, y, x + y + 2 * mixed) * step**2 / 8)
    line = ll.line(objective, directions=AXES[:1])
    assert triangle_error(line) == pytest.approx(4 / 3 * x * 0.02**2 / 8)


def test_two_wells_are_two_basins_of_known_depth():
    deep, shallow = basins(wells_on(9))
    assert (deep.birth, deep.at, deep.death, deep.parent) == (0, (-1, 0), np.inf, None)
    assert (shallow.birth, shallow.at) == (0.25, (1, 0))
    assert (shallow.death, shallow.saddle, shallow.parent) == (1, (0, 0), 0)
    assert shallow.persistence == 0.75


def test_each_period_of_a_cosine_is_a_basin():
    x = np.linspace(0, 3, 25)
    essential, *others = basins(shown(np.cos(2 * np.pi * x), x))
    assert essential.death == np.inf
    assert sorted(basin.at[0] for basin in (essential, *others)) == [0.5, 1.5, 2.5]
    assert sorted(basin.saddle[0] for basin in others) == [1, 2]
    np.testing.assert_allclose([basin.persistence for basin in others], 2)


def test_the_tree_says_which_basin_flows_into_which():
    found = basins(shown([1, 5, 0, 9, 3, 4, 2, 6, 2.5]))
    assert [(b.birth, b.death, b.parent) for b in found] == [
        (0, np.inf, None),
        (2, 9, 0),
        (1, 5, 0),
        (2.5, 6, 1),
        (3, 4, 1),
    ]


@pytest.mark.parametrize("outside", [np.nan, np.inf, -np.inf])
def test_a_wall_of_losses_that_are_not_finite_splits_the_plane(outside):
    losses = wells_on(9).losses.copy()
    losses[4] = outside
    found = basins(shown(losses))
    assert [(b.birth, b.death, b.parent) for b in found] == [(0, np.inf, None), (0.25, np.inf, None)]


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
def test_a_slice_without_a_finite_loss_has_no_basin(shape):
    assert basins(shown(np.full(shape, np.nan))) == []


@pytest.mark.parametrize("shape", [(1,), (5,), (1, 1), (3, 4)])
def test_a_plateau_is_one_basin(shape):
    (basin,) = basins(shown(np.ones(shape)))
    assert basin.at == (0,) * len(shape)


LOSSES = arrays(
    np.float64,
    array_shapes(min_dims=1, max_dims=2, max_side=6),
    elements=st.sampled_from([*map(float, range(7)), np.nan, np.inf]),
)
FINITE = arrays(np.float64, array_shapes(min_dims=1, max_dims=2, max_side=6), elements=st.integers(0, 9))


@given(LOSSES)
def test_pairs_count_the_components_of_every_sublevel_set(losses):
    """#{birth ≤ b, death > d} = how many components of {L ≤ d} hold a point of {L ≤ b}, for all b ≤ d."""
    found = basins(shown(losses))
    levels = np.unique(losses[np.isfinite(losses)])
    for d in levels:
        components, _ = label(losses <= d, TRIANGLES[losses.ndim])
        for b in levels[levels <= d]:
            alive = sum(basin.birth <= b and basin.death > d for basin in found)
            assert alive == np.unique(components[losses <= b]).size


@given(LOSSES)
@example(np.array([0.0, 1.0, 0.0, 1.0, 0.0]))  # equal persistences
def test_a_basin_meets_its_parent_at_its_saddle_and_stands_after_it(losses):
    found = basins(shown(losses))
    assert [b.persistence for b in found] == sorted((b.persistence for b in found), reverse=True)
    for number, basin in enumerate(found):
        assert losses[tuple(map(int, basin.at))] == basin.birth < basin.death
        assert (basin.saddle is None) == (basin.parent is None) == (basin.death == np.inf)
        if basin.parent is None:
            continue
        assert basin.parent < number
        parent = found[basin.parent]
        assert parent.birth <= basin.birth
        assert parent.death >= basin.death
        at, to, saddle = (tuple(map(int, point)) for point in (basin.at, parent.at, basin.saddle))
        assert losses[saddle] == basin.death
        below, _ = label(losses < basin.death, TRIANGLES[losses.ndim])
        assert below[at] != below[to]
        upto, _ = label(losses <= basin.death, TRIANGLES[losses.ndim])
        assert upto[at] == upto[to] == upto[saddle]


@given(FINITE, st.sampled_from([0.25, 2.0, 8.0]), st.integers(-50, 50))
def test_scaling_and_shifting_the_loss_scales_and_shifts_the_tree(losses, scale, shift):
    before, after = basins(shown(losses)), basins(shown(scale * losses + shift))
    for a, b in zip(before, after, strict=True):
        assert (b.birth, b.death) == (scale * a.birth + shift, scale * a.death + shift)
        assert (b.at, b.saddle, b.parent) == (a.at, a.saddle, a.parent)


@given(FINITE)
def test_turning_the_plane_over_keeps_the_pairs(losses):
    assert pairs(basins(shown(losses.T))) == pairs(basins(shown(losses)))
    over = losses[::-1, ::-1] if losses.ndim == 2 else losses[::-1]
    assert pairs(basins(shown(over))) == pairs(basins(shown(losses)))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.18))
@example(8, 1.5e-16)
def test_noise_moves_pairs_by_its_size_and_makes_none_that_are_certified(seed, error):
    """Stability: with ε < 0.75/4, the two wells stay above 2ε, and all that the noise makes stays below."""
    slice = wells_on(9)
    noise = np.random.default_rng(seed).uniform(-error, error, slice.losses.shape)
    deep, shallow = certified(basins(replace(slice, losses=slice.losses + noise)), error)
    assert abs(deep.birth) <= error
    assert deep.death == np.inf
    half = 2.0**-53  # by which the sum of a loss below 2 and its noise is rounded, at most
    assert abs(shallow.birth - 0.25) <= error + half
    assert abs(shallow.death - 1) <= error + half


def test_certified_basins_are_those_of_more_than_twice_the_error():
    found = basins(shown([1, 5, 0, 9, 3, 4, 2, 6, 2.5]))
    for error, kept in ((0, 5), (0.5, 4), (1.9, 3), (2, 2), (3.5, 1), (np.inf, 1), (np.nan, 1)):
        assert certified(found, error) == found[:kept]


@given(FINITE)
def test_pairs_are_those_of_gudhi(losses):
    gudhi = pytest.importorskip("gudhi")
    complex = gudhi.SimplexTree()
    shape = losses.shape
    for at in np.ndindex(shape):
        complex.insert([np.ravel_multi_index(at, shape)], losses[at])
        for step in STEPS[losses.ndim]:
            other = tuple(np.add(at, step))
            if all(x < n for x, n in zip(other, shape, strict=True)):
                edge = [np.ravel_multi_index(p, shape) for p in (at, other)]
                complex.insert(edge, max(losses[at], losses[other]))
    complex.compute_persistence(min_persistence=0, persistence_dim_max=True)
    expected = sorted(map(tuple, complex.persistence_intervals_in_dimension(0).tolist()))
    assert pairs(basins(shown(losses))) == expected

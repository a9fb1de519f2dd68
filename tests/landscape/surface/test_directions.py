import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, ParamSpace, random_direction
from landscape.surface.directions import Direction, coordinates, cosine


@pytest.fixture
def params():
    torch.manual_seed(0)
    return ParamSpace(
        nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Conv1d(3, 2, 2)).double()
    )


def test_every_filter_of_the_direction_has_the_norm_of_the_same_filter_of_the_weights(params):
    d = params.split(random_direction(params, seed=3).vector)
    w = params.split(params.theta)
    for entry in params.entries:
        if entry.filter_axis is None:
            assert not d[entry.name].any()  # biases and norms stand still (Li et al.)
        else:
            got, expected = (t[entry.name].flatten(1).norm(dim=1) for t in (d, w))
            torch.testing.assert_close(got, expected)


def test_single_weights_may_be_filters():
    params = ParamSpace(nn.LayerNorm(5), filter_axes={"weight": 0, "bias": None})
    params.theta[:5] = torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0])
    d = params.split(random_direction(params).vector)["weight"]
    torch.testing.assert_close(d.abs(), params.split(params.theta)["weight"].abs())
    raw = params.split(random_direction(params, normalization="none").vector)["weight"]
    assert torch.equal(d.sign(), raw.sign() * (d != 0))  # and not those of the weights
    scalar = ParamSpace(Scale())
    assert abs(float(random_direction(scalar, biases=True).vector)) == pytest.approx(3.0)


class Scale(nn.Module):
    """A parameter without an axis."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))


def test_the_norm_of_a_large_table_is_not_rounded_as_it_is_summed():
    """Added up in float32, the norm of 2²³ normal numbers is off by 2e-4, and of 2²⁵ by 2e-3."""
    params = ParamSpace(nn.Embedding(2**17, 2**6))
    params.theta.fill_(1.0)  # whose sum is exact
    found = random_direction(params, normalization="layer").vector.double().norm()
    assert float(found) == pytest.approx(float(params.theta.double().norm()), rel=1e-6)


def test_layer_normalization_matches_whole_tensors(params):
    d = params.split(random_direction(params, normalization="layer").vector)
    w = params.split(params.theta)
    torch.testing.assert_close(d["0.weight"].norm(), w["0.weight"].norm())


@pytest.mark.parametrize("normalization", ["filter", "layer"])
def test_what_is_normalized_together_keeps_its_direction(params, normalization):
    drawn, scaled = (
        params.split(random_direction(params, seed=2, normalization=kind).vector)
        for kind in ("none", normalization)
    )
    for entry in params.entries:
        parts = [drawn[entry.name].flatten(1), scaled[entry.name].flatten(1)] if entry.counting else []
        rows = zip(*parts, strict=True) if normalization == "filter" else [parts] if parts else []
        for one, other in rows:
            cos = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
            assert float(cos) == pytest.approx(1, abs=1e-12)


def test_without_normalization_every_coordinate_moves(params):
    assert random_direction(params, normalization="none", biases=True).vector.all()


def test_a_filter_of_zeros_stays_where_it_is(params):
    params.theta[:4] = 0  # the first row of the embedding
    direction = random_direction(params).vector
    assert not direction[:4].any()
    assert direction.isfinite().all()


def test_a_seed_is_a_direction(params):
    a, b = (random_direction(params, seed=5).vector for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, random_direction(params, seed=6).vector)
    assert not torch.equal(a, random_direction(params, seed=5, index=1).vector)
    other = random_direction(params, seed=6).vector
    assert not torch.equal(other, random_direction(params, seed=5, index=1).vector)


def test_directions_have_both_signs_and_are_nearly_orthogonal():
    params = ParamSpace(nn.Linear(100, 100, bias=False))
    a, b = (random_direction(params, seed=0, index=i) for i in range(2))
    assert abs(cosine(a, b)) < 0.05
    assert abs(float((a.vector > 0).float().mean()) - 0.5) < 0.02


def test_coordinates_on_slanted_axes_are_the_steps_that_lead_nearest():
    a, b, beside = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 6)))
    beside -= torch.stack([a, b]).T @ torch.linalg.lstsq(torch.stack([a, b]).T, beside).solution
    found = coordinates(2 * a - 3 * b + beside, [Direction(a, "a"), Direction(b, "b")])
    assert found == pytest.approx([2, -3])


def test_a_direction_that_moves_nothing_is_refused():
    with pytest.raises(InputError, match=r"no filter moves.*--biases"):
        random_direction(ParamSpace(nn.LayerNorm(4)))
    still = nn.Linear(4, 4)
    nn.init.zeros_(still.weight)
    nn.init.zeros_(still.bias)
    with pytest.raises(InputError, match=r"no filter moves.*take part$"):
        random_direction(ParamSpace(still), biases=True)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_filters_of_transposed_convolutions_are_their_outputs(dimension):
    torch.manual_seed(0)
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimension - 1]
    params = ParamSpace(kind(3, 4, 2).double())
    d = params.split(random_direction(params).vector)["weight"]
    w = params.split(params.theta)["weight"]
    over = tuple(axis for axis in range(d.dim()) if axis != 1)
    torch.testing.assert_close(torch.linalg.vector_norm(d, dim=over), torch.linalg.vector_norm(w, dim=over))
    with pytest.raises(AssertionError):  # by the other axis they are not normalized
        torch.testing.assert_close(d.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1))


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 6, 2), (6, 6, 6), (4, 2, 1)])
def test_filters_of_grouped_transposed_convolutions_are_the_outputs_of_each_group(inputs, outputs, groups):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(inputs, outputs, 3, groups=groups, bias=False).double()
    params = ParamSpace(layer)
    direction = params.split(random_direction(params).vector)["weight"]
    x = torch.eye(inputs * 9, dtype=torch.float64).view(
        -1, inputs, 3, 3
    )  # which shows each output its filter
    sizes = []
    for weight in (layer.weight.detach(), direction):
        shown = torch.nn.functional.conv_transpose2d(x, weight, groups=groups)
        sizes.append(shown.movedim(1, 0).flatten(1).norm(dim=1))
    torch.testing.assert_close(*sizes)
    assert len(sizes[0]) == outputs


@pytest.mark.parametrize("normalization", ["filter", "layer", "none"])
def test_biases_and_norms_stand_still_under_every_normalization(params, normalization):
    d = params.split(random_direction(params, normalization=normalization).vector)
    for entry in params.entries:
        assert d[entry.name].any() == (entry.filter_axis is not None)


def test_a_direction_of_a_models_parameters_is_drawn_without_their_graph():
    torch.manual_seed(0)
    a, b = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    objective = ll.Objective(a, [torch.ones(1, 2)], lambda m, x: (m(x).square().sum(), 1))
    towards = (b.weight - a.weight).flatten()
    drawn = ll.line(objective, directions=[Direction(towards, "to b")], grid=5)
    np.testing.assert_array_equal(
        drawn.losses, ll.line(objective, directions=[Direction(towards.detach(), "to b")], grid=5).losses
    )

"""Several models on one scale, several seeds, metrics beside the loss; and what a slice says in numbers."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.cli.output import _plain
from landscape.surface.loss_cache import LossCache
from landscape.surface.sampler import doubling_radius
from landscape.surface.surfaces import facts
from tests.flatness import by_unit


@pytest.fixture
def bowls(quadratic):
    """Two quadratics, of which the flatter one doubles farther out."""
    at, slope = torch.ones(2, 3).double(), torch.full((2, 3), 5.0).double()
    return {
        "flat": quadratic(0.5 * torch.eye(6).double(), at, slope),
        "steep": quadratic(8.0 * torch.eye(6).double(), at),
    }


EXAMPLES = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 3)))


def regression(seed, scale=1):
    """A linear model on 40 examples, under `scale` times its squared error."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(2, 1).double()
    return by_unit(model, [EXAMPLES], lambda m, x: scale * (m(x[:, :2]).squeeze(1) - x[:, 2]).square())


@pytest.fixture
def regressions():
    """Two models on the same examples."""
    return {"a": regression(0), "b": regression(1)}


def test_one_model_and_one_seed_are_its_line_or_plane(bowls):
    """Bit for bit what `line` and `plane` return."""
    for dim, alone in ((1, ll.line), (2, ll.plane)):
        found = ll.surfaces({"steep": bowls["steep"]}, dim=dim, seed=3, radius=0.5).slices["steep"]
        expected = alone(bowls["steep"], seed=3, radius=0.5)
        assert np.array_equal(found.losses, expected.losses)
        assert found.certificate == expected.certificate


def test_an_automatic_radius_is_that_of_the_model_that_doubles_last(bowls):
    found = ll.surfaces(bowls, dim=1, radius="auto", grid=5)
    radii = {
        name: doubling_radius(LossCache(bowl, [ll.random_direction(bowl.params)]))
        for name, bowl in bowls.items()
    }
    assert radii["flat"] > radii["steep"]
    spans = {tuple(map(tuple, s.settings["spans"])) for s in found.slices.values()}
    assert spans == {((-max(radii.values()), max(radii.values())),)}
    assert all(s.losses.max() >= 2 * s.center * (1 - 0.06) for s in found.slices.values())


def test_each_seed_is_a_direction_of_its_own(bowls):
    found = ll.surfaces(bowls, dim=1, grid=3, seed=4, seeds=2)
    assert list(found.slices) == ["flat-seed4", "steep-seed4", "flat-seed5", "steep-seed5"]
    assert found.seeds == dict(zip(found.slices, [4, 4, 5, 5], strict=True))
    groups = found.by_model(found.slices)
    assert {name: len(group) for name, group in groups.items()} == {"flat": 2, "steep": 2}
    assert groups["steep"][1] is found.slices["steep-seed5"]
    for seed in (4, 5):
        expected = ll.line(bowls["flat"], grid=3, seed=seed).losses
        assert np.array_equal(found.slices[f"flat-seed{seed}"].losses, expected)


def test_a_difference_is_paired_over_the_examples_that_both_share(regressions):
    found = ll.surfaces(regressions, dim=1, radius=0.1, tol=0.1)
    (difference,) = found.differences
    (a, weights), (b, _) = (o.per_example() for o in regressions.values())
    assert (difference.of, difference.less) == ("b", "a")
    assert difference.center == pytest.approx((b - a).mean(), rel=1e-12)
    assert difference.standard_error == pytest.approx((b - a).std(ddof=1) / len(weights) ** 0.5, rel=1e-9)
    assert asdict(difference).keys() == {"of", "less", "center", "standard_error"}  # what --json prints


def test_between_models_there_is_one_slice_with_a_mark_for_each(regressions):
    found = ll.surfaces(regressions, dim=1, directions="between", grid=5)
    (result,) = found.slices.values()
    assert [mark["loss"] for mark in result.marks] == pytest.approx([o.value() for o in regressions.values()])
    assert found.differences == []


def test_a_metric_is_evaluated_along_the_lines_of_the_loss(regressions):
    doubled = {"a": regression(0, scale=2), "b": regression(1, scale=2)}
    found = ll.surfaces(regressions, dim=1, grid=5, metrics={"twice": doubled}, seeds=2)
    assert found.metrics["twice"].keys() == found.slices.keys()
    for label, result in found.slices.items():
        np.testing.assert_allclose(found.metrics["twice"][label].losses, 2 * result.losses, rtol=1e-12)


def test_a_metric_of_other_weights_is_refused(regressions):
    """It would be drawn along the same directions, around another point."""
    swapped = {"a": regression(1, scale=2), "b": regression(0, scale=2)}
    with pytest.raises(InputError, match=r"metrics\['twice'\]\['a'\] is at other weights than the model"):
        ll.surfaces(regressions, dim=1, grid=5, metrics={"twice": swapped})


def test_results_are_kept_in_a_folder_and_points_are_not_evaluated_twice(bowls, tmp_path):
    first, again = (
        ll.surfaces(bowls, dim=1, grid=5, quadratic=True, folder=tmp_path, metrics={"m": bowls})
        for _ in range(2)
    )
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{name}.{part}"
        for name in bowls
        for part in ("surface.npz", "quadratic.npz", "points.jsonl", "m.surface.npz", "m.points.jsonl")
    }
    assert ll.load(tmp_path / "flat.surface.npz").losses.tolist() == first.slices["flat"].losses.tolist()
    assert [s.evaluations for s in again.slices.values()] == [1, 1]
    assert again.slices["flat"].losses.tolist() == first.slices["flat"].losses.tolist()
    model = first.quadratics["steep"]  # of a quadratic, the model is the loss
    np.testing.assert_allclose(model.at(first.slices["steep"].coordinates), first.slices["steep"].losses)


def test_a_trajectory_ends_at_the_model(bowls):
    theta = bowls["flat"].theta
    steps = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6)))
    way = [*(theta + step for step in steps), theta]
    one = {"flat": bowls["flat"]}
    found = ll.surfaces(one, directions="trajectory", trajectories={"flat": way}, grid=3).slices["flat"]
    assert found.trajectory.shape == (5, 2)
    np.testing.assert_allclose(found.trajectory[-1], 0, atol=1e-9)


@pytest.mark.parametrize("given", [{}, [1], "a", 1])
def test_surfaces_takes_objectives_by_name(given):
    with pytest.raises(InputError, match="takes objectives by name"):
        ll.surfaces(given)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"directions": "eigen", "seeds": 2}, "does not depend on the seed"),
        ({"directions": "trajectory", "dim": 1}, "on a plane"),
        ({"directions": "trajectory"}, "trajectories must hold an entry for each model.* none of 'flat'"),
        ({"metrics": {"m": {}}}, r"metrics\['m'\] must hold an entry for each model.* none of 'flat'"),
        ({"metrics": {"m": 1}}, r"metrics\['m'\] must hold an entry for each model.* none of 'flat'"),
        ({"directions": "between", "dim": 1, "radius": 1}, "a line takes 2"),
    ],
)
def test_what_does_not_go_together_is_refused(bowls, asked, message):
    with pytest.raises(InputError, match=message):
        ll.surfaces({"flat": bowls["flat"]}, grid=2, **asked)


def test_facts_are_numbers_that_json_holds(bowls):
    fitted = ll.surfaces({"flat": bowls["flat"]}, dim=1, radius=0.5).slices["flat"]
    found = facts(fitted)
    assert json.loads(json.dumps(_plain(found)))["certificate"]["reached"] is True
    (basin,) = found["basins"]
    assert basin["persistence"] == np.inf
    assert (found["min"], found["max"]) == fitted.range
    assert found["convex_share"] == 1
    assert facts(ll.line(bowls["flat"], grid=3))["basins"] is None

"""Points: each evaluated once, in any way, and kept."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Direction, Objective, random_direction
from landscape.surface.points import Points
from landscape.surface.ways import PLAIN, ways

STEPS = np.random.default_rng(0).uniform(-1, 1, (30, 2))


class StopError(Exception):
    pass


def directions(objective, seed=0):
    return [random_direction(objective.params, seed, index=i) for i in range(2)]


def counted(objective, limit=10**9):
    """Let an objective count its evaluations, and fail after so many."""
    calls = []
    value = objective.value

    def count(theta=None):
        calls.append(theta)
        if len(calls) > limit:
            raise StopError
        return value(theta)

    objective.value = count
    objective.twin = lambda: objective  # threads count too
    return calls


@pytest.fixture
def fresh(split):
    """A new objective of a small SASRec, each time it is called."""
    from samrec.data.packing import TrainingBatches
    from samrec.losses import bce
    from tests.conftest import small_sasrec

    def build(seed=0):
        batches = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:40], 17, (0,))
        return Objective(small_sasrec(split, seed), batches, bce)

    return build


@pytest.mark.parametrize("number", range(3))
def test_every_way_gives_the_same_losses(fresh, number, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    objective = fresh()
    found = ways(objective, directions(objective))
    assert [way.name for way in found] == [PLAIN, "2 threads, a point each", "4 at once"]
    steps = [tuple(step) for step in STEPS[:7]]
    losses = list(found[number].losses(steps))
    np.testing.assert_allclose(losses, list(found[0].losses(steps)), rtol=1e-12)


def test_threads_leave_the_number_of_threads_alone(fresh, monkeypatch):
    before = torch.get_num_threads()
    objective = fresh()
    (way,) = (
        (w for w in ways(objective, directions(objective)) if "threads" in w.name) if before > 1 else (None,)
    )
    if way is None:
        pytest.skip("one thread alone")
    losses = way.losses([tuple(step) for step in STEPS])
    next(losses)
    losses.close()
    assert torch.get_num_threads() == before


def test_a_step_is_evaluated_once(fresh):
    objective = fresh()
    calls = counted(objective)
    points = Points(objective, directions(objective))
    first = points.at(np.concatenate([STEPS[:5], STEPS[:5], [[0.0, -0.0]]]))
    assert len(calls) == 1 + 5  # and the centre
    np.testing.assert_array_equal(points.at(STEPS[:5]), first[:5])
    assert first[-1] == points.center
    assert (len(calls), points.evaluations) == (6, 5)


def test_a_loss_that_vmap_cannot_follow_goes_one_after_another():
    model = nn.Linear(2, 1).double()

    def loss(model, batch):
        total = model(batch).square().sum()
        return (total if total.item() > 0 else total * 0), 1  # control flow that looks at a value

    objective = Objective(model, [torch.ones(3, 2).double()], loss)
    points = Points(
        objective, [random_direction(objective.params, 0, "none", i, biases=True) for i in (0, 1)]
    )
    losses = points.at(STEPS)
    assert np.isfinite(losses).all()
    assert "at once" not in points.way
    assert losses[3] == objective.value(points.theta(STEPS[3]))


def test_an_interrupted_run_goes_on_and_equals_an_unbroken_one(quadratic, symmetric, tmp_path):
    def fresh():
        return quadratic(symmetric, torch.linspace(-1, 2, 12).double().view(3, 4))

    unbroken = ll.plane(fresh())
    file = tmp_path / "points.jsonl"
    done = 0
    for limit in (4, 9, 23):  # interrupted again and again
        objective = fresh()
        counted(objective, limit)
        with pytest.raises(StopError):
            ll.plane(objective, file=file)
        lines = file.read_text().splitlines()
        assert len(lines) > done
        done = len(lines)
        with file.open("a") as torn:
            torn.write("[0.1, 0.2, 0.3")  # killed while writing
    objective = fresh()
    calls = counted(objective)
    resumed = ll.plane(objective, file=file)
    assert resumed.settings["reused"] > 20
    assert len(calls) < unbroken.evaluations
    np.testing.assert_allclose(resumed.losses, unbroken.losses, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(resumed.nodes[0], unbroken.nodes[0])
    again = ll.plane(fresh(), file=file)
    np.testing.assert_array_equal(again.losses, resumed.losses)
    assert again.evaluations == 1


def test_points_of_other_settings_are_never_used(fresh, tmp_path):
    file = tmp_path / "points.jsonl"
    ll.line(fresh(), grid=5, file=file)
    before = file.read_text()
    assert ll.line(fresh(), grid=5, file=file).settings["reused"] == 4
    for objective, changes in ((fresh(), {"seed": 1}), (fresh(seed=1), {})):
        changed = ll.line(objective, grid=5, file=file, **changes)
        assert changed.settings["reused"] == 0
        np.testing.assert_array_equal(changed.losses, ll.line(objective, grid=5, **changes).losses)
        assert file.read_text() != before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\n", b"[]\n", b'{"fingerprint": 1}\n[1, 2]\n', b"[" * 9999]
)
def test_a_damaged_file_of_points_is_begun_anew(fresh, tmp_path, content):
    file = tmp_path / "points.jsonl"
    file.write_bytes(content)
    result = ll.line(fresh(), grid=5, file=file)
    assert result.settings["reused"] == 0
    assert ll.line(fresh(), grid=5, file=file).settings["reused"] == 4


def test_losses_that_are_not_finite_come_back_as_they_were(tmp_path):
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    objective = Objective(model, [None], lambda m, _: (m.weight.log().sum(), 1))
    step = [Direction(torch.ones(1).double(), "given")]
    file = tmp_path / "points.jsonl"
    first = ll.line(objective, grid=5, radius=2, directions=step, file=file)
    again = ll.line(objective, grid=5, radius=2, directions=step, file=file)
    assert again.settings["reused"] == 4
    np.testing.assert_array_equal(first.losses, again.losses)
    assert np.isnan(first.losses[0])
    assert np.isneginf(first.losses[1])


def test_a_choice_is_kept_with_the_points(fresh, tmp_path):
    file = tmp_path / "points.jsonl"
    objective = fresh()
    points = Points(objective, directions(objective), file)
    points.at(STEPS)
    said = [line for line in map(json.loads, file.read_text().splitlines()) if isinstance(line, dict)]
    assert said[-1]["way"] == points.way
    assert Points(objective, directions(objective), file).way == points.way

"""Points: each evaluated once, by any strategy, and kept."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Direction, Objective, random_direction
from landscape.surface.loss_cache import LossCache
from landscape.surface.strategies import by_rule, strategies

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
    objective.clone = lambda: objective  # threads count too
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
def test_every_strategy_gives_the_same_losses(fresh, number, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    objective = fresh()
    found = strategies(objective, directions(objective))
    assert list(map(str, found)) == ["sequential", "2 threads, a point each", "vmap, 4 points at once"]
    steps = [tuple(step) for step in STEPS[:7]]
    losses = list(found[number].losses(steps))
    np.testing.assert_allclose(losses, list(found[0].losses(steps)), rtol=1e-12)


def test_threads_leave_the_number_of_threads_alone(fresh, monkeypatch):
    before = torch.get_num_threads()
    objective = fresh()
    if before == 1:
        pytest.skip("torch has one thread")
    (strategy,) = (s for s in strategies(objective, directions(objective)) if s.name == "threads")
    losses = strategy.losses([tuple(step) for step in STEPS])
    next(losses)
    losses.close()
    assert torch.get_num_threads() == before


def test_a_step_is_evaluated_once(fresh):
    objective = fresh()
    calls = counted(objective)
    points = LossCache(objective, directions(objective))
    first = points.at(np.concatenate([STEPS[:5], STEPS[:5], [[0.0, -0.0]]]))
    checks = len(calls) - (1 + 5)  # and the centre
    assert checks == (points.compared and points.compared + 7)  # and whether clones are independent
    np.testing.assert_array_equal(points.at(STEPS[:5]), first[:5])
    assert first[-1] == points.center
    assert (len(calls) - checks, points.evaluations) == (6, 5)


def branching():
    model = nn.Linear(2, 1).double()

    def loss(model, batch):
        total = model(batch).square().sum()
        return (total if total.item() > 0 else total * 0), 1  # control flow that looks at a value

    objective = Objective(model, [torch.ones(3, 2).double()], loss)
    return objective, [random_direction(objective.params, 0, "none", i, biases=True) for i in (0, 1)]


def test_a_loss_that_vmap_cannot_follow_goes_one_after_another(monkeypatch):
    objective, axes = branching()
    # as on a GPU, where the rule is vmap
    monkeypatch.setattr("landscape.surface.loss_cache.by_rule", lambda offered, *_: offered[-1])
    points = LossCache(objective, axes)
    losses = points.at(STEPS)
    assert points.strategy == "sequential"
    assert losses[3] == objective.value(points.theta(STEPS[3]))
    with pytest.raises(ll.InputError, match="vmap cannot follow this loss"):
        LossCache(objective, axes, strategy="vmap").at(STEPS)


def test_strategies_follow_from_device_size_and_memory(fresh, monkeypatch):
    objective = fresh()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    offered = strategies(objective, directions(objective))
    assert [by_rule(offered, count, on_gpu=False).name for count in (1, 2, 3, 99)] == [
        "sequential",
        "sequential",
        "threads",
        "threads",
    ]
    assert by_rule(offered, 1, on_gpu=True).name == "vmap"
    monkeypatch.setattr("landscape.surface.strategies.free_memory", lambda _: 0)
    (only,) = strategies(objective, directions(objective))
    assert by_rule([only], 99, on_gpu=True).name == by_rule([only], 99, on_gpu=False).name == "sequential"


@pytest.mark.parametrize(
    ("asked", "said"),
    [("sequential", "sequential"), ("threads", "2 threads, a point each"), ("vmap", "vmap, 4")],
)
def test_a_strategy_that_is_asked_for_is_used_and_said(fresh, monkeypatch, asked, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found = ll.line(fresh(), grid=5, strategy=asked)
    assert found.settings["strategy"].startswith(said)
    np.testing.assert_allclose(found.losses, ll.line(fresh(), grid=5, tune=True).losses, rtol=1e-12)


def test_a_strategy_that_there_is_not_is_refused(fresh):
    with pytest.raises(ll.InputError, match="strategy is 'warp'; it must be one of sequential"):
        ll.line(fresh(), grid=5, strategy="warp")


def test_an_evaluation_enters_the_objective_once(fresh):
    """Walked through: from the surface, each point is `objective.moved(θ).value()`, which copies no θ."""
    entered = Counter()

    def watch(frame, event, _):
        if event != "call" or "/landscape/objective/" not in frame.f_code.co_filename:
            return
        if "/landscape/surface/" in frame.f_back.f_code.co_filename:
            entered[frame.f_code.co_name] += 1

    def calls(grid):
        entered.clear()
        sys.setprofile(watch)
        try:
            ll.plane(objective, grid=grid, strategy="sequential")
        finally:
            sys.setprofile(None)
        return Counter(entered)

    objective = fresh()
    assert calls(7) - calls(3) == {"moved": 7 * 7 - 3 * 3, "value": 7 * 7 - 3 * 3}


def test_an_interrupted_run_goes_on_and_equals_an_unbroken_one(quadratic, symmetric, tmp_path):
    def fresh():
        return quadratic(symmetric, torch.linspace(-1, 2, 12).double().view(3, 4))

    objective = fresh()
    calls = counted(objective)
    unbroken = ll.plane(objective)
    checks = len(calls) - unbroken.evaluations  # of threads, where there are any
    file = tmp_path / "points.jsonl"
    done = 0
    for limit in (4, 9, 23):  # interrupted again and again
        objective = fresh()
        counted(objective, limit + checks)
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
    assert len(calls) - checks < unbroken.evaluations
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


def test_points_of_other_parameters_of_equal_values_are_never_used(tmp_path):
    """As two biases have at the start of a training, or the second matrices of two adapters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.bias)
    batches = [(torch.randn(9, 3), torch.randn(9, 1))]
    whole = ll.supervised(model, batches, nn.MSELoss())
    first, other = (whole.restrict([name]) for name in ("0.bias", "2.bias"))
    way = [Direction(torch.ones(4), "mine")]
    file = tmp_path / "points.jsonl"
    ll.line(first, directions=way, grid=3, file=file)
    found = ll.line(other, directions=way, grid=3, file=file)
    assert found.settings["reused"] == 0
    assert found.losses[2] == other.value(torch.ones(4))
    assert found.losses[2] != first.value(torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_a_direction_may_be_in_any_precision(dtype, tmp_path):
    model = nn.Linear(3, 1)
    objective = ll.supervised(model, [(torch.randn(9, 3), torch.randn(9, 1))], nn.MSELoss())
    way = [Direction(torch.tensor([1, 0, 2, -1], dtype=dtype), "mine")]
    found = ll.line(objective, directions=way, grid=3, file=tmp_path / "points.jsonl")
    assert found.losses[2] == objective.value(objective.theta + way[0].vector.float())


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


@pytest.mark.parametrize("options", [{"strategy": "vmap"}, {"tune": True}])
def test_a_choice_is_kept_with_the_points(fresh, tmp_path, options):
    file = tmp_path / "points.jsonl"
    objective = fresh()
    points = LossCache(objective, directions(objective), file, **options)
    points.at(STEPS[:20])
    said = [line for line in map(json.loads, file.read_text().splitlines()) if isinstance(line, dict)]
    assert said[-1]["strategy"] == points.strategy
    again = LossCache(objective, directions(objective), file)
    assert again.strategy == points.strategy
    again.at(STEPS)
    assert again.strategy == points.strategy


def test_a_log_of_an_earlier_version_goes_on(fresh, tmp_path):
    file = tmp_path / "points.jsonl"
    first = ll.line(fresh(), grid=5, file=file)
    lines = [line for line in file.read_text().splitlines() if "strategy" not in line]
    file.write_text("\n".join([lines[0], '{"way": "4 at once"}', *lines[1:]]) + "\n")
    again = ll.line(fresh(), grid=5, file=file)
    assert again.settings["reused"] == 4
    np.testing.assert_array_equal(again.losses, first.losses)

"""Each faster way to evaluate a slice gives the loss itself, or is dropped."""

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.surface.loss_cache import LossCache
from landscape.surface.strategies import strategies
from tests.landscape.objective.test_differences import Net, X, Y, total


def test_rows_that_weights_choose_are_read_wherever_they_lead():
    """A router: far away the loss reads rows that it does not read at θ."""

    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.scores, self.table = nn.Parameter(torch.linspace(1, 0, 50)), nn.Embedding(50, 3)

        def forward(self):
            return self.table(self.scores.argmax()).square().sum() + self.scores.square().sum()

    objective = Objective(Router().double(), [None], lambda m, _: (m(), 1))
    assert objective.compact() is not None
    found = ll.plane(objective, grid=5, radius=2, normalization="none", biases=True)
    axes = [ll.random_direction(objective.params, 0, "none", i, biases=True).vector for i in (0, 1)]
    expected = [
        [objective.value(objective.theta + a * axes[0] + b * axes[1]) for b in found.coordinates[1]]
        for a in found.coordinates[0]
    ]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)


def test_evaluations_that_share_what_a_hook_writes_run_one_after_another(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    caught, net = {}, nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 1))
    net[2].register_forward_hook(lambda module, inputs, output: caught.__setitem__("h", output))

    def shared(model, x):
        model(x)
        return caught["h"].square().sum(), len(x)

    def names(loss):
        objective = Objective(net.double(), [X], loss)
        axes = [ll.random_direction(objective.params, 0, index=i) for i in (0, 1)]
        return [strategy.name for strategy in strategies(objective, axes)]

    assert "threads" not in names(shared)
    assert "threads" in names(lambda model, x: (model(x).square().sum(), len(x)))


def test_a_faster_strategy_that_errs_is_dropped(monkeypatch):
    objective = Objective(Net().double(), [(X, Y)], total)
    axes = [ll.random_direction(objective.params, 0, index=i) for i in (0, 1)]
    monkeypatch.setattr(Objective, "values", lambda self, thetas: np.zeros(len(thetas)))
    monkeypatch.setattr("landscape.surface.loss_cache.by_rule", lambda offered, *_: offered[-1])
    points = LossCache(objective, axes)
    found = points.at(np.array([[0.1, 0.2], [0.5, 0.5]]))
    assert points.strategy == "sequential"
    assert found[1] == objective.value(points.theta((0.5, 0.5)))
    with pytest.raises(InputError, match="vmap gives other losses"):
        LossCache(objective, axes, strategy="vmap").at(np.array([[0.1, 0.2]]))


def vmapped(monkeypatch, values):
    """Points of a small network by `vmap`, as on a GPU, of `values(objective, thetas, own)` in its place."""
    objective, own = Objective(Net().double(), [(X, Y)], total), Objective.values
    axes = [ll.random_direction(objective.params, 0, index=i) for i in (0, 1)]
    monkeypatch.setattr(Objective, "values", lambda self, thetas: values(self, thetas, own(self, thetas)))
    monkeypatch.setattr("landscape.surface.loss_cache.by_rule", lambda offered, *_: offered[-1])
    return LossCache(objective, axes)


FARTHER = np.linspace([0.01, 0.02], [0.5, 1.0], 12)


def test_a_faster_strategy_that_errs_far_out_alone_is_dropped(monkeypatch):
    def values(objective, thetas, own):
        away = (thetas - objective.theta).norm(dim=1) / objective.theta.norm()
        return np.where(away.numpy() > 0.5, 1.01 * own, own)

    points = vmapped(monkeypatch, values)
    expected = [points.objective.value(points.theta(step)) for step in FARTHER]
    np.testing.assert_allclose(points.at(FARTHER), expected, rtol=1e-12)
    assert points.strategy == "sequential"


def test_where_vmap_fails_midway_each_point_keeps_its_own_loss(monkeypatch):
    calls = []

    def values(objective, thetas, own):
        calls.append(len(thetas))
        if len(calls) > 2:  # after the comparison, and the first points
            raise MemoryError
        return own

    points = vmapped(monkeypatch, values)
    expected = [points.objective.value(points.theta(step)) for step in FARTHER]
    np.testing.assert_allclose(points.at(FARTHER), expected, rtol=1e-12)
    assert (len(calls), points.strategy) == (3, "sequential")

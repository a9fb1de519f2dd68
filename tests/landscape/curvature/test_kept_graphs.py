"""Graphs are kept as long as memory lasts, each by what it holds itself."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape.curvature import operators
from landscape.runtime.devices import measured


@pytest.mark.parametrize("sizes", [[40] * 6, [1, *[40] * 5], [*[40] * 5, 1]], ids=["equal", "small", "large"])
def test_graphs_are_kept_as_their_own_memory_allows(sizes, monkeypatch):
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))
    batches = [(torch.randn(n, 8), torch.randint(3, (n,))) for n in sizes]
    objective = ll.supervised(model, batches, F.cross_entropy)
    graphs = [
        measured(lambda b=batch: operators.HessianReverse(objective, b), objective.theta.device)
        for batch in batches
    ]
    held = [size for _, size in graphs]
    assert max(held) > 2 * 4 * 40 * 64  # two layers of activations at least
    room = 3.5 * max(held)
    free = 2 * (room - held[0])  # beside the first graph, which is there
    monkeypatch.setattr(operators, "free_memory", lambda _: free)
    count = len(operators._Graphs(objective, operators.HessianReverse, graphs[0], None).kept)
    assert sum(held[:count]) + max(held) <= room < sum(held[: count + 1]) + max(held)
    assert math.isfinite(float(ll.hessian(objective)(torch.ones_like(objective.theta)).sum()))

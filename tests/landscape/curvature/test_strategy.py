"""How products are computed follows from a rule: what it costs, what it chooses, what overrides it."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import InputError
from landscape.curvature import operators, products
from tests.conftest import ROOT
from tests.worlds import dense, world


@pytest.fixture
def multiplied(monkeypatch):
    """Count products of batches with vectors, by every strategy."""
    counts = []
    for kind in (products.HessianReverse, products.HessianForward, products.HessianDifferences):

        def counted(self, vector, at_once=False, original=kind.__call__):
            counts.append(len(vector[0]) if at_once else 1)
            return original(self, vector, at_once)

        monkeypatch.setattr(kind, "__call__", counted)
    return counts


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trace_of_30_probes_takes_30_products(multiplied, monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    of = world("MLP")
    operator = ll.hessian(of)
    assert sum(multiplied) <= 2  # the first batch's, by which symmetry is checked
    multiplied.clear()
    found = ll.trace(operator, probes=30)
    assert sum(multiplied) == 30 * len(of.batches)
    assert found.settings["products"] == 30
    assert found.settings["strategy"] == operator.strategy
    multiplied.clear()
    ll.trace(of, probes=30)
    assert sum(multiplied) <= 30 * len(of.batches) + 2


def test_the_rule_is_kept_graphs_in_a_thread_each(monkeypatch):
    of = world("MLP")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert ll.hessian(of).strategy == "reverse over reverse, 2 of 2 graphs kept, 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # than batches
    assert ll.hessian(of).strategy == "reverse over reverse, 2 of 2 graphs kept"
    monkeypatch.setattr(operators, "free_memory", lambda _: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert ll.hessian(of).strategy == "reverse over reverse, 0 of 2 graphs kept"


@pytest.mark.parametrize("strategy", ["reverse", "forward", "differences"])
@pytest.mark.parametrize("tune", [False, True])
def test_a_strategy_that_is_asked_for_or_measured_gives_the_same_product(strategy, tune):
    of = world("MLP")
    operator = ll.hessian(of, strategy, tune=tune)
    assert operator.strategy.startswith(strategy)
    rows = torch.randn(3, of.params.numel, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(operator.many(rows), rows @ dense(of, "hessian"), rtol=1e-5, atol=1e-7)


def test_several_vectors_at_once_fall_back_to_one_after_another():
    of = world("MLP")
    operator = ll.hessian(of, "differences")  # which has no product of several at once
    operator.at_once = 8
    rows = torch.eye(of.params.numel).double()[:3]
    torch.testing.assert_close(operator.many(rows), dense(of, "hessian")[:3], rtol=1e-5, atol=1e-7)
    assert operator.at_once == 1


class Bent(torch.nn.Module):
    """½ xᵀAx + Σ max(0, x_i - k_i), which has the Hessian A wherever it has one."""

    def __init__(self, kinks):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.nn.Parameter(torch.randn(6, generator=generator, dtype=torch.float64))
        half = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        self.matrix, self.kinks = half @ half.T, self.x.detach() + kinks

    def forward(self):
        return self.x @ self.matrix @ self.x / 2 + torch.relu(self.x - self.kinks).sum()


@pytest.mark.parametrize("near", [0.0, 1e-8, -1e-8, 1e-7, 1e-6, -1e-6, 1e-5])
@pytest.mark.parametrize("one", [False, True])
def test_differences_of_gradients_pass_by_kinks(near, one):
    """Between the points of a difference, one would make up a curvature of its jump by the step."""
    kinks = torch.full((6,), near, dtype=torch.float64)
    kinks[3 * one :] *= 1 if one else torch.tensor([1, -1, 2, -3, 5, -2])
    model = Bent(kinks)
    objective = ll.Objective(model, [0], lambda model, _: (model(), 1), check=False)
    products = ll.hessian(objective, "differences").many(torch.ones(3, 6).double().triu(1))
    expected = torch.ones(3, 6).double().triu(1) @ model.matrix
    torch.testing.assert_close(products, expected, rtol=1e-4, atol=1e-4)


def test_a_strategy_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="strategy is 'sideways'; it must be one of reverse, forward"):
        ll.hessian(world("MLP"), "sideways")


SCRIPT = """
import hashlib, numpy as np, torch
import landscape as ll
from tests.worlds import world

torch.set_num_threads(2)
digest = hashlib.sha256()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 7))
batches = [(torch.randn(90, 20), torch.randint(7, (90,))) for _ in range(5)]
network = ll.supervised(model, batches, torch.nn.functional.cross_entropy)
for objective in (world("causal transformer"), network):
    plane = ll.plane(objective, tol=1e-2)
    pairs = ll.top_eigenpairs(objective, 3, max_products=60)
    power = ll.top_eigenpairs(objective, 1, "power", max_products=10)
    trace, density = ll.trace(objective), ll.spectral_density(objective, probes=2, steps=8)
    for array in (plane.losses, plane.samples, pairs.eigenvalues, pairs.eigenvectors, power.eigenvalues,
                  trace.samples, *density.nodes):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((plane.settings["strategy"], pairs.settings["strategy"])).encode())
print(digest.hexdigest())
"""


def test_equal_settings_give_equal_digits_in_two_processes():
    runs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2)
    ]
    said = [run.communicate(timeout=300)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1]
    assert len(said[0]) == 64


class Halved(torch.autograd.Function):
    """Cross-entropy with the right gradient, whose derivative is half of the true one."""

    @staticmethod
    def forward(ctx, scores, targets):
        ctx.save_for_backward(scores, targets)
        return F.cross_entropy(scores, targets, reduction="sum")

    @staticmethod
    def backward(ctx, grad):
        scores, targets = ctx.saved_tensors
        p = scores.softmax(-1)
        return grad * ((p + p.detach()) / 2 - F.one_hot(targets, p.shape[1])), None


def test_a_criterion_with_a_wrong_second_derivative_has_no_gauss_newton_matrix():
    torch.manual_seed(0)
    model, batch = nn.Linear(4, 3), (torch.randn(8, 4), torch.randint(3, (8,)))

    def objective(criterion, **options):
        return ll.Objective(
            model,
            [batch],
            lambda model, batch: (criterion(model(batch[0]), batch[1]), 8),
            forward=lambda model, batch: model(batch[0]),
            criterion=lambda outputs, batch: (criterion(outputs, batch[1]), 8),
            **options,
        )

    right = ll.top_eigenpairs(ll.gauss_newton(objective(partial(F.cross_entropy, reduction="sum"))), k=1)
    with pytest.raises(InputError, match=r"criterion's reverse mode has a derivative .* wrong"):
        ll.gauss_newton(objective(Halved.apply))
    wrong = ll.top_eigenpairs(ll.gauss_newton(objective(Halved.apply, check=False)), k=1)
    assert wrong.eigenvalues == pytest.approx(right.eigenvalues / 2)

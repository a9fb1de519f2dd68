"""Batches that take different ways through one model: each way is checked, and not the first alone."""

import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError
from landscape.curvature.products import unit_slopes
from tests.landscape.objective.test_differences import (
    BY_DIFFERENCES,
    Kept,
    Net,
    X,
    Y,
    slope,
    total,
    values_of,
)

LONG, SHORT = (X[:20], Y[:20]), (X[20:], Y[20:])


class Forked(Net):
    """Takes another kernel for small batches, whose second derivative is wrong."""

    def forward(self, x):
        h = self.a(x)
        return self.b(Kept.apply(h) if len(x) < 12 else nn.functional.silu(h))


def forked():
    return Forked().double()


@pytest.mark.parametrize("batches", [[LONG, SHORT], [SHORT, LONG], [LONG, LONG, SHORT]])
def test_products_are_those_of_all_batches_whichever_way_they_take(batches):
    class Plain(Net):
        def forward(self, x):
            return self.b(nn.functional.silu(self.a(x)))

    v = torch.randn(43, generator=torch.Generator().manual_seed(1)).double()
    expected = ll.hessian(ll.Objective(Plain().double(), batches, total))(v)
    with pytest.warns(UserWarning, match=r"reverse mode has a derivative .*wrong.*differences of gradients"):
        found = ll.hessian(ll.Objective(forked(), batches, total))(v)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(InputError, match="derivative of this loss wrong"):
        ll.Objective(forked(), batches, total).hvp(v)


@pytest.mark.parametrize(
    "measure", [ll.gauss_newton, ll.empirical_fisher, lambda of: unit_slopes(of, of.theta)]
)
def test_a_jacobian_is_checked_on_each_way(measure):
    class Detached(torch.autograd.Function):
        """Its backward pass has no graph, and J v would be 0."""

        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z**3

        @staticmethod
        def backward(ctx, along):
            return 3 * ctx.saved_tensors[0].detach() ** 2 * along.detach()

    class Cubic(Net):
        def forward(self, x):
            h = self.a(x)
            return self.b(Detached.apply(h) if len(x) < 12 else h**3)

    of = ll.supervised(Cubic().double(), [LONG, SHORT], nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="backward pass that torch cannot differentiate"):
        measure(of)
    assert measure(ll.supervised(Cubic().double(), [LONG], nn.CrossEntropyLoss())) is not None


def test_batches_that_take_one_way_are_checked_once():
    counts = [ll.Objective(Net().double(), [LONG] * n, total) for n in (1, 4)]
    evaluations = []
    for of in counts:
        ll.hessian(of)
        evaluations.append(int(of.provenance["derivatives"].split()[-2]))
    assert evaluations[1] <= evaluations[0] + 4 + 4  # a look at each batch, and those of the gradient of all


@pytest.mark.filterwarnings(BY_DIFFERENCES)
@pytest.mark.parametrize("seed", [0, 10])
def test_a_gradient_a_little_wrong_is_refused_by_products_too(seed):
    """Where a product does not agree, a slope that agrees in float32 proves nothing."""

    class Louder(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.tanh()

        @staticmethod
        def backward(ctx, along):
            return 1.01 * along * (1 - ctx.saved_tensors[0].tanh() ** 2)

    model = Net(Louder.apply)
    torch.manual_seed(seed)
    for p in model.parameters():
        nn.init.uniform_(p, -0.5, 0.5)
    theta, value = values_of(model.double(), (X, Y))
    own = ll.Objective(model, [(X, Y)], total, check=False).grad()
    assert float((own - slope(value, theta)).norm() / own.norm()) > 1e-3
    for measure in (ll.hessian, ll.top_eigenpairs):
        with pytest.raises(InputError, match="not the slope of the loss"):
            measure(ll.Objective(model.float(), [(X.float(), Y)], total))

"""H and its Gauss-Newton part have one diagonal where outputs are piecewise affine in each weight tensor."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape.curvature.operators import of_same_diagonal
from landscape.objective.affine import affine_in_each
from tests.worlds import Square, dense, signs, softmax, world
from tests.worlds import built as objective_of


class Residual(nn.Module):
    """What a ResNet is made of: convolutions, BatchNorm, a sum, maxima and means."""

    def __init__(self, activation):
        super().__init__()
        self.one, self.past = (nn.Conv2d(1, 2, 3, padding=1) for _ in range(2))
        self.norm, self.activation, self.out = nn.BatchNorm2d(2), activation, nn.Linear(4, 3)
        self.two = nn.Conv2d(2, 2, 3, padding=1, stride=2)

    def forward(self, x):
        x = self.activation(self.norm(self.one(x))) + self.past(x)
        x = self.activation(self.two(F.max_pool2d(x, 2)))
        return self.out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


def residual(activation):
    torch.manual_seed(0)
    model = Residual(activation).double()
    model(torch.randn(20, 1, 6, 6).double())  # gives the running statistics something to hold
    data = [(torch.randn(n, 1, 6, 6).double(), torch.randint(3, (n,))) for n in (4, 3)]
    return objective_of(model, data, softmax)


PIECEWISE = [nn.ReLU(), nn.LeakyReLU(), nn.ReLU6(), nn.Hardtanh()]


@pytest.mark.parametrize("activation", PIECEWISE, ids=str)
def test_the_hessian_of_a_piecewise_linear_network_has_the_diagonal_of_its_gauss_newton_part(activation):
    of = residual(activation)
    hessian, part = dense(of, "hessian"), dense(of, "gauss-newton")
    assert float((hessian - part).norm()) > 0.1 * float(hessian.norm())  # they are two matrices
    torch.testing.assert_close(hessian.diag(), part.diag(), rtol=1e-9, atol=1e-12)
    found = ll.trace(of, probes=20)
    assert found.settings["strategy"].startswith("Jᵀ(Hℓ)J")
    assert found.settings["matrix"] == "hessian"
    assert found.provenance["derivatives"].startswith("checked")
    z = signs(20, len(part))
    np.testing.assert_allclose(found.samples, ((z @ part.numpy()) * z).sum(1), rtol=1e-9)
    norm = ll.frobenius_norm(of, probes=20)  # of the Hessian itself, which is the larger one
    np.testing.assert_allclose(norm.samples, np.square(z @ hessian.numpy()).sum(1), rtol=1e-9)
    again = ll.trace(ll.hessian(of), probes=20)
    np.testing.assert_array_equal(again.samples, found.samples)
    measured = ll.sharpness(of, ["trace", "frobenius"], probes=20)
    np.testing.assert_array_equal(measured.by_draw[0], found.samples)
    assert measured.measures["frobenius"].value == ll.frobenius_norm(of, probes=20).value
    for method in ("hutch++", "xtrace"):
        assert ll.trace(of, method=method, probes=60).value == pytest.approx(float(hessian.trace()), rel=0.05)
    each = ll.diagonal(of, probes=400)
    assert np.all(np.abs(each.values - hessian.diag().numpy()) <= 6 * each.standard_errors + 1e-12)


def test_its_noise_is_far_smaller():
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(30, 30), nn.ReLU())]
    of = ll.supervised(
        nn.Sequential(*layers, nn.Linear(30, 3)).double(),
        [(torch.randn(20, 30).double(), torch.randint(3, (20,)))],
        F.cross_entropy,
    )
    products, z = ll.hessian(of), torch.from_numpy(signs(30, of.params.numel))
    hutchinson = (z * products.many(z)).sum(1)
    found = ll.trace(of, probes=30)
    assert found.standard_error < float(hutchinson.std()) / 30**0.5 / 3
    assert abs(found.value - float(hutchinson.mean())) < 3 * float(hutchinson.std()) / 30**0.5


@pytest.mark.parametrize(("memory", "kept"), [(None, 2), (1, 0)])
def test_it_keeps_graphs_in_the_memory_that_the_hessian_had(memory, kept):
    found = ll.trace(ll.hessian(residual(nn.ReLU()), memory=memory), probes=2)
    assert f"{kept} of 2 graphs kept" in found.settings["strategy"]  # and on two cores: ", 2 threads"


def penalized(decay):
    """A loss with a penalty on its weights, which its outputs do not tell."""
    of = residual(nn.ReLU())
    z, (x, y) = (lambda model, batch: model(batch[0])), of.batches[0]

    def loss(model, batch):
        penalty = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(z(model, batch), batch[1], reduction="sum") + decay * penalty, len(y)

    return ll.Objective(
        of._bound.model,
        [(x, y)],
        loss,
        forward=z,
        criterion=lambda outputs, batch: (F.cross_entropy(outputs, batch[1], reduction="sum"), len(y)),
    )


def test_other_matrices_and_other_losses_are_what_they_were():
    for name in ("MLP", "convolution", "causal transformer"):  # tanh, softplus, attention
        assert of_same_diagonal(world(name)) is world(name)
    of = residual(nn.ReLU())
    for operator in (ll.gauss_newton(of), ll.empirical_fisher(of)):
        assert of_same_diagonal(operator) is operator
    model, batch = nn.Linear(2, 2).double(), torch.ones(3, 2).double()
    whole = ll.Objective(model, [batch], lambda model, x: (model(x).square().sum(), len(x)))
    assert of_same_diagonal(whole) is whole  # which does not tell its outputs
    decayed = penalized(1e-6)
    assert of_same_diagonal(decayed) is decayed  # whose penalty is a millionth of the loss
    plain = penalized(0.0)
    assert of_same_diagonal(plain) is not plain
    for moved in (0.0, 1.0):  # a penalty on the distance from θ is 0 at θ, as is one on weights that are 0
        model = nn.Linear(2, 2).double()
        model.load_state_dict({name: moved * p for name, p in model.state_dict().items()})
        anchored = _anchored(model, [(batch, torch.tensor([0, 1, 1]))])
        assert of_same_diagonal(anchored) is anchored
        trace = float(dense(anchored, "hessian").trace())
        found = ll.trace(anchored, probes=100)
        assert abs(found.value - trace) <= 5 * found.standard_error
    curved = ll.supervised(residual(nn.GELU())._bound.model, of.batches, F.cross_entropy)
    assert of_same_diagonal(curved) is curved
    last = curved.restrict(["out.weight", "out.bias"])  # in which the outputs are affine, whatever is before
    assert of_same_diagonal(last) is not last
    torch.testing.assert_close(dense(last, "hessian").diag(), dense(last, "gauss-newton").diag())


@pytest.mark.parametrize("sign", [1, -1])
def test_a_batch_that_takes_a_curved_way_through_the_model_tells_of_all(sign):
    class Ways(nn.Sequential):
        def forward(self, x):
            z = self[0](x)
            return self[1](z.relu() if x.sum() > 0 else z.tanh())

    torch.manual_seed(0)
    x, y = sign * torch.rand(4, 3).double(), torch.randint(3, (4,))
    of = ll.supervised(Ways(nn.Linear(3, 4), nn.Linear(4, 3)).double(), [(x, y), (-x, y)], F.cross_entropy)
    assert of_same_diagonal(of) is of


def _anchored(model, batches):
    """A loss with a penalty on the distance from the present weights, which its outputs do not tell."""
    begun = {name: p.detach().clone() for name, p in model.named_parameters()}

    def criterion(outputs, batch):
        return F.cross_entropy(outputs, batch[1], reduction="sum"), len(batch[1])

    def loss(model, batch):
        fit, count = criterion(model(batch[0]), batch)
        return fit + sum((p - begun[n]).square().sum() for n, p in model.named_parameters()), count

    return ll.Objective(
        model, batches, loss, forward=lambda model, batch: model(batch[0]), criterion=criterion
    )


class Add(Square):
    """One of somebody's own, which calls itself a sum."""


class Of(nn.Module):
    """A function of the input and two layers, and of a third one."""

    def __init__(self, function, third=None):
        super().__init__()
        self.a, self.b, self.c, self.function = nn.Linear(4, 4), nn.Linear(4, 4), third, function

    def forward(self, x):
        return self.function(self, x)


NOT = {
    "tanh": (lambda m, x: torch.tanh(m.a(x)),),
    "a layer after itself": (lambda m, x: m.a(m.a(x)),),
    "a product of two that depend on one": (lambda m, x: m.a(x) * m.b(m.a(x)),),
    "attention": (lambda m, x: F.scaled_dot_product_attention(*[m.a(x)[None, None]] * 3),),
    "LayerNorm": (lambda m, x: m.c(m.a(x)), lambda: nn.LayerNorm(4)),
    "statistics of the batch": (lambda m, x: m.c(m.a(x)), lambda: nn.BatchNorm1d(4)),
    "a quotient": (lambda m, x: x / m.a(x),),
    "weight norm": (lambda m, x: m.c(x), lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
    "a function of one's own": (lambda m, x: Add.apply(m.a(x)),),
    "an RNN": (lambda m, x: m.c(x)[0], lambda: nn.RNN(4, 16, nonlinearity="relu")),
    "PReLU twice": (lambda m, x: m.c(m.b(m.c(m.a(x)))), nn.PReLU),
    "softmax": (lambda m, x: m.a(x).softmax(1),),
    "the size of a complex number": (lambda m, x: (m.a(x) + 1j * m.b(x)).abs(),),
    "a convex function": (lambda m, x: m.a(x).pow(2) + F.celu(m.b(x)),),
}
IS = {
    "two layers": (lambda m, x: m.b(m.a(x).relu()),),
    "one layer in two branches": (lambda m, x: m.a(x) + m.a(2 * x).abs(),),
    "a product of two": (lambda m, x: m.a(x) * m.b(x),),
    "PReLU": (lambda m, x: m.c(m.a(x)), nn.PReLU),
    "a mask": (lambda m, x: torch.where(x > 0, m.a(x), 0.0) / 3,),
    "kept statistics": (lambda m, x: m.c(m.a(x)), lambda: nn.BatchNorm1d(4).eval()),
    "a transposed convolution": (lambda m, x: m.c(m.a(x)[None, None]), lambda: nn.ConvTranspose2d(1, 1, 2)),
    "pooled and resized": (
        lambda m, x: F.interpolate(F.max_pool2d(m.a(x)[None, None], 2), scale_factor=2, mode="bilinear"),
    ),
    "what has no weights": (lambda m, x: m.a(x.sin()),),
    "sorted, gathered, clamped": (lambda m, x: m.a(x).sort(1).values[:, [0, 2]].clamp(-1, 1).cumsum(1),),
}


@pytest.mark.parametrize(("name", "answer"), [*((n, False) for n in NOT), *((n, True) for n in IS)])
def test_what_is_affine_in_each_tensor(name, answer):
    """And so it is by second differences, with a step in which there is no kink."""
    torch.manual_seed(0)
    function, *third = (NOT | IS)[name]
    model, x = Of(function, *(made() for made in third)).double(), torch.randn(3, 4).double()
    outputs = model(x)
    assert affine_in_each(outputs, list(model.parameters())) == answer
    largest = 0.0
    for weight in model.parameters():
        here, along = weight.data.clone(), torch.randn_like(weight)
        found = []
        for step in (1e-5, 0, -1e-5):
            weight.data = here + step * along
            found.append(model(x).detach())
        weight.data = here
        largest = max(largest, float((found[0] - 2 * found[1] + found[2]).abs().max()) / 1e-10)
    assert (largest < 1e-3) == answer

"""Each matrix against itself written out in float64, on five small models."""

import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator, eigsh
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective
from landscape.curvature import operators
from landscape.curvature.operators import MATRICES
from landscape.curvature.products import unit_slopes
from landscape.tasks import TaskOptions
from samrec.data.packing import TrainingBatches
from samrec.losses import loss_of, parts_of
from samrec.task import objective
from tests.conftest import small_sasrec
from tests.landscape.curvature.test_linear import Matrix
from tests.worlds import WORLDS, Square, dense, signs, world


def vectors(of, count):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, of.params.numel, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", WORLDS)
def test_products_are_those_of_the_matrix_written_out(name, matrix):
    of = world(name)
    operator, exact, three = MATRICES[matrix](of), dense(of, matrix), vectors(of, 3)
    for v in three:
        torch.testing.assert_close(operator(v), exact @ v, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator.many(three), three @ exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", WORLDS)
def test_hessian_products_are_differences_of_the_gradient(name):
    of, (v,) = world(name), vectors(world(name), 1)
    h = 1e-5
    difference = (of.grad(of.theta + h * v) - of.grad(of.theta - h * v)) / (2 * h)
    torch.testing.assert_close(ll.hessian(of)(v), difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("strategy", ["reverse", "forward"])
@pytest.mark.parametrize("name", WORLDS)
def test_a_hessian_product_is_the_same_by_every_strategy(name, strategy):
    of, three = world(name), vectors(world(name), 3)
    operator = ll.hessian(of, strategy)
    expected = torch.stack([of.hvp(v) for v in three])
    operator.at_once = 2
    torch.testing.assert_close(operator.many(three), expected, rtol=1e-10, atol=1e-10)
    assert operator.at_once == 2  # and vmap followed
    operator.at_once = 1
    torch.testing.assert_close(operator.many(three), expected, rtol=1e-10, atol=1e-10)
    assert strategy in operator.strategy


def test_graphs_that_do_not_fit_are_built_anew(monkeypatch):
    of, (v,) = world("MLP"), vectors(world("MLP"), 1)
    expected = of.hvp(v)
    monkeypatch.setattr(operators, "free_memory", lambda _: 0)
    operator = ll.hessian(of, "reverse")
    assert operator.strategy == "reverse over reverse, 0 of 2 graphs kept"
    torch.testing.assert_close(operator(v), expected, rtol=1e-12, atol=1e-12)


def test_a_loss_that_forward_mode_cannot_follow_is_differentiated_in_reverse():
    of = Objective(nn.Linear(2, 1).double(), [None], lambda m, _: (Square.apply(m.weight).sum(), 1))
    assert ll.hessian(of)(torch.ones(3).double()).tolist() == [2, 2, 0]
    with pytest.raises(InputError, match="forward mode"):
        ll.hessian(of, "forward")


@pytest.mark.parametrize("settings", [{}, {"block": 3}, {"basis": 0}], ids=["plain", "blocks", "restarts"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", WORLDS)
def test_top_eigenvalues_are_those_of_the_matrix_written_out(name, matrix, settings):
    of = world(name)
    exact = torch.linalg.eigvalsh(dense(of, matrix)).flip(0).numpy()
    smallest = 2 if matrix == "hessian" else 0  # the others have 0 many times, and a Krylov space has it once
    found = ll.top_eigenpairs(MATRICES[matrix](of), 5, smallest=smallest, tol=1e-9, **settings)
    np.testing.assert_allclose(found.eigenvalues, exact[:5], atol=1e-8)
    np.testing.assert_allclose(found.smallest_eigenvalues, exact[::-1][:smallest], atol=1e-8)
    assert all(found.converged + found.smallest_converged)


@pytest.mark.parametrize("name", WORLDS)
def test_power_iteration_finds_both_ends(name):
    of = world(name)
    exact = torch.linalg.eigvalsh(dense(of, "hessian")).numpy()
    found = ll.top_eigenpairs(of, 1, "power", tol=1e-6, max_products=40_000)
    assert found.eigenvalues[0] == pytest.approx(exact[np.abs(exact).argmax()], abs=1e-8)
    assert found.smallest == pytest.approx(exact[0], abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_trace_is_within_three_standard_errors_in_99_of_100_seeds(name):
    exact = dense(world(name), "hessian")  # the matrix itself: 6,000 products by autograd take ten seconds
    found = [ll.trace(Matrix(exact), probes=60, seed=seed) for seed in range(100)]
    within = [abs(t.value - float(exact.trace())) <= 3 * t.standard_error for t in found]
    assert np.mean(within) >= 0.99


@pytest.mark.parametrize("name", WORLDS)
def test_the_moments_of_the_density_are_those_of_the_matrix(name):
    """On the probes that it draws: the mean of zᵀHᵏz, z random signs."""
    of, exact = world(name), dense(world(name), "hessian").numpy()
    found = ll.spectral_density(of, probes=3, steps=30)
    for k in range(1, 7):
        expected = np.mean([z @ np.linalg.matrix_power(exact, k) @ z for z in signs(3, of.params.numel)])
        assert found.moment(k)[0] == pytest.approx(expected, rel=1e-6)


def test_scipy_takes_an_operator_as_it_is():
    of = world("MLP")
    operator, exact = ll.hessian(of), dense(of, "hessian")
    expected = torch.linalg.eigvalsh(exact).numpy()
    np.testing.assert_allclose(eigsh(operator, 3, which="LA", return_eigenvectors=False), expected[-3:])
    two = np.random.default_rng(0).standard_normal((of.params.numel, 2))
    linear = aslinearoperator(operator)
    np.testing.assert_allclose(linear @ two, exact.numpy() @ two, atol=1e-12)
    np.testing.assert_allclose(linear.T @ two[:, 0], exact.numpy() @ two[:, 0], atol=1e-12)


def test_blocks_of_a_matrix_are_those_of_its_groups():
    of = world("causal transformer")
    exact = dense(of, "hessian")
    for group in of.params.groups:
        part = of.restrict(group=group)
        inside = of.params.join(
            {e.name: torch.full(e.shape, e.group == group) for e in of.params.entries}
        ).bool()
        torch.testing.assert_close(dense(part, "hessian"), exact[inside][:, inside], rtol=1e-12, atol=1e-12)
        (v,) = vectors(part, 1)
        torch.testing.assert_close(ll.hessian(part)(v), exact[inside][:, inside] @ v, rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match="no parameter group 'conv'; groups: embedding"):
        of.restrict(group="conv")


def test_gauss_newton_and_hessian_agree_where_the_model_is_linear():
    of = world("logistic regression")
    (v,) = vectors(of, 1)
    torch.testing.assert_close(ll.gauss_newton(of)(v), ll.hessian(of)(v), rtol=1e-12, atol=1e-14)


def test_matrices_that_an_objective_was_not_built_for_are_refused(quadratic):
    plain = quadratic(torch.eye(2).double(), torch.ones(2).double())
    with pytest.raises(InputError, match="forward and criterion"):
        ll.gauss_newton(plain)
    with pytest.raises(InputError, match="per_example"):
        ll.empirical_fisher(plain)


@pytest.mark.parametrize("unit", [1.0, 1e-9])
def test_parts_that_do_not_make_up_the_loss_are_refused(unit):
    def criterion(z, x):
        return unit * z.square().sum(), len(x)

    model, batch = nn.Linear(2, 1).double(), torch.ones(3, 2).double()
    for share in (1.0, 0.5):
        of = Objective(
            model,
            [batch],
            lambda m, x, share=share: (share * criterion(m(x), x)[0], len(x)),
            forward=lambda m, x: m(x),
            criterion=criterion,
        )
        if share == 1:
            assert ll.gauss_newton(of).name == "gauss-newton"
        else:
            with pytest.raises(InputError, match=r"criterion\(forward\) is"):
                ll.gauss_newton(of)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_parts_may_differ_by_the_rounding_of_a_loss_that_is_nearly_fitted(weight):
    """A ten-millionth of what the loss is elsewhere: float32 knows no digit of it."""
    model, batch = nn.Linear(2, 1, bias=False), torch.ones(3, 2)
    nn.init.constant_(model.weight, weight)
    for unit in (1.0, 1e-9):

        def loss(z, shift, unit=unit):
            return unit * ((z - 2 * weight + shift).square().sum() + 2e-7), 3

        of = Objective(
            model,
            [batch],
            lambda m, x, loss=loss: loss(m(x), 0.0),
            forward=lambda m, x: m(x),
            criterion=lambda z, x, loss=loss: loss(z, 1e-4),
        )
        assert ll.gauss_newton(of).name == "gauss-newton"


class Outside(torch.autograd.Function):
    """x³, with a backward pass that torch does not see, as where it is a kernel of somebody's own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return (3 * ctx.saved_tensors[0].detach() ** 2) * gradient.detach()


class Cubic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(Outside.apply(self.first(x)))


def test_a_backward_pass_without_a_graph_is_refused():
    """J v is taken by differentiating Jᵀw, and would leave out all that lies before the function."""
    torch.manual_seed(0)
    batch = torch.randn(6, 2), torch.randint(2, (6,))
    of = ll.supervised(Cubic(), [batch], nn.CrossEntropyLoss())
    for measure in (ll.gauss_newton, ll.empirical_fisher, lambda of: unit_slopes(of, of.theta)):
        with pytest.raises(InputError, match="backward pass that torch cannot differentiate"):
            measure(of)
    unchecked = ll.supervised(Cubic(), [batch], nn.CrossEntropyLoss(), check=False)
    assert ll.gauss_newton(unchecked).shape == (17, 17)


class Bags(nn.Embedding):
    """The mean of a row of ids, by a function whose backward pass torch cannot differentiate."""

    def forward(self, ids):
        return F.embedding_bag(ids, self.weight)


def bag():
    return Bags(6, 3).double(), torch.randint(6, (5, 4)), nn.CrossEntropyLoss()


def margin():
    return nn.Linear(4, 3).double(), torch.randn(5, 4).double(), lambda z, y: 2 * F.multi_margin_loss(z, y)


@pytest.mark.parametrize("make", [bag, margin])
def test_where_torch_lacks_a_second_derivative_what_needs_none_is_measured(make):
    torch.manual_seed(0)
    model, x, criterion = make()
    of = ll.supervised(model, [(x, torch.randint(3, (5,)))], criterion)
    with warnings.catch_warnings(action="ignore"):
        assert ll.hessian(of).strategy == "differences of gradients"
        found = ll.sharpness(of, steps=1, samples=2, probes=2).measures
    assert found["gradient-norm"].value == pytest.approx(float(of.grad().norm()), rel=1e-12)
    assert "fisher-rao" not in found
    for refused in (
        ll.empirical_fisher,
        lambda of: ll.hessian(of, "reverse"),
        lambda of: of.hvp(of.theta),
        lambda of: ll.sharpness(of, ["fisher-rao"]),
    ):
        with pytest.raises(InputError, match=r"torch lacks a derivative of this loss: .*not implemented"):
            refused(of)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0, 0.0]).double()])
@pytest.mark.parametrize("p", [1, 2])
def test_the_matrix_of_a_multi_margin_loss(p, weight):
    """Sᵧ = (2 w_y / C) Σ d dᵀ, d = e_j - e_y, over j within the margin; where p is 1, 0 as of a hinge."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.randn(7, 3).double(), torch.randint(4, (7,))
    criterion = nn.MultiMarginLoss(p=p, margin=0.8, weight=weight)
    of = ll.supervised(model, [(x, y)], criterion)
    z, unit, dense = model(x).detach(), torch.eye(4).double(), torch.zeros(16, 16).double()
    assert of.value() == pytest.approx(float(criterion(z, y)), rel=1e-14)
    for i in range(len(y) if p == 2 else 0):
        rows = torch.cat([torch.kron(unit, x[i : i + 1]), unit], 1)  # of z in W and b
        apart = rows[(0.8 - z[i, y[i]] + z[i] > 0) & (torch.arange(4) != y[i])] - rows[y[i]]
        dense += (1.0 if weight is None else weight[y[i]]) * 2 / 4 * apart.T @ apart / len(y)
    for v in vectors(of, 3):
        for matrix in (ll.gauss_newton, ll.hessian):  # the outputs are linear in θ
            torch.testing.assert_close(matrix(of)(v), dense @ v, rtol=1e-10, atol=1e-12)


def test_outputs_that_are_several_tensors_are_refused():
    class Two(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    def criterion(outputs, y):
        return (outputs[0] - y).square().mean(1)

    of = ll.supervised(Two(2, 2), [(torch.randn(4, 2), torch.randn(4, 2))], criterion)
    with pytest.raises(InputError, match="forward returns tuple"):
        ll.gauss_newton(of)


@pytest.mark.parametrize("name", ["bce", "gbce", "sampled", "ce"])
def test_every_training_loss_has_its_two_parts(split, name):
    model = small_sasrec(split).eval()
    negatives = {"bce": 1, "gbce": 3, "sampled": 3, "ce": 0}[name]
    (batch,) = TrainingBatches(split, 6, torch.device("cpu"), negatives).of_users(split.trained[:5], 5, (0,))
    outputs, criterion = parts_of(name, 0.75, split.num_items)
    with torch.no_grad():
        whole, both = loss_of(name, 0.75)(model, batch), criterion(outputs(model, batch), batch)
    torch.testing.assert_close(both, whole, rtol=1e-12, atol=0)


def test_the_matrices_of_a_checkpoint_are_positive_but_for_the_hessian(runs):
    of = objective(runs / "sasrec" / "best.pt", TaskOptions(users=20, device="cpu"))
    for matrix, make in MATRICES.items():
        found = ll.top_eigenpairs(make(of), 1, tol=1e-2)
        assert found.eigenvalues[0] > 0
        assert (found.smallest < 0) == (matrix == "hessian")
        assert found.settings["matrix"] == matrix

"""What measurements hold in memory, counted in tensors of the size of θ; and that it costs no digits."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape.curvature.basis import COLUMNS, Basis, gram, project_out, random_unit
from landscape.curvature.probes import Probes
from landscape.objective import trust
from landscape.objective.noise import FEW, PERIOD, fill_normal, folded, size_of
from landscape.objective.sums import PIECE, Sum
from landscape.runtime.allocations import Allocations, peak
from landscape.runtime.ranks import ALONE

WIDTH = 520  # the activations of two examples, and the pieces of a sum, are small beside θ


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()).to(dtype)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, WIDTH, generator=generator), torch.randn(2, WIDTH, generator=generator)


def total(model, pair):
    return (model(pair[0]) - pair[1]).square().sum(), len(pair[0])


def plain_product(model, pair, along):
    leaves = list(model.parameters())
    grads = torch.autograd.grad(total(model, pair)[0], leaves, create_graph=True)
    return torch.autograd.grad(grads, leaves, along)


@pytest.fixture
def measured():
    model = network()
    objective = ll.Objective(model, [batch()], total, check=False)
    known = [objective.theta, *model.parameters(), *objective.batches[0]]
    return objective, known, objective.theta.nbytes


def test_a_product_of_one_batch_takes_what_torchs_takes_and_its_result(measured):
    objective, known, theta = measured
    vector = torch.randn(objective.params.numel)
    model = network()
    along = [part.clone() for part in objective.params.split(vector).values()]
    plain = peak(lambda: plain_product(model, batch(), along), [*along, *model.parameters()])[1]
    assert peak(lambda: objective.hvp(vector), [*known, vector])[1] <= plain + 1.05 * theta
    operator = ll.hessian(objective)
    assert peak(lambda: operator(vector), [*known, vector])[1] <= plain + 1.05 * theta
    assert peak(objective.grad, known)[1] <= 2.1 * theta
    assert peak(objective.value, known)[1] <= 0.1 * theta


def test_more_batches_take_half_of_theta_more(measured):
    one, known, theta = measured
    many = ll.Objective(network(), [batch(s) for s in range(4)], total, check=False)
    known = [many.theta, *(t for pair in many.batches for t in pair)]
    assert peak(many.grad, known)[1] <= peak(one.grad)[1] + 0.5 * theta + 6 * 4 * PIECE


def test_construction_copies_the_model_once(measured):
    _, _, theta = measured
    model, pair = network(), batch()
    with Allocations([*model.parameters(), *pair]) as counted:
        objective = ll.Objective(model, [pair], total)
        gc.collect()
        assert theta <= counted.alive <= 1.05 * theta
    assert counted.peak <= 2.1 * theta + 4 * 4 * PIECE
    assert objective.theta.nbytes == theta


def test_without_a_copy_the_model_lies_in_theta_and_keeps_its_values():
    model, pair = network(), batch()
    model[0].bias.requires_grad_(False)
    modes, before = model.training, {name: t.clone() for name, t in model.state_dict().items()}
    copied = ll.Objective(model, [pair], total)
    theirs = ll.supervised(model, [pair], nn.MSELoss(), copy=False)
    shared = ll.Objective(model, [pair], total, copy=False)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert model.training is modes
    storage = shared.theta.untyped_storage().data_ptr()
    assert {p.untyped_storage().data_ptr() for p in model.parameters() if p.requires_grad} == {storage}
    vector = torch.randn(shared.params.numel)
    assert torch.equal(copied.hvp(vector), shared.hvp(vector))
    assert theirs.value() == pytest.approx(copied.value() / WIDTH)
    model[2].bias.data.add_(1)  # against the promise: with a copy, nothing happens
    assert copied.value() != shared.value()


def test_lanczos_holds_its_basis_and_a_few_vectors(measured):
    objective, known, theta = measured
    operator = ll.hessian(objective)
    few, many = (
        peak(lambda m=m: ll.top_eigenpairs(operator, 1, smallest=0, max_products=m, tol=1e-12), known)[1]
        for m in (4, 9)
    )
    assert many - few <= 6 * theta
    assert many <= (9 + 8) * theta


def test_power_iteration_holds_a_vector_beside_a_product(measured):
    objective, known, theta = measured
    operator, vector = ll.hessian(objective), torch.ones(objective.params.numel)
    product = peak(lambda: operator(vector), [*known, vector])[1]
    power = peak(lambda: ll.top_eigenpairs(operator, 1, "power", smallest=0, max_products=4), known)[1]
    assert power <= product + 1.1 * theta


@pytest.mark.parametrize("large", [0, 2**25])
def test_checking_derivatives_holds_no_more_than_a_product_does(monkeypatch, large):
    """The graph, a direction, and one derivative at a time: three vectors, and what is kept of them."""
    monkeypatch.setattr(trust, "LARGE", large)
    objective = ll.Objective(network(), [batch()], total)
    known, theta = [objective.theta, *objective.batches[0]], objective.theta.nbytes
    assert peak(lambda: ll.hessian(objective), known)[1] <= 3.1 * theta + 8 * 4 * PIECE
    assert "checked against the loss" in objective.provenance["derivatives"]


def test_the_gradient_of_a_large_model_is_checked_in_the_memory_of_a_product(monkeypatch):
    monkeypatch.setattr(trust, "LARGE", 0)
    objective = ll.Objective(network(), [batch()], total)
    known, theta = [objective.theta, *objective.batches[0]], objective.theta.nbytes
    assert peak(objective.grad, known)[1] <= 2.1 * theta + 8 * 4 * PIECE
    assert objective.provenance["derivatives"].startswith("checked against the loss")


def test_a_trace_holds_one_probe_and_its_product(measured):
    objective, known, theta = measured
    operator = ll.hessian(objective)
    vector = torch.ones(objective.params.numel)
    product = peak(lambda: operator(vector), [*known, vector])[1]
    assert peak(lambda: ll.trace(operator, probes=4), known)[1] <= product + 2.1 * theta


def test_a_sum_is_rounded_once():
    generator = torch.Generator().manual_seed(0)
    terms = [torch.randn(2, 70_000, generator=generator) * 10.0**p for p in (0, 6, -3, 2, 5)]
    terms += [-terms[1], -terms[4]]  # what is left is small
    found = Sum(terms[0])
    before = [term.clone() for term in terms]
    for term in terms:
        found.add([term[:, :100], term[:, 100:].reshape(2, 100, -1)])
    mean = found.mean(3.0, ALONE)
    exact = sum(term.double() for term in terms) / 3
    largest = sum(term.double().abs() for term in terms)
    assert ((mean - exact).abs() <= exact.abs() * 2.0**-24 + largest * 2.0**-32).all()
    assert all(torch.equal(a, b) for a, b in zip(before, terms, strict=True))


def test_a_single_summand_is_divided_and_not_written():
    parts = [torch.ones(()).expand(3), torch.arange(4.0).view(2, 2)]
    found = Sum(torch.empty(7))
    found.add(parts)
    assert found.mean(2.0, ALONE).tolist() == [0.5] * 3 + [0, 0.5, 1, 1.5]
    assert parts[1].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("n", [3, 40, 2**20 + 5])
def test_a_basis_is_what_it_would_be_in_one_piece(n):
    rng = np.random.default_rng(0)
    basis = Basis(torch.empty(n, dtype=torch.float64))
    for _ in range(min(n, 20 if n < 2**20 else 3)):
        basis.append(random_unit(basis.like, rng, basis.blocks)[None])
    rows = torch.cat(basis.blocks)
    size = len(basis)
    assert gram(rows, rows) == pytest.approx(np.eye(size), abs=1e-12)
    vectors = torch.randn(2, n, dtype=torch.float64)
    left = project_out(vectors, basis.blocks)
    torch.testing.assert_close(left, vectors - vectors @ rows.T @ rows, atol=1e-12, rtol=0)
    assert torch.equal(basis.rows(size - 2), rows[-2:])
    change = rng.standard_normal((size, 2))
    mixed = torch.from_numpy(change.T.copy()) @ rows
    torch.testing.assert_close(basis.combined(change), mixed)
    basis.mix(change)
    torch.testing.assert_close(torch.cat(basis.blocks), mixed)


def test_random_signs_do_not_depend_on_the_pieces_they_are_drawn_in():
    n = 2 * COLUMNS + 7

    class Zero:
        shape, dtype, device = (n, n), torch.float32, torch.device("cpu")

        def __call__(self, vector):
            return 0 * vector

    drawn = Probes(Zero(), 3, lambda: None).draw(2)
    rng = np.random.default_rng(3)
    whole = [rng.integers(0, 2, n, dtype=np.int8) * 2 - 1 for _ in range(2)]
    assert np.array_equal(drawn.numpy(), np.stack(whole))


@pytest.mark.parametrize("n", [10, PIECE, 5 * PIECE + 17])
def test_what_is_folded_has_the_length_of_a_tensor_and_of_a_difference(n):
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(n, generator=generator)
    for b in (torch.ones(n), torch.randn(n, generator=generator), a * (torch.arange(n) < n // 3)):
        exact = float((a - b).double().norm())
        assert float((folded(a) - folded(b)).norm()) == pytest.approx(exact, rel=0.03)
    assert folded(a).numel() <= FEW


@pytest.mark.parametrize("n", [0, 7, PIECE + 5])
def test_the_size_of_a_tensor_is_its_root_mean_square(n):
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(1))
    exact = float(drawn.double().square().sum() / max(n, 1)) ** 0.5
    assert size_of(drawn) == pytest.approx(exact, rel=1e-12)


def test_tensors_are_filled_as_if_they_lay_end_to_end():
    sizes = [(3, 7), (2 * PERIOD + 5,), (40,)]
    found = torch.cat([t.flatten() for t in fill_normal([torch.empty(size) for size in sizes], 3)])
    assert torch.equal(found[PERIOD:], found[:-PERIOD])
    assert found[:PERIOD].unique().numel() > 0.99 * PERIOD
    assert float(found[:PERIOD].mean()) == pytest.approx(0, abs=0.02)
    assert float(found[:PERIOD].std()) == pytest.approx(1, abs=0.02)

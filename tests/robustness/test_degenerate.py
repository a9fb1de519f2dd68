"""Where formulas divide by nothing: the right answers, and no NaN."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape as ll
from landscape import Direction, Objective


class Held(nn.Module):
    """One parameter vector, and if asked one that no loss reads."""

    def __init__(self, at: Tensor, unused: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(at.double())
        if unused:
            self.idle = nn.Parameter(torch.ones(unused).double())


def held(at, loss, unused=0):
    return Objective(Held(at, unused), [None], lambda model, _: (loss(model.weight), 1))


def bowl(curvature):
    return lambda w: (torch.tensor(curvature).double() * w.square()).sum() / 2


# name: the objective, and all eigenvalues of its Hessian
CASES = {
    "zero weights": (lambda: held(torch.zeros(3), lambda w: (w.sin() + w.square()).sum()), [2, 2, 2]),
    "zero gradient": (lambda: held(torch.zeros(3), bowl([3.0, 2, 1])), [3, 2, 1]),
    "unused parameters": (lambda: held(torch.ones(2), bowl([3.0, 2]), unused=2), [3, 2, 0, 0]),
    "one element": (lambda: held(torch.ones(1), bowl([3.0])), [3]),
    "indefinite": (lambda: held(torch.ones(3), bowl([3.0, 1, -2])), [3, 1, -2]),
    "negative": (lambda: held(torch.ones(2), bowl([-3.0, -1])), [-1, -3]),
    "linear": (lambda: held(torch.ones(3), lambda w: w.sum()), [0, 0, 0]),
    "constant": (lambda: held(torch.ones(3), lambda w: 1 + 0 * w.sum()), [0, 0, 0]),
}


@pytest.fixture(params=CASES)
def case(request):
    make, eigenvalues = CASES[request.param]
    return make(), np.array(eigenvalues, np.float64)


@pytest.mark.parametrize("block", [1, 2])
def test_lanczos_finds_all_that_there_are(case, block):
    objective, exact = case
    found = ll.top_eigenpairs(objective, 10, smallest=10, block=block)
    np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-10)
    np.testing.assert_allclose(found.smallest_eigenvalues, exact[::-1], atol=1e-10)
    assert all(found.converged + found.smallest_converged)
    assert np.isfinite(found.eigenvectors).all()
    assert (found.why_not_a_minimum is None) == (found.gradient_norm == 0 and exact[-1] >= 0)


def test_power_iteration_finds_all_that_there_are(case):
    objective, exact = case
    found = ll.top_eigenpairs(objective, 10, "power", smallest=1, tol=1e-6, max_products=5000)
    np.testing.assert_allclose(np.sort(found.eigenvalues), exact[::-1], atol=1e-6)
    assert found.smallest == pytest.approx(exact[-1], abs=1e-6)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_traces_of_diagonal_matrices_are_exact(case, method):
    objective, exact = case
    found = ll.trace(objective, method=method)
    assert found.value == pytest.approx(exact.sum(), abs=1e-10)
    assert found.standard_error == pytest.approx(0, abs=1e-10)


def test_norm_diagonal_and_density_of_a_diagonal_matrix(case):
    objective, exact = case
    assert ll.frobenius_norm(objective).value == pytest.approx(np.linalg.norm(exact), abs=1e-10)
    np.testing.assert_allclose(np.sort(ll.diagonal(objective).values), exact[::-1], atol=1e-10)
    density = ll.spectral_density(objective)
    for k in range(4):
        assert density.moment(k)[0] == pytest.approx((exact**k).sum(), abs=1e-8)
    assert max(density.moment_error) < 1e-10
    assert density.effective_dimension(4.0)[0] == pytest.approx((exact / (exact + 4)).sum())
    assert density.local_entropy(4.0)[0] == pytest.approx(-np.log1p(exact / 4).sum() / 2)


def test_every_sharpness_is_a_number(case):
    objective, exact = case
    rows = ll.sharpness(objective, samples=4, steps=5).measures
    assert all(np.isfinite(row.value) for row in rows.values())
    assert all(row.standard_error is None or np.isfinite(row.standard_error) for row in rows.values())
    assert rows["lambda-max"].value == pytest.approx(exact[0], abs=1e-10)
    if not exact.any() and not objective.grad().any():
        assert not any(row.value for name, row in rows.items() if name != "lpf")


def test_a_group_that_no_loss_reads_is_flat():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(2, 1)
            self.idle = nn.Embedding(3, 2)

    objective = Objective(Model().double(), [None], lambda m, _: (m.used.weight.square().sum(), 1))
    found = ll.sharpness_by_group(objective, samples=2, steps=2)
    assert {row.value for name, row in found["embedding"].measures.items() if name != "lpf"} == {0}
    assert ll.top_eigenpairs(objective.restrict(group="embedding"), 1).eigenvalues.tolist() == [0]


def test_a_quadratic_model_needs_derivatives_that_are_finite():
    objective = held(torch.zeros(2), lambda w: w.square().sum().sqrt())
    with pytest.raises(ll.InputError, match="not finite"):
        ll.quadratic_model(objective, [Direction(torch.ones(2).double(), "given")])

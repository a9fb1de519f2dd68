import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

import landscape as ll
from landscape import InputError
from landscape.curvature.lanczos import lanczos
from landscape.curvature.power import power_iteration

SPECTRUM = [9.0, 5.0, 4.0, 1.0, 0.5, 0.1, 0.0, 0.0, -2.0, -3.0]


def with_spectrum(values, dtype=torch.float64):
    n = len(values)
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((n, n)))
    return torch.from_numpy(q @ np.diag(values) @ q.T).to(dtype)


def solve(solver, matrix, k, tol=1e-8, limit=2000):
    return solver(lambda v: matrix @ v, matrix[0], k, tol, limit, 0)


def test_lanczos_finds_both_ends():
    found = solve(lanczos, with_spectrum(SPECTRUM), 3)
    np.testing.assert_allclose(found.values, [9, 5, 4, -3], atol=1e-10)
    assert (found.residuals <= 1e-8).all()


def test_power_iteration_finds_the_largest_magnitudes_with_their_sign():
    found = solve(power_iteration, with_spectrum(SPECTRUM), 4)
    np.testing.assert_allclose(found.values, [9, 5, 4, -3], atol=1e-10)
    assert (found.residuals <= 1e-8).all()


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_residuals_are_those_of_the_returned_pairs(solver):
    matrix = with_spectrum(SPECTRUM)
    found = solve(solver, matrix, 3, tol=1e-3)
    for value, vector, relative in list(zip(found.values, found.vectors, found.residuals, strict=True))[:3]:
        assert torch.linalg.norm(matrix @ vector - value * vector) / abs(value) == pytest.approx(
            relative, abs=1e-12
        )


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_a_repeated_eigenvalue_is_found_as_often_as_it_stands(solver):
    found = solve(solver, with_spectrum([3.0, 3, 3, 1, 1, 1]), 3)
    np.testing.assert_allclose(found.values[:3], [3, 3, 3], atol=1e-10)
    torch.testing.assert_close(found.vectors[:3] @ found.vectors[:3].T, torch.eye(3).double())


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_the_identity_and_zero(solver):
    np.testing.assert_allclose(solve(solver, torch.eye(5).double(), 2).values[:2], [1, 1])
    zero = solve(solver, torch.zeros(5, 5).double(), 2)
    assert not zero.values.any()
    assert not zero.residuals.any()


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_more_eigenvalues_than_there_are(solver):
    found = solve(solver, with_spectrum([2.0, -1.0]), 5)
    np.testing.assert_allclose(sorted(found.values), [-1, 2], atol=1e-12)


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_a_small_change_is_no_convergence(solver):
    """Two close eigenvalues: power iteration crawls, and must say that it has not arrived."""
    found = solve(solver, with_spectrum([1.0, 0.9999, *[0.1] * 30]), 1, tol=1e-9, limit=50)
    arrived = abs(found.values[0] - 1) < 1e-9
    assert arrived == (found.residuals[0] <= 1e-9)


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_float32_reaches_the_default_tolerance(solver):
    found = solve(solver, with_spectrum(SPECTRUM, torch.float32), 3, tol=1e-3)
    np.testing.assert_allclose(found.values[:3], [9, 5, 4], rtol=1e-4)
    assert (found.residuals[:3] <= 1e-3).all()


def test_a_product_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="not finite"):
        lanczos(lambda v: v * torch.nan, torch.ones(3), 1, 1e-3, 10, 0)


def test_eigenvalues_of_a_transformer_agree_with_the_dense_hessian(sasrec_objective, dense_hessian):
    exact = torch.linalg.eigvalsh(dense_hessian).flip(0).numpy()
    found = ll.top_eigenpairs(sasrec_objective, 5, tol=1e-8)
    np.testing.assert_allclose(found.eigenvalues, exact[:5], atol=1e-8)
    assert found.smallest == pytest.approx(exact[-1], abs=1e-8)
    assert found.converged == [True] * 5
    assert found.gradient_norm == pytest.approx(float(sasrec_objective.grad().norm()))


def test_power_iteration_agrees_with_the_dense_hessian(sasrec_objective, dense_hessian):
    exact = torch.linalg.eigvalsh(dense_hessian).numpy()
    exact = exact[np.argsort(-np.abs(exact))]
    found = ll.top_eigenpairs(sasrec_objective, 2, method="power", tol=1e-6, max_products=5000)
    np.testing.assert_allclose(found.eigenvalues, exact[:2], atol=1e-8)


def test_eigenvalues_agree_with_scipy(sasrec_objective):
    n = sasrec_objective.params.numel
    operator = LinearOperator(
        (n, n), matvec=lambda v: sasrec_objective.hvp(torch.from_numpy(v.ravel())).numpy(), dtype=np.float64
    )
    expected = np.sort(eigsh(operator, 3, which="LA", return_eigenvectors=False))[::-1]
    np.testing.assert_allclose(
        ll.top_eigenpairs(sasrec_objective, 3, tol=1e-8).eigenvalues, expected, atol=1e-8
    )


def test_eigenvectors_have_one_sign(sasrec_objective):
    a, b = (ll.top_eigenpairs(sasrec_objective, 2, tol=1e-8, seed=s).eigenvectors for s in (0, 1))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_parameter(quadratic):
    objective = quadratic(torch.tensor([[-4.0]]).double(), torch.ones(1).double())
    found = ll.top_eigenpairs(objective, 3)
    assert found.eigenvalues.tolist() == [-4.0]
    assert found.smallest == -4.0


@pytest.mark.parametrize("kwargs", [{"k": 0}, {"tol": 0}])
def test_questions_without_an_answer_are_refused(sasrec_objective, kwargs):
    with pytest.raises(InputError, match="must be positive"):
        ll.top_eigenpairs(sasrec_objective, **kwargs)


def test_the_trace_of_a_diagonal_hessian_takes_one_probe(quadratic):
    objective = quadratic(torch.diag(torch.arange(5.0)).double(), torch.ones(5).double())
    estimate = ll.trace(objective, probes=2)
    assert estimate.value == pytest.approx(10, rel=1e-14)
    assert estimate.standard_error == pytest.approx(0, abs=1e-14)


def test_the_trace_and_its_standard_error_are_those_of_the_theory(quadratic, symmetric):
    """E zᵀHz = tr H, with variance 2 Σ_{i≠j} H_ij² a probe."""
    estimate = ll.trace(quadratic(symmetric, torch.ones(12).double()), probes=4000)
    off_diagonal = symmetric - torch.diag(symmetric.diag())
    assert estimate.standard_error == pytest.approx(
        (2 * float((off_diagonal**2).sum()) / 4000) ** 0.5, rel=0.05
    )
    assert abs(estimate.value - float(symmetric.trace())) < 3 * estimate.standard_error


def test_a_trace_needs_two_probes(sasrec_objective):
    with pytest.raises(InputError, match="standard error"):
        ll.trace(sasrec_objective, probes=1)

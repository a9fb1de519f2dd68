"""Solvers know a product with a vector: a plain matrix behind four names is measured like a Hessian."""

import math

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.curvature.lanczos import lanczos
from landscape.curvature.linear import LinearOperator
from landscape.curvature.power import power_iteration
from landscape.curvature.solver import Counted, measured
from landscape.runtime import devices
from tests.worlds import rotated, signs

SPECTRUM = np.array([9.0, 5.0, 4.0, 1.0, 0.5, 0.0, -0.5, -3.0])


class Matrix:
    """A symmetric matrix that is known by its products only, which it counts."""

    def __init__(self, entries, dtype=None):
        self.entries = entries
        self.shape, self.device = entries.shape, entries.device
        self.dtype = entries.dtype if dtype is None else dtype
        self.products = 0

    def __call__(self, vector):
        self.products += 1
        return self.entries @ vector


@pytest.fixture
def matrix():
    return Matrix(rotated(SPECTRUM)[0])


def test_a_plain_matrix_is_an_operator(matrix, quadratic):
    assert isinstance(matrix, LinearOperator)
    assert isinstance(ll.hessian(quadratic(matrix.entries, torch.ones(8).double())), LinearOperator)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_eigenpairs_of_a_plain_matrix(matrix, method):
    found = ll.top_eigenpairs(matrix, 2, method, smallest=1, tol=1e-9, max_products=10_000)
    np.testing.assert_allclose(found.eigenvalues, [9, 5], rtol=1e-8)
    assert found.smallest == pytest.approx(-3, abs=1e-8)
    assert all(found.converged)
    assert math.isnan(found.gradient_norm)  # there is no loss that it is the gradient of
    assert found.why_not_a_minimum is None
    assert found.settings["matrix"] == "Matrix"
    assert found.products == matrix.products
    _, vectors = rotated(SPECTRUM)
    np.testing.assert_allclose(np.abs(found.eigenvectors @ vectors[:, :2]), np.eye(2), atol=1e-6)


def test_the_trace_norm_and_diagonal_are_those_of_the_same_signs(matrix):
    z = signs(30, 8)
    images = z @ matrix.entries.numpy()
    quadratic_forms, squares = (z * images).sum(1), (images**2).sum(1)
    found = ll.trace(matrix)
    np.testing.assert_allclose(found.samples, quadratic_forms, rtol=1e-12)
    assert found.standard_error == pytest.approx(quadratic_forms.std(ddof=1) / math.sqrt(30), rel=1e-12)
    assert ll.frobenius_norm(matrix).value == pytest.approx(math.sqrt(squares.mean()), rel=1e-12)
    diagonal = ll.diagonal(matrix)
    np.testing.assert_allclose(diagonal.values, (z * images).mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(diagonal.standard_errors, (z * images).std(0, ddof=1) / 30**0.5, rtol=1e-10)
    assert matrix.products == 3 * 30
    for method in ("hutch++", "xtrace"):
        assert ll.trace(matrix, method=method, probes=8).value == pytest.approx(SPECTRUM.sum(), abs=1e-10)


def test_the_density_of_a_plain_matrix_has_its_moments(matrix):
    found = ll.spectral_density(matrix, probes=3, steps=8)
    for k in range(1, 5):
        expected = np.mean([z @ np.linalg.matrix_power(matrix.entries.numpy(), k) @ z for z in signs(3, 8)])
        assert found.moment(k)[0] == pytest.approx(expected, rel=1e-9)


def test_types_are_those_of_torch_or_of_numpy(matrix):
    single = Matrix(matrix.entries.float(), np.dtype("float32"))
    assert ll.trace(single, probes=4).samples == pytest.approx(ll.trace(matrix, probes=4).samples, rel=1e-5)


def test_what_is_neither_objective_nor_operator_is_refused(matrix):
    for target in (matrix.entries, lambda v: v, Matrix(torch.ones(2, 3))):
        with pytest.raises(InputError, match="is neither an objective nor a linear operator"):
            ll.trace(target)


@pytest.mark.parametrize("k", [1, 3])
def test_lanczos_stops_no_later_than_its_tolerance_needs_and_no_earlier(k):
    """The residual that is returned is measured here again, against the tolerance that was asked for."""
    entries, _ = rotated(np.concatenate([np.linspace(1, 2, 60), [2.05, 2.1, 2.2]]))
    for tol in (1e-2, 1e-4):
        found = ll.top_eigenpairs(Matrix(entries), k, smallest=1, tol=tol)
        vectors = torch.from_numpy(found.eigenvectors)
        values = torch.from_numpy(found.eigenvalues)
        residuals = (vectors @ entries - values[:, None] * vectors).norm(dim=1) / values.abs()
        assert (residuals <= tol).all()
        assert all(found.converged)
        np.testing.assert_allclose(found.residuals, residuals, rtol=1e-6, atol=1e-14)


def test_lanczos_stops_early_only_where_the_residual_it_measures_is_within_the_tolerance():
    """Products in 8 bits: by its estimates Lanczos has arrived, by what it measures it has not."""
    entries, _ = rotated(np.concatenate([np.linspace(1, 2, 60), [2.05, 2.1, 2.2]]))
    for tol in (5e-4, 1e-3, 2e-3):
        found = lanczos(
            lambda v: (entries @ v).bfloat16().double(), entries[0], 2, 0, tol, max_products=50, seed=0
        )
        assert (found.residuals <= tol).all() or found.products >= 50


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_residuals_of_the_smallest_are_relative_to_the_norm(method):
    """λmin is next to zero: a residual that is small beside ‖A‖ is large beside |λmin|."""
    entries, _ = rotated(np.concatenate([[100.0, 40.0], np.linspace(1, 3, 20), [1e-4]]))
    found = ll.top_eigenpairs(Matrix(entries), 1, method, smallest=1, tol=1e-3, max_products=5000)
    vector, value = torch.from_numpy(found.smallest_eigenvectors[0]), found.smallest
    length = float((entries @ vector - value * vector).norm())
    assert found.smallest_residuals[0] == pytest.approx(length / 100, rel=1e-3, abs=1e-12)
    assert found.smallest_converged == [True]


def lengths_of(entries, values, vectors):
    """Return ‖Hv - λv‖ of each pair, in float64."""
    vectors = torch.from_numpy(vectors).double()
    return (vectors @ entries - torch.from_numpy(values)[:, None] * vectors).norm(dim=1).numpy()


@pytest.mark.parametrize("smallest", [0, 2])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_an_error_is_the_length_of_a_residual_whichever_end_is_the_larger(method, sign, smallest):
    entries, _ = rotated(sign * np.concatenate([[100.0, 40.0], np.linspace(1, 3, 20), [1e-4]]))
    found = ll.top_eigenpairs(Matrix(entries), 2, method, smallest=smallest, tol=0.02, max_products=5000)
    of_both = (
        (found.eigenvalues, found.eigenvectors, found.errors),
        (found.smallest_eigenvalues, found.smallest_eigenvectors, found.smallest_errors),
    )
    for values, vectors, errors in of_both:
        np.testing.assert_allclose(errors, lengths_of(entries, values, vectors), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tol", [1e-3, 1e-9])
def test_an_eigenvalue_next_to_zero_is_off_by_no_more_than_is_said(tol):
    """Of ‖H‖ = 10⁶ at the other end, float32 vectors keep some hundredths, which λ does not show."""
    entries, _ = rotated(-np.append(1e6, np.linspace(0.001, 1, 60)))

    class Single(Matrix):
        def __call__(self, vector):
            return super().__call__(vector.double()).float()

    found = ll.top_eigenpairs(Single(entries, torch.float32), 3, smallest=0, tol=tol, max_products=40)
    lengths = lengths_of(entries, found.eigenvalues, found.eigenvectors)
    assert (lengths > 1e-4).all()
    assert (lengths <= 1.1 * found.errors).all()


@pytest.mark.parametrize("low", [[-0.5], np.linspace(-0.5, -0.4, 9)], ids=["one end is close", "both are"])
def test_both_ends_get_a_share_of_the_products_and_no_more(low):
    entries, _ = rotated([1.0, 0.9999, *np.linspace(0.5, 0.9, 20), *low])
    found = power_iteration(lambda v: entries @ v, entries[0], 1, 1, 1e-4, 60, 0)
    assert found.residuals[0] > 1e-4
    assert found.products <= 62
    if len(low) == 1:
        assert found.residuals[1] <= 1e-4
        assert found.values[1] == pytest.approx(-0.5, abs=1e-6)


def test_an_operator_may_write_every_product_to_one_tensor():
    entries, _ = rotated(np.array([5.0, -4.0, 3.0, 2.0, 1.0, 0.5]))
    room = torch.empty(len(entries), dtype=entries.dtype)
    found = power_iteration(lambda v: torch.mv(entries, v, out=room), entries[0], 3, 1, 1e-6, 5000, 0)
    np.testing.assert_allclose(found.values, [5, -4, 3, -4], rtol=1e-8)


def test_the_residuals_of_several_pairs_take_one_product():
    entries, _ = rotated(np.concatenate([np.linspace(1, 2, 60), [2.05, 2.1, 2.2]]))
    found = lanczos(lambda v: entries @ v, entries[0], 4, 2, 1e-3, max_products=40, seed=0)
    assert found.products == 40 or (found.residuals <= 1e-3).all()
    exact = (found.vectors @ entries - torch.from_numpy(found.values)[:, None] * found.vectors).norm(dim=1)
    scale = np.concatenate([found.values[:4], [found.values[0]] * 2])
    np.testing.assert_allclose(found.residuals * scale, exact, rtol=1e-6, atol=1e-12)


def test_a_residual_that_is_wrong_is_seen_in_the_product_of_all():
    """The last product, of all vectors together, is of another matrix: each pair is measured by itself."""
    entries, _ = rotated(np.concatenate([np.linspace(1, 2, 60), [2.05, 2.1, 2.2]]))
    vectors = torch.linalg.eigh(entries)[1].T.flip(0)[:3].contiguous()
    values = np.array([2.2, 2.1, 2.05])
    known = np.zeros((3, 1)), torch.zeros_like(vectors[:1])
    tilted = entries + 0.1 * torch.outer(vectors[1], vectors[1])
    for matrix, products in ((entries, 1), (tilted, 4)):
        operator = Counted(lambda v, matrix=matrix: matrix @ v)
        found, lengths = measured(operator, values, vectors.clone(), known, np.full(3, 1e-3))
        assert operator.products == products
        exact = [2.2, 2.1 + 0.1 * (products == 4), 2.05]
        np.testing.assert_allclose(found, exact, rtol=1e-8)
        assert lengths.max() < 1e-10


def test_power_iteration_needs_room_for_a_vector_and_its_product(matrix, monkeypatch):
    """Four vectors of eight numbers: too few for a basis that can be restarted."""
    monkeypatch.setattr(devices, "free_memory", lambda device: 4 * 8 * 8)
    found = ll.top_eigenpairs(matrix, 1, "power", smallest=0, tol=1e-6)
    assert found.eigenvalues[0] == pytest.approx(9)
    with pytest.raises(InputError, match="k = 1 keeps 5 vectors"):
        ll.top_eigenpairs(matrix, 1, smallest=0)
    with pytest.raises(InputError, match="k = 3 keeps 6 vectors"):
        ll.top_eigenpairs(matrix, 3, "power", smallest=0)

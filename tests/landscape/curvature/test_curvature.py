import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.curvature import basis
from landscape.curvature.copies import LEAST
from landscape.curvature.lanczos import _Space, lanczos
from landscape.curvature.power import power_iteration
from landscape.flatness.words import cautions
from tests.worlds import with_spectrum

SPECTRUM = [9.0, 5.0, 4.0, 1.0, 0.5, 0.1, 0.0, 0.0, -2.0, -3.0]


class Matrix:
    """A matrix as solvers know one, which counts how it was asked."""

    def __init__(self, matrix):
        self.matrix, self.blocks = matrix, 0

    def __call__(self, vector):
        return self.matrix @ vector

    def many(self, vectors):
        self.blocks += 1
        return vectors @ self.matrix


class Symmetric(Matrix):
    """The same, as `top_eigenpairs` takes one."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.shape, self.dtype, self.device = tuple(matrix.shape), matrix.dtype, matrix.device


def solve(solver, matrix, k, smallest=0, tol=1e-8, limit=2000, **options):
    return solver(Matrix(matrix), matrix[0], k, smallest, tol, limit, 0, **options)


def test_lanczos_finds_both_ends():
    found = solve(lanczos, with_spectrum(SPECTRUM), 3, 2)
    np.testing.assert_allclose(found.values, [9, 5, 4, -3, -2], atol=1e-10)
    assert (found.residuals <= 1e-8).all()


def test_power_iteration_finds_the_largest_magnitudes_with_their_sign():
    found = solve(power_iteration, with_spectrum(SPECTRUM), 4)
    np.testing.assert_allclose(found.values, [9, 5, 4, -3], atol=1e-10)
    assert (found.residuals <= 1e-8).all()


@pytest.mark.parametrize("spectrum", [SPECTRUM, [-9.0, -4, 1, 2], [5.0, 3, 2, 1]])
def test_a_shift_tells_power_iteration_where_the_other_end_is(spectrum):
    found = solve(power_iteration, with_spectrum(spectrum), 1, 2)
    np.testing.assert_allclose(found.values, [max(spectrum, key=abs), *sorted(spectrum)[:2]], atol=1e-8)
    assert (found.residuals <= 1e-8).all()


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-3), (torch.float64, 1e-7)])
@pytest.mark.parametrize("opposite", [-1.0, -0.999, -0.9])
def test_power_iteration_finds_either_of_two_ends_of_about_equal_size(opposite, dtype, tol):
    """v turns between the two ends for ever; both lie in two steps of it."""
    rest = np.random.default_rng(0).uniform(-0.7, 0.7, 300)
    matrix = with_spectrum([1.0, opposite, *rest], dtype)
    found = solve(power_iteration, matrix, 1, tol=tol, limit=80)
    value, vector = float(found.values[0]), found.vectors[0]
    assert found.residuals[0] <= tol
    assert min(abs(value - 1), abs(value - opposite)) <= tol
    assert float((matrix @ vector - value * vector).norm()) <= 1.05 * tol
    both = solve(power_iteration, matrix, 2, tol=tol, limit=160)
    np.testing.assert_allclose(sorted(both.values), [opposite, 1.0], atol=tol)
    stopped = solve(power_iteration, matrix, 1, tol=tol, limit=14)  # two steps are combined at the end too
    assert stopped.products == 14
    assert stopped.residuals[0] < 0.2
    assert float(np.abs(stopped.values[0])) == pytest.approx(1.0, abs=0.12)


def test_rounding_does_not_tell_power_iteration_which_of_two_close_ends_is_larger():
    found = solve(power_iteration, with_spectrum([1.0, 0.9999, *[0.1] * 30]), 1, tol=1e-9, limit=50)
    assert found.values[0] == pytest.approx(1.0, abs=1e-9)
    assert found.residuals[0] < 1e-6


def test_power_iteration_prefers_the_larger_of_two_ends_in_the_end():
    """A start near the smaller one does not keep it there, as a step to the best of two vectors would."""
    spectrum = [1.0, -0.9, *np.random.default_rng(0).uniform(-0.5, 0.5, 100)]
    diagonal = torch.tensor(spectrum).double()
    near = torch.zeros(len(spectrum)).double()
    near[1] = 1.0
    found = power_iteration(lambda v: diagonal * v, near, 1, 0, 1e-6, 200, 0, start=iter([near]))
    assert found.values[0] == pytest.approx(1.0, abs=1e-6)


SPECTRA = {
    "many": sorted(np.random.default_rng(0).standard_normal(200)),
    "few": [7.0] * 30 + [1.0] * 50 + [-2.0] * 20,
    "identity": [1.0] * 20,
    "zero": [0.0] * 20,
    "one": [-4.0],
    "rank one": [3.0] + [0.0] * 40,
}


@pytest.mark.parametrize("capacity", [None, 0], ids=["whole basis", "restarts"])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_blocks_and_restarts_find_the_same_pairs(spectrum, block, capacity):
    matrix = with_spectrum(spectrum)
    found = solve(lanczos, matrix, 5, 3, limit=5000, block=block, capacity=capacity)
    descending = np.sort(spectrum)[::-1]
    np.testing.assert_allclose(found.values, [*descending[:5], *descending[::-1][:3]], atol=1e-9)
    assert (found.residuals <= 1e-8).all()


def test_a_restart_holds_no_more_vectors_than_it_may(monkeypatch):
    held = []
    append = _Space.append
    monkeypatch.setattr(_Space, "append", lambda self, block: append(self, block) or held.append(self.size))
    found = solve(lanczos, with_spectrum(SPECTRA["many"]), 3, 1, limit=5000, capacity=20)
    assert max(held) <= 20 < found.products
    assert (found.residuals <= 1e-8).all()


def test_a_block_is_multiplied_at_once():
    operator = Matrix(with_spectrum(SPECTRA["many"]))
    lanczos(operator, operator.matrix[0], 3, 1, 1e-8, 2000, 0, block=4)
    assert operator.blocks > 10


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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize(
    ("repeated", "k", "smallest"),
    [([5.0, 5, 5, 4], 4, 0), ([6.0, 5, 5, 4, 4], 5, 1), ([3.0, -2, -2, -2, -1.5], 1, 4), ([4.0] * 6, 6, 2)],
)
def test_copies_are_found_in_a_crowd_of_others(repeated, k, smallest, block, dtype):
    others = np.random.default_rng(1).uniform(-1, 1, 400 - len(repeated))
    spectrum = np.sort([*repeated, *others])[::-1]
    for seed in range(3):
        found = lanczos(
            Matrix(with_spectrum(list(spectrum), dtype)),
            torch.zeros(400, dtype=dtype),
            k,
            smallest,
            1e-4,
            4000,
            seed,
            block=block,
        )
        expected = [*spectrum[:k], *spectrum[::-1][:smallest]]
        np.testing.assert_allclose(found.values, expected, atol=2e-3)
        gram = found.vectors @ found.vectors.T
        torch.testing.assert_close(gram, torch.eye(len(expected), dtype=dtype), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-3), (torch.float64, 1e-6)])
@pytest.mark.parametrize("row", ["a block each", "many a block"])
def test_a_spectrum_on_one_side_of_zero_costs_no_orthogonality(dtype, tol, row, monkeypatch):
    """A product is then mostly along the newest vector: each step would multiply what is not orthogonal."""
    if row == "a block each":
        monkeypatch.setattr(basis, "BLOCK", 1)
    others = np.random.default_rng(0).uniform(0, 2, 995)
    spectrum = np.sort([5.0, 5, 4, 4, 3, *others])[::-1]
    matrix = with_spectrum(list(spectrum), dtype)
    found = lanczos(Matrix(matrix), matrix[0], 5, 2, tol, 300, 0)
    np.testing.assert_allclose(found.values, [*spectrum[:5], *spectrum[::-1][:2]], atol=5 * tol)
    gram = found.vectors @ found.vectors.T
    torch.testing.assert_close(gram, torch.eye(7, dtype=dtype), atol=1e3 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("classes", [3, 4])
def test_each_output_of_a_regression_has_the_same_eigenvalues(classes):
    """The Hessian of a linear model under a squared loss is XᵀX once per output."""
    torch.manual_seed(0)
    x = torch.randn(500, 60, dtype=torch.float64) * torch.linspace(2, 0.1, 60)
    model = torch.nn.Linear(60, classes, bias=False).double()
    targets = torch.randn(500, classes, dtype=torch.float64)
    objective = ll.supervised(model, [(x, targets)], torch.nn.functional.mse_loss)
    once = torch.linalg.eigvalsh(x.T @ x / 500 * 2 / classes).flip(0).numpy()
    found = ll.top_eigenpairs(objective, classes + 1)
    np.testing.assert_allclose(found.eigenvalues, np.repeat(once, classes)[: classes + 1], rtol=1e-4)


def test_copies_that_cannot_be_excluded_are_spoken_of():
    values = np.linspace(0, 1, 300)  # so close that a few products tell no copy from its neighbour
    found = ll.top_eigenpairs(Symmetric(with_spectrum(list(values))), 5, smallest=0)
    assert found.copies_may_be_missing
    assert "may occur more often" in " ".join(cautions("a", found))
    apart = ll.top_eigenpairs(Symmetric(with_spectrum([5.0, 4, 3, 2, *values])), 3, smallest=0)
    assert not apart.copies_may_be_missing
    assert not list(cautions("a", apart))


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_copies_are_found_next_to_a_far_larger_eigenvalue(tol):
    """What counts as one eigenvalue is relative to it, as its tolerance is, and not to the largest."""
    spectrum = [1e5, 1, 1, 0.5, *np.random.default_rng(0).uniform(-0.05, 0.05, 300)]
    found = solve(lanczos, with_spectrum(spectrum), 3, tol=tol)
    np.testing.assert_allclose(found.values, spectrum[:3], rtol=1e-2)


def test_what_is_found_is_not_taken_for_a_copy_of_itself():
    """Next to a multiple of the identity, rounding brings it back into the space that is searched."""
    others = np.random.default_rng(0).uniform(0, 2, 595)
    matrix = with_spectrum(list(1 + 0.01 * np.array([5.0, 5, 4, 4, 3, *others])), torch.float32)
    found = solve(lanczos, matrix, 5, 2, tol=1e-3)
    assert found.copies
    assert found.products < 60


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_copies_are_missed_as_rarely_as_is_said(shift):
    spectrum = np.array([5.0, 5, 4, 4, 3, *np.random.default_rng(0).uniform(0, 2, 145)]) + shift
    matrix = Matrix(with_spectrum(list(spectrum)))
    found = [lanczos(matrix, matrix.matrix[0], 4, 0, 1e-5, 500, seed) for seed in range(100)]
    missed = [f for f in found if np.abs(f.values - spectrum[:4]).max() > 0.1]
    assert sum(f.copies for f in missed) <= 6  # two searches for each, which miss one in fifty at most
    assert sum(f.copies for f in found) > 90


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_the_unit_of_a_matrix_is_that_of_its_eigenvalues_and_of_nothing_else(solver, dtype):
    """A power of two changes no digit: no threshold is a number of its own, nor one for copies found."""
    matrix = with_spectrum([5.0, 5, 4, 4, -3, *np.linspace(0, 1, 20)], dtype)
    one = solve(solver, matrix, 4, 1, tol=1e-3)
    for unit in (2.0**-40, 2.0**40):
        other = solve(solver, unit * matrix, 4, 1, tol=1e-3)
        np.testing.assert_allclose(other.values, unit * one.values, rtol=1e-6)
        np.testing.assert_allclose(other.residuals, one.residuals, rtol=1e-3)
        assert (other.norm, other.products) == (pytest.approx(unit * one.norm), one.products)


def test_copies_cost_few_products():
    spectrum = [10.0, 8, 7, 5, 4, *np.random.default_rng(0).uniform(-1, 1, 500)]
    found = solve(lanczos, with_spectrum(spectrum), 5, 1, tol=1e-3)
    alone = solve(lanczos, with_spectrum(spectrum), 1, 1, tol=1e-3)  # a copy of which would change nothing
    assert found.copies
    assert found.products <= 1.25 * alone.products + LEAST


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_the_identity_and_zero(solver):
    np.testing.assert_allclose(solve(solver, torch.eye(5).double(), 2).values[:2], [1, 1])
    zero = solve(solver, torch.zeros(5, 5).double(), 2)
    assert not zero.values.any()
    assert not zero.residuals.any()


def test_an_eigenvalue_of_zero_ends_by_the_norm():
    """Its residual is never small beside itself."""
    found = solve(power_iteration, with_spectrum([8.0, -4.0, 2.0] + 37 * [0.0], torch.float32), 4, tol=1e-3)
    assert found.products < 100


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_more_eigenvalues_than_there_are(solver):
    found = solve(solver, with_spectrum([2.0, -1.0]), 5)
    np.testing.assert_allclose(sorted(found.values), [-1, 2], atol=1e-12)


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_more_at_both_ends_than_there_are(solver):
    found = solve(solver, with_spectrum([2.0, -1.0, 0.5]), 5, 5)
    np.testing.assert_allclose(sorted(found.values[:3]), [-1, 0.5, 2], atol=1e-12)
    np.testing.assert_allclose(found.values[3:], [-1, 0.5, 2], atol=1e-12)


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_a_small_change_is_no_convergence(solver):
    """Two close eigenvalues: power iteration crawls, and must say that it has not arrived."""
    found = solve(solver, with_spectrum([1.0, 0.9999, *np.linspace(0.5, 0.99, 30)]), 1, tol=1e-9, limit=50)
    arrived = abs(found.values[0] - 1) < 1e-9
    assert arrived == (found.residuals[0] <= 1e-9)


@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_float32_reaches_the_default_tolerance(solver):
    found = solve(solver, with_spectrum(SPECTRUM, torch.float32), 3, tol=1e-3)
    np.testing.assert_allclose(found.values[:3], [9, 5, 4], rtol=1e-4)
    assert (found.residuals[:3] <= 1e-3).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("solver", [lanczos, power_iteration])
def test_a_vector_that_is_small_by_chance_is_no_eigenvector_of_zero(solver, seed):
    # its λ is about 0.6, which is rounding next to a million, and the second eigenvalue is in its residual
    matrix = with_spectrum([1e6, 1e4, *np.linspace(0, 1, 300)]).float()
    found = solver(Matrix(matrix), matrix[0], 2, 0, 1e-3, 200, seed)
    np.testing.assert_allclose(found.values, [1e6, 1e4], rtol=1e-3)
    assert (found.residuals <= 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_what_is_below_the_rounding_of_products_is_called_zero(method, dtype):
    # next to a million, float32 knows nothing of an eigenvalue of 1, and float64 nine of its digits
    matrix = with_spectrum([1e6, *np.linspace(0.001, 1, 300)]).to(dtype)
    found = ll.top_eigenpairs(Symmetric(matrix), 3, method, smallest=0, tol=1e-3, max_products=3000)
    ours = torch.from_numpy(found.eigenvectors).double()
    lengths = (ours @ matrix.double() - torch.from_numpy(found.eigenvalues)[:, None] * ours).norm(dim=1)
    np.testing.assert_allclose(found.errors, lengths, rtol=0.1, atol=1e6 * torch.finfo(dtype).eps)
    assert all(found.converged)
    small = dtype == torch.float32
    assert found.zero == [False, small, small]
    assert [text.endswith("(zero to rounding)") for text in found.written()[0]] == found.zero
    assert (
        "2 of 3 eigenvalues are zero to the rounding of products (6)" in " ".join(repr(found).split())
    ) == small
    assert small or np.allclose(found.eigenvalues[1:], [1, 0.99666], rtol=1e-3)


def test_residuals_that_rounding_keeps_up_are_not_measured_again_and_again():
    measured = []

    class Watched(Matrix):
        def many(self, vectors):
            measured.append(len(vectors))
            return super().many(vectors)

    matrix = with_spectrum([1e5, 1e3, 10, 9, 8, *np.linspace(0, 1, 300)]).float()
    found = lanczos(Watched(matrix), matrix[0], 5, 0, 1e-3, 300, 0)
    assert found.products >= 300  # float32 does not tell 10 to within a thousandth from the rest
    assert sum(size for size in measured if size > 1) < 100


def test_a_product_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="not finite"):
        lanczos(lambda v: v * torch.nan, torch.ones(3), 1, 1, 1e-3, 10, 0)


def test_eigenvalues_of_a_transformer_agree_with_the_dense_hessian(sasrec_objective, dense_hessian):
    exact = torch.linalg.eigvalsh(dense_hessian).flip(0).numpy()
    found = ll.top_eigenpairs(sasrec_objective, 5, tol=1e-8)
    np.testing.assert_allclose(found.eigenvalues, exact[:5], atol=1e-8)
    assert found.smallest == pytest.approx(exact[-1], abs=1e-8)
    assert found.converged == [True] * 5
    assert found.gradient_norm == pytest.approx(float(sasrec_objective.grad().norm()))


@pytest.mark.slow
def test_power_iteration_agrees_with_the_dense_hessian(sasrec_objective, dense_hessian):
    exact = torch.linalg.eigvalsh(dense_hessian).numpy()
    exact = exact[np.argsort(-np.abs(exact))]
    found = ll.top_eigenpairs(sasrec_objective, 2, method="power", tol=1e-6, max_products=5000)
    np.testing.assert_allclose(found.eigenvalues, exact[:2], atol=1e-8)


def test_eigenvectors_have_one_sign(sasrec_objective):
    a, b = (ll.top_eigenpairs(sasrec_objective, 2, tol=1e-8, seed=s).eigenvectors for s in (0, 1))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_parameter(quadratic):
    objective = quadratic(torch.tensor([[-4.0]]).double(), torch.ones(1).double())
    found = ll.top_eigenpairs(objective, 3)
    assert found.eigenvalues.tolist() == [-4.0]
    assert found.smallest == -4.0
    assert found.settings["max_products"] == 100 * (3 + 1)  # per eigenvalue at either end


def test_what_speaks_against_a_minimum_is_said(quadratic, symmetric):
    zero, definite = torch.zeros(12).double(), symmetric @ symmetric
    assert ll.top_eigenpairs(quadratic(definite, zero)).why_not_a_minimum is None
    lowest = float(torch.linalg.eigvalsh(symmetric)[0])
    assert ll.top_eigenpairs(quadratic(symmetric, zero)).why_not_a_minimum == f"λmin = {lowest:.3g}"
    assert ll.top_eigenpairs(quadratic(definite, zero, zero + 1)).why_not_a_minimum == "‖∇L‖ = 3.46"
    for unit in (1e-6, 1e6):  # of the loss
        assert ll.top_eigenpairs(quadratic(unit * definite, zero)).why_not_a_minimum is None
        sloped = quadratic(unit * definite, zero, unit * (zero + 1))
        assert ll.top_eigenpairs(sloped).why_not_a_minimum == f"‖∇L‖ = {unit * 12**0.5:.3g}"


@pytest.mark.parametrize("kwargs", [{"k": 0}, {"tol": 0}, {"smallest": -1}, {"block": 0}])
def test_questions_without_an_answer_are_refused(sasrec_objective, kwargs):
    with pytest.raises(InputError, match=r"it must be (positive|a whole number)"):
        ll.top_eigenpairs(sasrec_objective, **kwargs)

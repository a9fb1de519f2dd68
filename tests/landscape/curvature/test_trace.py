from dataclasses import replace

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from tests.worlds import signs, with_spectrum

PROJECTING = ["hutch++", "xtrace"]
METHODS = ["hutchinson", *PROJECTING]


@pytest.fixture
def decaying(operator):
    """The eigenvalues 1/i², of order 100: few make up most of the Frobenius norm."""
    return operator(with_spectrum(np.arange(1.0, 101) ** -2))


def errors(target, exact, method, probes, seeds=100):
    """Error and standard error of each seed."""
    found = [ll.trace(target, method=method, probes=probes, seed=seed) for seed in range(seeds)]
    return np.array([f.value for f in found]) - exact, np.array([f.standard_error for f in found])


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


def test_hutchinsons_samples_are_those_of_random_signs(operator, symmetric):
    z = signs(11, 12, seed=3)
    found = ll.trace(operator(symmetric), probes=11, seed=3)
    np.testing.assert_allclose(found.samples, (z @ symmetric.numpy() * z).sum(1), rtol=1e-12)
    assert found.settings["products"] == 11


def test_hutch_plus_plus_is_the_trace_on_a_sketch_and_samples_beside_it(operator):
    matrix = with_spectrum(0.8 ** np.arange(40.0))
    a, z = matrix.numpy(), signs(12, 40)
    q, _ = np.linalg.qr(a @ z[:6].T)
    beside = z[6:] - z[6:] @ q @ q.T
    expected = np.trace(q.T @ a @ q) + (beside @ a * beside).sum(1)
    found = ll.trace(operator(matrix), method="hutch++", probes=18)
    np.testing.assert_allclose(found.samples, expected, rtol=1e-12)
    assert found.value == pytest.approx(expected.mean())
    assert found.standard_error == pytest.approx(expected.std(ddof=1) / 6**0.5)


def left_out(a, z, samples, *others):
    """XTrace's sample of one probe, by a QR of the images of all but it and the others."""
    q, _ = np.linalg.qr(a @ np.delete(z, [samples, *others], axis=0).T)
    beside = z[samples] - q @ (q.T @ z[samples])
    return np.trace(q.T @ a @ q) + beside @ a @ beside


@pytest.mark.parametrize("signed", [1, -1])
def test_xtrace_leaves_each_probe_out_of_the_sketch_that_it_tests(operator, signed):
    matrix = with_spectrum((0.8 * signed) ** np.arange(40.0))
    a, z = matrix.numpy(), signs(8, 40)
    found = ll.trace(operator(matrix), method="xtrace", probes=16)
    expected = [left_out(a, z, i) for i in range(8)]
    np.testing.assert_allclose(found.samples, expected, rtol=1e-11)
    assert found.settings["products"] == 16


@pytest.mark.parametrize(("seed", "beyond"), [(0, ()), (3, ()), (6, ("below",)), (2, ("above",))])
def test_the_standard_error_of_xtrace_counts_the_covariance_of_its_samples(operator, seed, beyond):
    """Var = S²/m + mean of D_ij D_ji over i ≠ j, D_ij the change of sample i when j is left out too.

    That mean is held between 0 and S²/(m - 2).
    """
    matrix = with_spectrum(0.8 ** np.arange(40.0))
    a, z = matrix.numpy(), signs(8, 40, seed)
    samples = np.array([left_out(a, z, i) for i in range(8)])
    changes = np.array(
        [[samples[i] - left_out(a, z, i, j) if i != j else 0.0 for j in range(8)] for i in range(8)]
    )
    shared, variance = (changes * changes.T).sum() / 56, samples.var(ddof=1)
    assert (shared < 0, shared > variance / 6) == ("below" in beyond, "above" in beyond)
    found = ll.trace(operator(matrix), method="xtrace", probes=16, seed=seed)
    held = np.clip(shared, 0, variance / 6)
    assert found.standard_error == pytest.approx((variance / 8 + held) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [None, 0.1])
def test_the_negative_of_a_matrix_has_the_negative_trace_after_as_many_products(operator, method, tol):
    matrix = with_spectrum(np.arange(1.0, 101) ** -2)
    found, negative = (ll.trace(operator(m), method=method, probes=60, tol=tol) for m in (matrix, -matrix))
    np.testing.assert_allclose(negative.samples, -found.samples, rtol=1e-9)
    assert negative.standard_error == pytest.approx(found.standard_error, rel=1e-6)
    for key in ("products", "reached"):
        assert negative.settings[key] == found.settings[key]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_unbiased_and_their_standard_errors_right(decaying, method):
    exact = float(np.sum(np.arange(1.0, 101) ** -2))
    error, claimed = errors(decaying, exact, method, 60)
    assert np.sum(np.abs(error) <= 3 * claimed) >= 97
    assert abs(error.mean()) < 3 * error.std() / 10
    assert np.sqrt((claimed**2).mean()) == pytest.approx(np.sqrt((error**2).mean()), rel=0.25)


def covering(found, exact):
    """How often the intervals hold a trace, and how often 1.96 standard errors do."""
    held = [
        (f.interval[0] <= exact <= f.interval[1], abs(f.value - exact) <= 1.96 * f.standard_error)
        for f in found
    ]
    return np.mean(held, 0)


def test_intervals_of_five_probes_cover_the_trace(operator):
    whole = ll.trace(operator(with_spectrum(np.linspace(0.5, 1.5, 60))), probes=2000)
    groups = whole.samples.reshape(-1, 5)
    found = [
        replace(whole, samples=own, value=float(own.mean()), standard_error=float(own.std(ddof=1) / 5**0.5))
        for own in groups
    ]
    held, plain = covering(found, 60.0)
    assert held == pytest.approx(0.95, abs=0.03)
    assert plain < 0.9


@pytest.mark.parametrize("method", PROJECTING)
def test_intervals_of_five_samples_beside_a_sketch_cover_the_trace(operator, method):
    target = operator(with_spectrum(np.linspace(0.5, 1.5, 40)))
    probes = {"hutch++": 15, "xtrace": 10}[method]
    found = [ll.trace(target, method=method, probes=probes, seed=seed) for seed in range(150)]
    assert {len(f.samples) for f in found} == {5}
    held, plain = covering(found, 40.0)
    assert held > 0.9
    assert held > plain


def test_projecting_wins_where_the_spectrum_decays(decaying):
    exact = float(np.sum(np.arange(1.0, 101) ** -2))
    hutchinson, plus, x = (
        np.sqrt((errors(decaying, exact, method, 60, seeds=20)[0] ** 2).mean()) for method in METHODS
    )
    assert 10 * plus < hutchinson
    assert x < plus


@pytest.mark.parametrize("method", PROJECTING)
@pytest.mark.parametrize("kept", [1, 3, 9])
def test_projecting_is_exact_on_low_rank(operator, method, kept):
    """Also where the sketch has far more vectors than the matrix has rank, or one more."""
    spectrum = np.zeros(50)
    spectrum[:kept] = np.linspace(-2, 5, kept) if kept > 1 else 4
    probes = {"hutch++": 30, "xtrace": 20}[method]
    found = ll.trace(operator(with_spectrum(spectrum)), method=method, probes=probes)
    assert found.value == pytest.approx(spectrum.sum(), abs=1e-12)
    assert found.standard_error < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 29, 30])
def test_a_matrix_no_larger_than_the_probes(operator, method, n):
    spectrum = np.arange(n) - 0.5
    found = ll.trace(operator(with_spectrum(spectrum)), method=method)
    if method == "hutchinson":
        assert abs(found.value - spectrum.sum()) <= 4 * found.standard_error + 1e-12
    else:
        assert found.value == pytest.approx(spectrum.sum(), abs=1e-10)
        assert found.standard_error == 0
        assert found.settings["products"] == n


@pytest.mark.parametrize("method", METHODS)
def test_the_trace_of_zero(operator, method):
    found = ll.trace(operator(torch.zeros(40, 40).double()), method=method, probes=18, tol=0.1)
    assert (found.value, found.standard_error, found.settings["reached"]) == (0, 0, True)


@pytest.mark.parametrize("method", PROJECTING)
def test_float32_is_as_exact_as_its_products(operator, method):
    spectrum = 0.3 ** np.arange(60.0)  # most of the sketch is rounding
    found = ll.trace(operator(with_spectrum(spectrum, torch.float32)), method=method, probes=45)
    assert found.value == pytest.approx(spectrum.sum(), abs=1e-5)
    assert found.standard_error < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_saves_products(decaying, method):
    found = ll.trace(decaying, method=method, probes=90, tol=0.1)
    assert found.settings["products"] < 90
    assert found.standard_error <= 0.1 * found.value
    assert found.settings["reached"]


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_that_is_not_reached_is_told(decaying, method):
    found = ll.trace(decaying, method=method, probes=54, tol=1e-9)
    assert found.settings["products"] == 54
    assert found.settings["reached"] is False


def test_hutchinson_stops_at_the_first_probe_that_is_enough(decaying):
    every = ll.trace(decaying, probes=90).samples
    found = ll.trace(decaying, probes=90, tol=0.1)
    count = len(found.samples)
    np.testing.assert_allclose(found.samples, every[:count], rtol=1e-12)
    assert 8 < count < 90
    assert every[: count - 1].std(ddof=1) / (count - 1) ** 0.5 > 0.1 * every[: count - 1].mean()


def test_a_sketch_that_grows_is_one_made_at_once(decaying):
    grown = ll.trace(decaying, method="xtrace", probes=50, tol=1e-9)
    at_once = ll.trace(decaying, method="xtrace", probes=50)
    np.testing.assert_allclose(grown.samples, at_once.samples, rtol=1e-10)
    assert grown.standard_error == pytest.approx(at_once.standard_error, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_trace_of_a_transformer_agrees_with_the_dense_hessian(
    sasrec_objective, dense_hessian, operator, method
):
    dense = operator(dense_hessian)
    error, claimed = errors(dense, float(dense_hessian.trace()), method, 30, seeds=40)
    assert np.sum(np.abs(error) <= 3 * claimed) >= 38
    assert abs(error.mean()) < 3 * error.std(ddof=1) / 40**0.5
    found, same = (ll.trace(target, method=method) for target in (sasrec_objective, dense))
    np.testing.assert_allclose(found.samples, same.samples, rtol=1e-8)
    assert found.standard_error == pytest.approx(same.standard_error, rel=1e-6)


def test_any_matrix_of_an_objective_is_measured():
    """The trace of the empirical Fisher matrix is the mean of ‖∇ℓ_u‖²: here of 4 r² ‖x‖² with residuals r."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3)))

    def units(model, batch):
        return model(batch)[:, 0] ** 2, torch.ones(len(batch))

    def loss(model, batch):
        return units(model, batch)[0].sum(), len(batch)

    model = torch.nn.Linear(3, 1, bias=False).double()
    fisher = ll.empirical_fisher(ll.Objective(model, [x], loss, per_example=units))
    exact = (4 * model(x)[:, 0] ** 2 * (x**2).sum(1)).mean().item()
    found = ll.trace(fisher, method="xtrace")
    assert found.value == pytest.approx(exact, rel=1e-12)
    assert found.settings["matrix"] == "fisher"


@pytest.mark.slow
def test_the_frobenius_norm_and_its_standard_error_are_those_of_the_theory(operator, symmetric):
    """E ‖Hz‖² = ‖H‖_F², with variance 2 Σ_{i≠j} (H²)_ij²; the error of its root is that over 2‖H‖_F."""
    found = ll.frobenius_norm(operator(symmetric), probes=4000)
    exact = float(symmetric.norm())
    square = symmetric @ symmetric
    spread = (2 * float(((square - torch.diag(square.diag())) ** 2).sum())) ** 0.5
    assert found.standard_error == pytest.approx(spread / (2 * exact * 4000**0.5), rel=0.05)
    assert abs(found.value - exact) < 3 * found.standard_error


def test_the_frobenius_norm_is_the_root_of_the_trace_of_the_square_on_the_same_probes(operator, symmetric):
    norm = ll.frobenius_norm(operator(symmetric), seed=5)
    square = ll.trace(operator(symmetric @ symmetric), seed=5)
    np.testing.assert_allclose(norm.samples, square.samples, rtol=1e-12)
    assert norm.value == pytest.approx(square.value**0.5)
    # by the delta method, d√s = ds / 2√s, and so the half width of the interval, t standard errors
    assert norm.standard_error == pytest.approx(square.standard_error / (2 * norm.value), rel=1e-12)
    widths = [found.interval[1] - found.interval[0] for found in (norm, square)]
    assert widths[0] == pytest.approx(widths[1] / (2 * norm.value), rel=1e-12)


def test_a_frobenius_norm_stops_at_its_tolerance(operator, symmetric):
    found = ll.frobenius_norm(operator(symmetric), probes=500, tol=0.01)
    assert found.standard_error <= 0.01 * found.value
    assert found.settings["reached"]
    assert 8 < found.settings["products"] == len(found.samples) < 500
    before = found.samples[:-1]  # one probe less is not enough
    assert before.std(ddof=1) / len(before) ** 0.5 > 0.01 * 2 * before.mean()
    zero = ll.frobenius_norm(operator(torch.zeros(12, 12).double()))
    assert (zero.value, zero.standard_error, zero.settings["reached"]) == (0, 0, None)


def test_the_diagonal_and_its_standard_errors_are_those_of_the_theory(operator, symmetric):
    """E z_i (Hz)_i = H_ii, with variance Σ_{j≠i} H_ij² a probe."""
    found = ll.diagonal(operator(symmetric), probes=4000)
    off_diagonal = symmetric - torch.diag(symmetric.diag())
    np.testing.assert_allclose(found.standard_errors, off_diagonal.norm(dim=1).numpy() / 4000**0.5, rtol=0.08)
    assert (np.abs(found.values - symmetric.diag().numpy()) < 4 * found.standard_errors).all()


def test_a_diagonal_matrix_takes_one_probe(operator):
    found = ll.diagonal(operator(torch.diag(torch.arange(-3.0, 4)).double()), probes=2)
    np.testing.assert_allclose(found.values, np.arange(-3, 4), atol=1e-14)
    np.testing.assert_allclose(found.standard_errors, 0, atol=1e-14)


def test_the_diagonal_sums_to_the_trace_of_the_same_probes(sasrec_objective):
    assert ll.diagonal(sasrec_objective, probes=9, seed=4).values.sum() == pytest.approx(
        ll.trace(sasrec_objective, probes=9, seed=4).value, rel=1e-10
    )


def test_the_diagonal_and_the_norm_of_a_transformer_agree_with_the_dense_hessian(
    sasrec_objective, dense_hessian
):
    operator = ll.hessian(sasrec_objective)
    found = ll.diagonal(operator, probes=100)
    error = np.abs(found.values - dense_hessian.diag().numpy())
    assert np.mean(error <= 3 * found.standard_errors + 1e-12) > 0.98
    norm = ll.frobenius_norm(operator, probes=100)
    assert abs(norm.value - float(dense_hessian.norm())) < 3 * norm.standard_error


@pytest.mark.parametrize(
    "ask",
    [
        lambda o: ll.trace(o, probes=2),
        lambda o: ll.trace(o, method="xtrace", probes=6, tol=0.5),
        lambda o: ll.frobenius_norm(o, probes=2),
        lambda o: ll.diagonal(o, probes=2),
    ],
)
def test_what_is_saved_is_loaded(sasrec_objective, ask, tmp_path):
    before = ask(sasrec_objective)
    after = ll.load(before.save(tmp_path / "result.npz"))
    assert type(after) is type(before)
    for key, value in vars(before).items():
        np.testing.assert_equal(getattr(after, key), value)
    assert after.settings["products"] == after.settings["probes"]
    assert after.seconds > 0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda o: ll.trace(o, probes=1), "leaves no standard error; use 2"),
        (lambda o: ll.trace(o, method="hutch++", probes=5), "leaves no standard error; use 6"),
        (lambda o: ll.trace(o, method="xtrace", probes=5), "leaves no standard error; use 6"),
        (lambda o: ll.frobenius_norm(o, probes=1), "leaves no standard error"),
        (lambda o: ll.diagonal(o, probes=1), "leaves no standard error"),
        (lambda o: ll.trace(o, tol=0), "tol is 0; it must be positive"),
        (lambda o: ll.frobenius_norm(o, tol=float("nan")), "tol is nan; it must be positive"),
        (
            lambda o: ll.trace(o, method="girard"),
            "method is 'girard'; it must be one of hutchinson, hutch",
        ),
    ],
)
def test_questions_without_an_answer_are_refused(sasrec_objective, ask, message):
    with pytest.raises(InputError, match=message):
        ask(sasrec_objective)


@pytest.mark.parametrize("method", METHODS)
def test_a_product_that_is_not_finite_is_an_error(operator, method):
    bent = operator(torch.eye(40).double())
    bent.objective._bound.model.matrix[3, 3] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        ll.trace(ll.hessian(bent.objective), method=method)

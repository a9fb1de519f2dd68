from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.curvature.density import _bordered, _shortened
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.plots.spectra import spectrum_figure
from tests.worlds import rotated, signs, with_spectrum


@pytest.fixture
def identity(operator):
    """The density of 3 I, of order 5."""
    return ll.spectral_density(operator(3 * torch.eye(5).double()), probes=2)


def test_a_few_eigenvalues_are_recovered_exactly(operator):
    """The weight of an eigenvalue is the squared length of the unit probe in its eigenspace."""
    values = np.repeat([-1.0, 0.0, 0.5, 4.0], [2, 10, 5, 3])
    matrix, q = rotated(values)
    found = ll.spectral_density(operator(matrix), probes=3, steps=15)
    for nodes, weights, z in zip(found.nodes, found.weights, signs(3, 20), strict=True):
        np.testing.assert_allclose(nodes, [-1, 0, 0.5, 4], atol=1e-12)
        shares = (q.T @ z) ** 2 / 20
        np.testing.assert_allclose(weights, [shares[values == v].sum() for v in nodes.round(3)], atol=1e-12)
    assert found.settings["products"] == 3 * 4


def test_moments_are_hutchinsons_on_the_same_probes(sasrec_objective):
    operator = ll.hessian(sasrec_objective)
    found = ll.spectral_density(operator, probes=4, steps=6, seed=7)
    trace = ll.trace(operator, probes=4, seed=7)
    norm = ll.frobenius_norm(operator, probes=4, seed=7)
    for k, samples in ((1, trace.samples), (2, norm.samples)):
        by_nodes = [found.dimension * w @ x**k for x, w in zip(found.nodes, found.weights, strict=True)]
        np.testing.assert_allclose(by_nodes, samples, rtol=1e-10)
        np.testing.assert_allclose(found.moments[k - 1], samples, rtol=1e-10)
    assert found.moment(1) == pytest.approx((trace.value, trace.standard_error), rel=1e-10)
    assert found.moment(0) == pytest.approx((sasrec_objective.params.numel, 0), abs=1e-10)
    assert max(found.moment_error) < 1e-10


def test_moments_of_a_transformer_agree_with_the_dense_hessian(sasrec_objective, dense_hessian):
    """m nodes are exact for polynomials of degree 2m - 1: zᵀHᵏz up to k = 5 from 3 steps."""
    found = ll.spectral_density(sasrec_objective, probes=5, steps=3)
    z = signs(5, len(dense_hessian))
    image = z
    for k in range(6):
        samples = (z * image).sum(1)
        assert found.moment(k)[0] == pytest.approx(samples.mean(), rel=1e-9)
        assert found.moment(k)[1] == pytest.approx(samples.std(ddof=1) / 5**0.5, rel=1e-6, abs=1e-10)
        image = image @ dense_hessian.numpy()


def test_sums_over_a_transformers_spectrum_are_within_their_standard_errors(dense_hessian, operator):
    values = np.linalg.eigvalsh(dense_hessian.numpy())
    found = ll.spectral_density(operator(dense_hessian), probes=20, steps=60)
    gamma = 2 * abs(values[0])
    for (value, error), terms in (
        (found.effective_dimension(gamma), values / (values + gamma)),
        (found.local_entropy(gamma), -np.log1p(values / gamma) / 2),
        (found.moment(3), values**3),
    ):
        assert abs(value - terms.sum()) < 3 * error
        assert error < 0.3 * np.abs(terms).sum()


@pytest.mark.parametrize("steps", [12, 500])
def test_a_complete_krylov_space_gives_each_probe_its_exact_form(operator, symmetric, steps):
    """With n steps, n Σ w f(λ) = zᵀ f(H) z whatever f; more steps than n are none."""
    values, q = np.linalg.eigh(symmetric.numpy())
    found = ll.spectral_density(operator(symmetric), probes=6, steps=steps)
    assert {len(x) for x in found.nodes} == {12}
    ridge = 1e-3 - values[0]
    samples = (signs(6, 12) @ q) ** 2 @ (values / (values + ridge))
    value, error = found.effective_dimension(ridge)
    assert value == pytest.approx(samples.mean(), rel=1e-9)
    assert error == pytest.approx(samples.std(ddof=1) / 6**0.5, rel=1e-9)


def test_no_eigenvalue_appears_twice_in_float32(operator):
    """Without reorthogonalization, copies of the ends appear long before these steps are over."""
    values = np.concatenate([[-40.0, 60.0, 100.0], np.linspace(0, 1, 197)])
    matrix, _ = rotated(values, torch.float32)
    found = ll.spectral_density(operator(matrix), probes=2, steps=150)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        assert len(nodes) == 150
        np.testing.assert_allclose(nodes[np.abs(nodes) > 2], [-40, 60, 100], rtol=1e-5)
        assert nodes[nodes > -39].min() > -1e-4
        assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert max(found.moment_error) < 1e-6


@pytest.mark.parametrize("largest", [1e4, 1e5, 1e6])
def test_small_eigenvalues_are_resolved_in_float32_next_to_a_large_one(operator, largest):
    """What is left of a product with them is some roundings of the largest, and no closed Krylov space."""
    values = np.append(np.linspace(0, 1, 300), largest)
    matrix = with_spectrum(values, torch.float32)
    for seed in range(3):
        found = ll.spectral_density(operator(matrix), probes=8, steps=40, seed=seed)
        for ridge in (0.05, 0.5):
            value, error = found.effective_dimension(ridge)
            assert abs(value - (values / (values + ridge)).sum()) < 3 * error
        for nodes, weights in zip(found.nodes, found.weights, strict=True):
            assert len(nodes) == 40
            assert weights[nodes > 2].sum() > 0
            assert (nodes[nodes > 2] > 0.999 * largest).all()


def test_effective_dimension_and_local_entropy_of_one_eigenvalue(identity):
    assert identity.effective_dimension(1.5) == pytest.approx((5 * 3 / 4.5, 0))
    assert identity.local_entropy(1.5) == pytest.approx((-2.5 * np.log(3), 0))


def test_intervals_of_few_probes_cover_the_moments(operator):
    """Of 100 seeds, at three probes: the t of two degrees of freedom is 4.3, and two errors would not do."""
    eigenvalues = np.linspace(0.5, 1.5, 40)
    target = operator(with_spectrum(eigenvalues))
    found = [ll.spectral_density(target, probes=3, steps=4, seed=seed) for seed in range(100)]
    for k in (1, 2):
        exact = (eigenvalues**k).sum()
        ends = [density.interval(density.moment(k)) for density in found]
        covered = np.mean([low <= exact <= high for low, high in ends])
        plain = np.mean([abs(value - exact) <= 2 * error for value, error in (d.moment(k) for d in found)])
        assert covered >= 0.89
        assert plain < 0.9


def test_a_ridge_must_make_the_matrix_positive_definite(operator):
    found = ll.spectral_density(operator(-3 * torch.eye(5).double()), probes=2)
    assert found.effective_dimension(4) == pytest.approx((-15, 0))
    assert found.local_entropy(4) == pytest.approx((-2.5 * np.log(0.25), 0))
    for shift in (3, 2.9, 0, -1, float("nan")):
        with pytest.raises(InputError, match=r"ridge is .* it must be above 3"):
            found.effective_dimension(shift)
        with pytest.raises(InputError, match=r"gamma is .* it must be above 3"):
            found.local_entropy(shift)


@pytest.mark.parametrize("steps", [20, 60])
@pytest.mark.parametrize("ridge", [1e-4, 1e-2, 1.0])
def test_errors_cover_what_the_steps_do_not_resolve(operator, steps, ridge):
    """For eigenvalues over six decades, a small ridge takes many steps. The probes do not differ here."""
    values = np.logspace(-6, 0, 200)
    found = ll.spectral_density(operator(torch.diag(torch.from_numpy(values))), probes=4, steps=steps)
    value, error = found.effective_dimension(ridge)
    assert abs(value - np.sum(values / (values + ridge))) < 3 * error + 1e-9


@pytest.mark.parametrize("least", [1e-8, 0.0, -1e-6])
@pytest.mark.parametrize("steps", [2, 12, 40])
@pytest.mark.parametrize("ridge", [1e-2, 1e-5])
def test_errors_cover_small_eigenvalues_that_no_step_has_reached_yet(operator, least, steps, ridge):
    """Each step adds a little of them, and the change over many steps is far less than what is missing."""
    values = np.append(10.0 ** -np.linspace(0, 8, 199), least)
    found = ll.spectral_density(operator(with_spectrum(values)), probes=12, steps=steps)
    for (value, error), terms in (
        (found.effective_dimension(ridge), values / (values + ridge)),
        (found.local_entropy(ridge), -np.log1p(values / ridge) / 2),
    ):
        assert abs(value - terms.sum()) < 3 * error


@pytest.mark.parametrize(("steps", "ridge"), [(3, 1.2), (3, 2.0), (8, 1.02), (20, 1.02)])
def test_errors_cover_what_the_steps_leave_open_of_an_indefinite_matrix(operator, steps, ridge):
    """No node lies below all λ for certain there: what the second half of the steps changed has to do."""
    values = np.linspace(-1, 1, 200)
    found = ll.spectral_density(operator(torch.diag(torch.from_numpy(values))), probes=2, steps=steps)
    value, error = found.effective_dimension(ridge)
    assert abs(value - np.sum(values / (values + ridge))) < 1.5 * error


def test_a_node_that_is_set_leaves_a_quadrature_as_exact_as_it_may_be(operator):
    found = ll.spectral_density(operator(with_spectrum(np.linspace(0.1, 2, 30))), probes=2, steps=5)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        x, w = _bordered(nodes, weights, 0.0)
        assert x[0] == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose([w @ x**k for k in range(9)], [weights @ nodes**k for k in range(9)])


def test_one_step_claims_no_error(operator):
    """Its node is zᵀAz/n, the same for each probe of a diagonal matrix, and far from Σ λ / (λ + ridge)."""
    values = torch.tensor([10.0, 0.1, 0.1, 0.0, 0.0]).double()
    found = ll.spectral_density(operator(torch.diag(values)), probes=4, steps=1)
    for ask in (found.effective_dimension, found.local_entropy):
        with pytest.raises(InputError, match="one step leaves no error"):
            ask(0.1)
    assert found.moment(1) == pytest.approx((float(values.sum()), 0))


def test_a_quadrature_is_cut_back_to_that_of_fewer_steps(operator):
    matrix, _ = rotated(np.linspace(-1, 2, 30))
    long = ll.spectral_density(operator(matrix), probes=2, steps=12)._changed(partial(_shortened, steps=7))
    short = ll.spectral_density(operator(matrix), probes=2, steps=7)
    np.testing.assert_allclose(long.nodes, short.nodes, atol=1e-11)
    np.testing.assert_allclose(long.weights, short.weights, atol=1e-11)


def test_local_entropy_is_that_of_a_gaussian_integral():
    """In two dimensions, ln ∫ exp(-λ₁x²/2 - λ₂y²/2 - γ(x² + y²)/2) against that of a flat loss."""
    axis = np.linspace(-12, 12, 801)
    squares = axis[:, None] ** 2, axis[None, :] ** 2
    curved = np.exp(-(1.7 * squares[0] + 0.7 * squares[1]) / 2).sum()
    flat = np.exp(-0.7 * (squares[0] + squares[1]) / 2).sum()
    found = ll.SpectralDensity(
        nodes=(np.array([0.0, 1.0]),) * 2,
        weights=(np.array([0.5, 0.5]),) * 2,
        moments=np.ones((2, 2)),
        dimension=2,
        settings={"steps": 3},
        provenance={},
        seconds=0.1,
    )
    assert found.local_entropy(0.7)[0] == pytest.approx(np.log(curved / flat), rel=1e-6)


def test_the_broadened_density_is_a_mixture_of_gaussians(operator, identity):
    x = np.linspace(2, 4, 7)
    expected = np.exp(-(((x - 3) / 0.2) ** 2) / 2) / (0.2 * (2 * np.pi) ** 0.5)
    np.testing.assert_allclose(identity.at(x, 0.2), expected, rtol=1e-12)
    assert identity.at(x[:6].reshape(2, 3), 0.2).shape == (2, 3)
    found = ll.spectral_density(operator(rotated(np.linspace(-1, 2, 30))[0]), probes=3, steps=10)
    grid = np.linspace(-3, 4, 2001)
    assert np.trapezoid(found.at(grid, 0.1), grid) == pytest.approx(1, abs=1e-9)
    assert np.trapezoid(grid * found.at(grid, 0.1), grid) == pytest.approx(found.moment(1)[0] / 30)


def test_the_moment_error_sees_a_wrong_quadrature(identity):
    assert max(identity.moment_error) < 1e-12
    wrong = replace(identity, nodes=tuple(1.01 * x for x in identity.nodes))
    assert wrong.moment_error == pytest.approx((0.01 / 1.01, 0.0201 / 1.0201))
    turned = replace(wrong, nodes=tuple(-x for x in wrong.nodes), moments=identity.moments * [[-1], [1]])
    assert turned.moment_error == pytest.approx(wrong.moment_error)  # relative to Σ |λ|, which is not Σ λ


@pytest.mark.parametrize("n", [1, 4])
def test_zero_and_one_parameter(operator, n):
    zero = ll.spectral_density(operator(torch.zeros(n, n).double()))
    assert [x.tolist() for x in zero.nodes] == [[0.0]] * 8
    assert zero.moment(1) == zero.effective_dimension(0.1) == (0, 0)
    assert abs(zero.local_entropy(1)[0]) == 0
    assert zero.moment_error == (0, 0)
    one = ll.spectral_density(operator(-2 * torch.eye(n).double()))
    assert one.moment(1) == pytest.approx((-2 * n, 0), abs=1e-14)
    assert one.settings["products"] == 8


def test_what_is_saved_is_loaded(operator, symmetric, tmp_path):
    before = ll.spectral_density(operator(symmetric), probes=11, steps=5)
    after = ll.load(before.save(tmp_path / "result.npz"))
    assert isinstance(after, ll.SpectralDensity)
    for key, value in vars(before).items():
        np.testing.assert_equal(getattr(after, key), value)
    assert after.settings["matrix"] == "hessian"
    assert after.effective_dimension(20) == before.effective_dimension(20)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda o: ll.spectral_density(o, probes=1), "leaves no standard error; use 2"),
        (lambda o: ll.spectral_density(o, steps=0), "steps is 0; it must be a whole number from 1"),
        (lambda o: ll.spectral_density(o).at(np.zeros(1), 0), "width is 0; it must be positive"),
        (lambda o: ll.spectral_density(o).moment(-1), "k is -1; it must be a whole number, 0 or more"),
        (lambda o: ll.spectral_density(o).moment(0.5), "k is 0.5; it must be a whole number, 0 or more"),
        (lambda o: ll.spectral_density(o).effective_dimension(0), "ridge is 0; it must be above 0"),
    ],
)
def test_questions_without_an_answer_are_refused(operator, ask, message):
    with pytest.raises(InputError, match=message):
        ask(operator(torch.eye(3).double()))


def test_a_spectrum_shows_eigenvalues_per_unit_and_the_converged_ones(identity):
    pairs = Eigenpairs(
        eigenvalues=np.array([3.0, 2.5]),
        eigenvectors=np.eye(2),
        residuals=np.array([1e-4, 0.5]),
        converged=[True, False],
        smallest_eigenvalues=np.array([-1.0, 2.0]),
        smallest_eigenvectors=np.eye(2),
        smallest_residuals=np.array([1e-4, 0.5]),
        products=9,
        gradient_norm=0.3,
        settings={"tol": 1e-3},
        provenance={},
        seconds=0.1,
    )
    figure = spectrum_figure({"a": identity, "b": identity}, {"b": pairs})
    (axes,) = figure.axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    for line in curves:
        x, y = line.get_data()
        assert np.trapezoid(y, x) == pytest.approx(5)
    assert [line.get_label() for line in curves] == ["a", "b"]
    (tick,) = (line for line in axes.lines if line.get_marker() == "|")
    assert tick.get_xdata().tolist() == [3, -1]
    assert tick.get_color() == curves[1].get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    (border,) = (line for line in axes.lines if len(line.get_xdata()) == 2 and line is not tick)
    pixel = axes.transData.transform((0, border.get_ydata()[0]))
    assert tick.get_ydata()[0] < axes.transAxes.inverted().transform(pixel)[1]  # below where the lines end
    assert len(spectrum_figure({"a": identity}).axes) == 1


def test_a_spectrum_of_nothing_is_refused(identity):
    for densities, ticks in (({}, None), ({"a": identity}, {"b": None})):
        with pytest.raises(InputError, match="expected at least one density, and ticks only for names"):
            spectrum_figure(densities, ticks)

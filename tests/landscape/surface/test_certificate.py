"""What a surface says of its error, and whether that is so."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Direction, Objective
from landscape.statistics import ratio_error
from landscape.surface.certificate import checked, fresh_error, paired_error, uncovered
from landscape.surface.chebyshev import Axis, at_points
from landscape.surface.loss_cache import LossCache


class Function(nn.Module):
    """A loss of two numbers x and y."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2, dtype=dtype))


AXES = [Direction(torch.eye(2).double()[i], "axis") for i in (0, 1)]


def of(function, dtype=torch.float64):
    return Objective(Function(dtype), [None], lambda m, _: (function(*m.at), 1))


def exact(function, result):
    x, y = np.meshgrid(*result.coordinates, indexing="ij")
    return function(torch.from_numpy(x), torch.from_numpy(y)).numpy()


SMOOTH = {
    "exponential": lambda x, y: torch.exp(x - 0.5 * y),
    "ripples": lambda x, y: torch.cos(4 * x) * torch.sin(3 * y) + x,
    "peak": lambda x, y: 1 / (1 + 3 * (x**2 + y**2)),
    "one axis": lambda x, y: torch.sin(9 * x) + 0 * y,
}


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
@pytest.mark.parametrize("name", SMOOTH)
def test_the_error_is_what_the_certificate_says(name, tol):
    result = ll.plane(of(SMOOTH[name]), directions=AXES, tol=tol)
    error = np.abs(result.losses - exact(SMOOTH[name], result))
    assert result.certificate.reached
    assert result.certificate.max_error <= tol
    assert error.max() < 5 * tol * np.ptp(result.samples)


@pytest.mark.slow
def test_the_share_that_errs_by_more_is_within_what_is_said_19_times_of_20():
    ripples = of(SMOOTH["ripples"])
    draws = np.random.default_rng(0).uniform(-1, 1, (2, 20_000))
    truth = SMOOTH["ripples"](*torch.from_numpy(draws)).numpy()
    kept = 0
    for seed in range(100):
        result = ll.plane(ripples, directions=AXES, tol=1e-2, seed=seed)
        axes = [Axis.through(nodes, 1) for nodes in result.nodes]
        error = np.abs(at_points(axes, result.samples, draws.T) - truth)
        kept += np.mean(error > result.error) <= result.certificate.share
    assert kept >= 91  # of 95 expected, three standard deviations


def test_what_is_said_holds_although_the_points_decide_which_fit_stands():
    """The worst fits there can be: each errs on just more than is said, and stands if no point sees that."""
    rng = np.random.default_rng(0)
    points, fits, studies = 60, 7, 40_000
    wrong = 0
    open_ = np.ones(studies, bool)
    for attempt in range(1, fits + 1):
        missed = ~(rng.random((studies, points)) < uncovered(points, attempt) + 1e-9).any(1)
        wrong += np.count_nonzero(open_ & missed)
        open_ &= ~missed
    assert 0.03 < wrong / studies < 0.05


def test_a_product_of_quadratics_takes_the_fewest_points_and_is_exact():
    def product(x, y):
        return (x**2 - x) * (y**2 + 2)

    result = ll.plane(of(product), directions=AXES)
    assert result.samples.shape == (5, 5)
    assert result.certificate.max_error < 1e-13
    np.testing.assert_allclose(result.losses, exact(product, result), atol=1e-13)


def test_each_axis_has_as_many_points_as_it_needs():
    result = ll.plane(of(SMOOTH["one axis"]), directions=AXES, tol=1e-6)
    assert result.samples.shape == (33, 5)
    turned = ll.plane(of(lambda x, y: SMOOTH["one axis"](y, x)), directions=AXES, tol=1e-6)
    assert turned.samples.shape == (5, 33)


def test_what_33_points_do_not_reach_is_said_and_pieces_mend_it():
    def kinked(x, y):
        return x.abs() + y

    with pytest.warns(UserWarning, match="33 points per axis do not reach .* split each axis into 2"):
        result = ll.plane(of(kinked), directions=AXES, tol=1e-3)
    assert not result.certificate.reached
    assert result.certificate.max_error > 1e-3
    assert "not reached" in result.statement
    with pytest.warns(UserWarning, match="97 points per axis do not reach .* split each axis into 6"):
        ll.line(of(kinked), directions=AXES[:1], tol=1e-3, split=3)  # the kink is within a piece
    split = ll.plane(of(kinked), directions=AXES, tol=1e-3, split=2)
    assert split.certificate.reached
    assert split.samples.shape == (9, 9)
    np.testing.assert_allclose(split.losses, exact(kinked, split), atol=1e-13)


def test_a_surface_that_is_not_finite_is_a_plain_grid():
    with pytest.warns(UserWarning, match="not finite at 10 of 25 points"):
        result = ll.plane(of(lambda x, y: torch.log(x + 0.5) + y), directions=AXES)
    assert result.certificate is None
    assert result.losses.shape == (25, 25)
    assert np.isnan(result.losses[0]).all()
    assert np.isfinite(result.losses[-1]).all()


def test_a_fit_of_a_loss_that_is_not_finite_between_its_points_has_no_end_of_error():
    def torn(x, y):
        return torch.where((x > 0.02) & (x < 0.09), torch.nan, x.exp()) + y

    with pytest.warns(UserWarning, match="do not reach"):
        found = ll.line(of(torn), directions=AXES[:1])
    assert np.isfinite(found.samples).all()
    assert found.error == found.certificate.max_error == np.inf
    assert not found.certificate.reached


def test_each_seed_has_fresh_points_of_its_own():
    peak = of(SMOOTH["peak"])
    errors = {ll.line(peak, directions=AXES[:1], tol=0.1, seed=seed).error for seed in range(3)}
    assert len(errors) == 3


def test_a_constant_has_no_error():
    certificate = ll.plane(of(lambda x, y: 0 * x + 3), directions=AXES).certificate
    assert certificate.reached
    assert certificate.max_error < 1e-14


def test_the_chances_of_all_fits_to_pass_wrongly_add_up_to_5_percent():
    """By the rule of three a single fit that points judge once would have 3/60 in place of 3.7/60."""
    assert uncovered(60, 1) == pytest.approx(3.689 / 60, rel=1e-3)
    # a fit that errs on a share p passes n points with a probability of (1 - p)^n
    chances = [(1 - uncovered(600, attempt)) ** 600 for attempt in range(1, 2000)]
    assert chances[0] <= 0.025
    assert 0.045 < sum(chances) <= 0.05


def test_the_share_grows_with_the_fits_that_the_same_points_have_judged(monkeypatch):
    judged = []

    def watched(*given):
        judged.append(fresh_error(*given))
        return judged[-1]

    monkeypatch.setattr("landscape.surface.certificate.fresh_error", watched)
    for degree, fits in ((1, 1), (8, 2), (16, 3)):  # T_8 is 1 at 5 Chebyshev points, T_16 at 9 of them too
        judged.clear()

        def wave(x, y, n=degree):
            return 2 * x + torch.cos(n * torch.arccos(x.clamp(-1, 1))) + 0 * y

        found = ll.line(of(wave), directions=AXES[:1])
        assert found.certificate.attempts == len(judged) == fits
        assert found.certificate.share == pytest.approx(np.log(20 * fits * (fits + 1)) / 60)


def test_a_multiple_of_the_loss_has_the_same_relative_errors():
    """Of a power of two, to the last bit."""
    axes = [Direction(d.vector.float(), "axis") for d in AXES]
    one, many = (
        ll.plane(of(lambda x, y, c=c: c * SMOOTH["ripples"](x, y), torch.float32), directions=axes, tol=1e-2)
        for c in (1, 64)
    )
    np.testing.assert_array_equal(many.losses, 64 * one.losses)
    assert one.certificate.float64 > 0
    assert many.certificate == replace(one.certificate, error=64 * one.error)


def test_float32_says_how_far_it_is_from_float64():
    def function(x, y):
        return (1000 + x.exp() + y).sum()

    result = ll.plane(
        of(function, torch.float32), directions=[Direction(d.vector.float(), "axis") for d in AXES]
    )
    assert 1e-8 < result.certificate.float64 < 1e-3
    assert ll.plane(of(function), directions=AXES).certificate.float64 is None


def mean_of(values, dtype=torch.float64):
    """The mean over units of (θ - value)²: its standard errors are known."""

    def units(model, batch):
        return (model.at[0] - batch) ** 2 + 0 * model.at[1], torch.ones_like(batch)

    def loss(model, batch):
        return units(model, batch)[0].sum(), len(batch)

    batches = torch.as_tensor(values, dtype=dtype).split(7)
    provenance = {"data_sha256": "a", "users": str(len(values)), "objective_seed": "0", "loss": "square"}
    return Objective(Function(dtype), batches, loss, per_example=units, provenance=provenance)


def test_the_standard_error_is_that_of_a_mean_over_units():
    values = np.random.default_rng(0).standard_normal(50)
    result = ll.line(mean_of(values), directions=AXES[:1])
    expected = np.std(values**2, ddof=1) / np.sqrt(50)
    assert result.certificate.standard_error == pytest.approx(expected, rel=1e-12)
    assert result.certificate.units == 50
    # L(1) - L(0) = 1 - 2 mean(values), and mirrored at -1
    assert result.certificate.rise_standard_error == pytest.approx(
        2 * np.std(values, ddof=1) / np.sqrt(50), rel=1e-12
    )
    for span in ((-0.1, 1.0), (-1.0, 0.1)):  # of the corner where it is largest
        there = ll.line(mean_of(values), directions=AXES[:1], spans=[span]).certificate
        assert there.rise_standard_error == pytest.approx(result.certificate.rise_standard_error, rel=1e-12)


def test_one_unit_with_a_weight_has_no_standard_error():
    """Beside it stand users without a target, whose parts are 0 whatever the loss is."""

    def units(model, weights):
        return weights * (model.at[0] - 1) ** 2 + 0 * model.at[1], weights

    weights = torch.tensor([0.0, 3.0, 0.0]).double()
    objective = Objective(
        Function(torch.float64), [weights], lambda m, w: (units(m, w)[0].sum(), w.sum()), per_example=units
    )
    found = ll.line(objective, directions=AXES[:1]).certificate
    assert (found.standard_error, found.rise_standard_error, found.units) == (None, None, 1)
    path = ll.barrier(objective, objective.theta + 3, metrics={"m": objective}, grid=5)
    assert path.standard_error is None
    assert np.isnan(path.metrics["m"]["standard_errors"]).all()


def test_what_two_checkpoints_share_falls_out_of_their_difference():
    values = np.random.default_rng(0).standard_normal(50)
    a, b = mean_of(values), mean_of(values)
    b.params.theta.add_(torch.tensor([0.1, 0.0], dtype=torch.float64))
    first, second = (ll.line(o, directions=AXES[:1]) for o in (a, b))
    # (0.1 - v)² - v² = 0.01 - 0.2 v
    assert paired_error(second, first) == pytest.approx(0.2 * np.std(values, ddof=1) / np.sqrt(50), rel=1e-9)
    assert paired_error(second, ll.line(mean_of(values[:40]), directions=AXES[:1])) is None
    assert paired_error(second, ll.line(a, directions=AXES[:1], grid=5)) is None
    for key, value in (("data_sha256", "b"), ("objective_seed", "1"), ("loss", "other")):
        assert paired_error(second, replace(first, provenance=first.provenance | {key: value})) is None


def test_one_unit_has_no_standard_error():
    assert ratio_error(np.zeros(1)) is None
    assert ll.line(of(SMOOTH["peak"]), directions=AXES[:1]).certificate.standard_error is None


def test_a_loss_that_knows_float32_alone_is_still_certified():
    def loss(model, _):
        return model.at.sum() + torch.dot(model.at, torch.ones(2)), 1  # fails in float64

    objective = Objective(Function(torch.float32), [None], loss)
    parts, float64 = checked(LossCache(objective, [Direction(torch.ones(2), "given")]), [Axis(-1, 1)])
    assert float64 is None
    assert parts.shape == (3, 1)


def test_a_result_comes_back_with_its_certificate(tmp_path):
    result = ll.plane(of(SMOOTH["peak"]), directions=AXES)
    loaded = ll.load(result.save(tmp_path / "a.npz"))
    assert loaded.certificate == result.certificate
    at = (np.linspace(-1, 1, 7), np.linspace(-0.3, 0.4, 5))
    np.testing.assert_array_equal(loaded.at(at), result.at(at))
    np.testing.assert_array_equal(result.at(result.coordinates), result.losses)
    with warnings.catch_warnings(), pytest.raises(ll.InputError, match="plain grid"):
        ll.plane(of(SMOOTH["peak"]), directions=AXES, grid=3).at(at)

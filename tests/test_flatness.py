import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness import point as points
from landscape.flatness.measures import MEASURES, sharpness_by_group
from landscape.flatness.noise import LARGEST, sigma_reaching

RHO, SIGMA = 0.3, 0.05
INVARIANT = [name for name, m in MEASURES.items() if m.invariant]
SCALED = [name for name, m in MEASURES.items() if not m.invariant]


@pytest.fixture
def positive(symmetric):
    return symmetric @ symmetric / 12


def measure(objective, name, **settings):
    row = ll.sharpness(objective, [name], **{"rho": RHO, "sigma": SIGMA, **settings}).measures[name]
    return row["value"], row["se"]


def by_unit(model, batches, each):
    """An objective whose units weigh 1 each; `each` maps (model, batch) to their losses."""

    def units(model, batch):
        losses = each(model, batch)
        return losses, torch.ones_like(losses)

    return Objective(model, batches, lambda m, b: (each(m, b).sum(), len(each(m, b))), units=units)


def squared(model, batch):
    return (model(batch[0]).squeeze(-1) - batch[1]) ** 2


def draws(seed, count, size):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.standard_normal(size) for _ in range(count)]))


# the worst perturbation


def test_one_step_on_a_quadratic(quadratic, symmetric):
    """With u = ĝ: L(θ + ρu) - L(θ) = ρ‖g‖ + ρ² uᵀAu / 2."""
    at = torch.linspace(-1, 1, 12).double()
    g = symmetric @ at
    u = g / g.norm()
    expected = RHO * g.norm() + RHO**2 * (u @ symmetric @ u) / 2
    value, error = measure(quadratic(symmetric, at), "sam")
    assert value == pytest.approx(float(expected), rel=1e-10)
    assert error is None


def test_one_adaptive_step_on_a_quadratic(quadratic, symmetric):
    """δ = ρ θ² g / ‖|θ| g‖, zero weights included."""
    at = torch.linspace(-1, 1, 12).double()
    at[3] = 0
    g = symmetric @ at
    delta = RHO * at**2 * g / (at * g).norm()
    value, _ = measure(quadratic(symmetric, at), "asam")
    assert value == pytest.approx(float(g @ delta + delta @ symmetric @ delta / 2), rel=1e-10)


def test_the_worst_case_at_a_minimum_is_the_top_eigenvalue(quadratic, positive):
    """At g = 0: max over ‖δ‖ <= ρ of δᵀAδ/2 = λmax ρ² / 2."""
    value, _ = measure(quadratic(positive, torch.zeros(12).double()), "worst", steps=200)
    assert value == pytest.approx(float(torch.linalg.eigvalsh(positive)[-1]) * RHO**2 / 2, rel=1e-6)


@pytest.mark.parametrize(("worst", "stepped"), [("worst", "sam"), ("worst-adaptive", "asam")])
def test_the_worst_case_is_at_least_one_step(quadratic, symmetric, sasrec_objective, worst, stepped):
    at = torch.linspace(-1, 1, 12).double()
    for objective in (quadratic(symmetric, at), sasrec_objective):
        assert measure(objective, worst)[0] >= measure(objective, stepped)[0]


def trust_region(matrix, g):
    """Return max over ‖u‖ <= ρ of gᵀu + uᵀAu/2: u = (μ - A)⁻¹ g with μ > λmax and ‖u‖ = ρ."""
    values, vectors = torch.linalg.eigh(matrix)
    low, high = float(values[-1]) + 1e-12, float(values[-1]) + float(g.norm()) / RHO + 1
    for _ in range(200):
        mu = (low + high) / 2
        u = vectors @ ((vectors.T @ g) / (mu - values))
        low, high = (mu, high) if u.norm() > RHO else (low, mu)
    return float(g @ u + u @ matrix @ u / 2)


def test_the_worst_case_solves_the_trust_region_problem(quadratic, positive):
    at = torch.linspace(-1, 1, 12).double()
    value, _ = measure(quadratic(positive, at), "worst", steps=100)
    assert value == pytest.approx(trust_region(positive, positive @ at), rel=1e-8)


def test_the_adaptive_worst_case_solves_it_in_units_of_the_weights(quadratic, positive):
    """With δ = |θ| u, the matrix is C A C and the gradient C g, C = diag |θ|."""
    at = torch.linspace(0.5, 1.5, 12).double()
    value, _ = measure(quadratic(positive, at), "worst-adaptive", steps=200)
    inner = torch.outer(at, at) * positive
    assert value == pytest.approx(trust_region(inner, at * (positive @ at)), rel=1e-6)


@pytest.mark.parametrize("at", [0.0, 2.0])
def test_keskars_worst_of_a_diagonal_quadratic_is_a_corner_of_the_box(quadratic, at):
    """|δ_i| = ε (|θ_i| + 1), and the rise is in percent of 1 + L."""
    a = torch.linspace(0.5, 2, 12).double()
    theta = torch.full((12,), at).double()
    side = 0.2 * (theta + 1)
    expected = 100 * (a * theta * side + a * side**2 / 2).sum() / (1 + (a * theta**2).sum() / 2)
    value, _ = measure(quadratic(torch.diag(a), theta), "keskar", epsilon=0.2)
    assert value == pytest.approx(float(expected), rel=1e-10)


def test_keskars_worst_of_a_convex_quadratic_is_the_best_of_all_corners(quadratic, positive):
    matrix, at = positive[:6, :6], torch.linspace(-1, 1, 6).double()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 6) * 0.1 * (at.abs() + 1)
    rises = corners @ matrix @ at + ((corners @ matrix) * corners).sum(1) / 2
    value, _ = measure(quadratic(matrix, at), "keskar", epsilon=0.1)
    assert value == pytest.approx(float(100 * rises.max() / (1 + at @ matrix @ at / 2)), rel=1e-10)


def test_a_loss_below_minus_one_has_no_percentage(quadratic):
    objective = quadratic(torch.eye(2).double(), torch.zeros(2).double(), torch.ones(2).double())
    lower = Objective(nn.Linear(1, 1), [None], lambda m, _: (m.bias.sum() ** 2 - 9, 1))
    quick = {"samples": 2, "probes": 2, "steps": 1}
    assert "keskar" in ll.sharpness(objective, **quick).measures
    assert "keskar" not in ll.sharpness(lower, **quick).measures
    with pytest.raises(InputError, match=r"1 \+ L"):
        ll.sharpness(lower, ["keskar"])


def test_a_zero_gradient_is_no_division(quadratic, positive):
    objective = quadratic(positive, torch.zeros(12).double())
    for name in ("sam", "asam", "m-sharpness"):
        assert measure(objective, name)[0] == 0


def test_m_sharpness_is_the_mean_of_what_each_batch_rises_alone():
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    batches = [(torch.randn(n, 3).double(), torch.randn(n).double()) for n in (4, 8)]
    alone = [measure(by_unit(model, [batch], squared), "sam")[0] for batch in batches]
    row = ll.sharpness(by_unit(model, batches, squared), ["m-sharpness"], rho=RHO).measures["m-sharpness"]
    assert row["value"] == pytest.approx((4 * alone[0] + 8 * alone[1]) / 12, rel=1e-12)
    assert row["m"] == 8
    one = by_unit(model, batches[:1], squared)
    assert measure(one, "m-sharpness")[0] == pytest.approx(measure(one, "sam")[0], rel=1e-12)


# the average perturbation


def test_the_average_of_a_quadratic_is_half_the_trace(quadratic, symmetric):
    """E over z of L(θ + σz) - L(θ) = σ² tr A / 2: antithetic pairs take the gradient out exactly."""
    objective = quadratic(symmetric, 100 * torch.ones(12).double())
    value, error = measure(objective, "average", samples=1000)
    assert abs(value - SIGMA**2 * float(symmetric.trace()) / 2) < 3 * error
    variance = SIGMA**4 * float((symmetric**2).sum()) / 2
    assert error == pytest.approx((variance / 1000) ** 0.5, rel=0.1)


def test_the_adaptive_average_scales_by_the_weights(quadratic, symmetric):
    at = torch.linspace(0, 2, 12).double()
    value, error = measure(quadratic(symmetric, at), "average-adaptive", samples=1000)
    assert abs(value - SIGMA**2 * float((at**2 * symmetric.diag()).sum()) / 2) < 3 * error


def test_the_filtered_loss_is_the_loss_and_its_average_rise(sasrec_objective):
    found = ll.sharpness(sasrec_objective, ["lpf", "average"], samples=3)
    rows = found.measures
    assert rows["lpf"]["value"] == pytest.approx(found.loss + rows["average"]["value"], rel=1e-14)


def test_measures_of_one_noise_share_their_evaluations():
    """The σ at which both PAC-Bayes searches begin is the average's by default."""
    calls = []
    model, batch = nn.Linear(2, 1), (torch.ones(3, 2), torch.zeros(3))

    def each(model, batch):
        calls.append(1)
        return squared(model, batch)

    objective = by_unit(model, [batch], each)

    def spent(*names):
        calls.clear()
        ll.sharpness(objective, names, samples=4)
        return len(calls)

    assert spent("average", "lpf") == spent("average")
    assert spent("average", "pac-bayes-sigma") == spent("pac-bayes-sigma")


@pytest.mark.parametrize("name", ["pac-bayes-sigma", "pac-bayes-sigma-adaptive"])
def test_the_pac_bayes_sigma_of_a_quadratic(quadratic, positive, name):
    """The rise is σ² zᵀAz / 2 of each draw, so 1/σ² is the mean of zᵀAz / (2 rise), exactly."""
    at = torch.linspace(0.5, 1.5, 12).double()
    scale = at if name.endswith("adaptive") else torch.ones_like(at)
    z = draws(3, 5, 12) * scale
    each = ((z @ positive) * z).sum(1) / (2 * 0.7)
    found = ll.sharpness(quadratic(positive, at), [name], samples=5, rise=0.7, seed=3)
    row = found.measures[name]
    assert row["value"] == pytest.approx(float(each.mean()), rel=1e-10)
    assert row["sigma"] == pytest.approx(float(each.mean()) ** -0.5, rel=1e-10)
    np.testing.assert_allclose(found.by_draw[0], each, rtol=1e-8)


def test_at_the_pac_bayes_sigma_the_average_rise_is_the_one_asked_for(sasrec_objective):
    found = ll.sharpness(sasrec_objective, ["pac-bayes-sigma"], samples=3, rise=0.3)
    sigma = found.measures["pac-bayes-sigma"]["sigma"]
    assert measure(sasrec_objective, "average", samples=3, sigma=sigma)[0] == pytest.approx(0.3, rel=1e-4)


def known(rise):
    """Noise under which the loss rises as a function of σ."""
    return SimpleNamespace(rise=lambda sigma: SimpleNamespace(mean=rise(sigma)))


@pytest.mark.parametrize("power", [0.5, 1, 2, 4])
@pytest.mark.parametrize("sigma", [1e-6, 0.3, 500.0])
def test_the_sigma_of_a_power_law_is_found_with_its_power(power, sigma):
    reached = sigma_reaching(known(lambda s: 0.1 * (s / sigma) ** power), 0.1)
    assert reached.sigma == pytest.approx(sigma, rel=1e-9)
    assert reached.power == pytest.approx(power, rel=1e-6)


@pytest.mark.parametrize(
    ("rise", "sigma"),
    [
        (lambda s: s**2 - s, (1 + 1.6**0.5) / 2),  # falls first, as at a saddle
        (lambda s: s**2 if s < 0.2 else math.inf, 0.2),  # overflows
        (lambda s: 0.0 if s < 3 else math.nan, 3),
        (lambda s: float(s > 0.05), 0.05),  # jumps
        (math.expm1, math.log1p(0.15)),
    ],
)
def test_the_sigma_is_found_where_the_loss_is_no_power(rise, sigma):
    assert sigma_reaching(known(rise), 0.15).sigma == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize("rise", [lambda s: 0.0, lambda s: -(s**2), lambda s: 0.1 * math.tanh(s)])
def test_a_rise_that_is_never_reached_is_no_sharpness(rise):
    assert sigma_reaching(known(rise), 0.15).sigma == math.inf
    assert sigma_reaching(known(lambda s: s / LARGEST), 1.0).sigma == pytest.approx(LARGEST)


def test_a_bounded_loss_has_a_pac_bayes_sharpness_of_zero(quadratic):
    found = ll.sharpness(quadratic(torch.zeros(2, 2).double(), torch.ones(2).double()), samples=2)
    row = found.measures["pac-bayes-sigma"]
    assert (row["value"], row["se"], row["sigma"]) == (0, None, math.inf)


def test_a_loss_that_falls_off_a_cliff_has_a_sigma_at_its_edge():
    def cliff(model, _):
        near = model.weight.abs().max() < 1
        return torch.where(near, model.weight.square(), math.inf).sum(), 1

    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    found = ll.sharpness(Objective(layer, [None], cliff), ["pac-bayes-sigma"], samples=4, rise=50)
    row = found.measures["pac-bayes-sigma"]
    furthest = float(draws(0, 4, 6)[:, :4].abs().max())
    assert row["sigma"] == pytest.approx(1 / furthest, rel=2e-3)
    assert np.isfinite(found.by_draw[0]).all()


# the gradient


def test_the_gradient_norm(quadratic, symmetric):
    at = torch.ones(12).double()
    assert measure(quadratic(symmetric, at), "gradient-norm")[0] == pytest.approx(
        float((symmetric @ at).norm())
    )


def regression(count=30, seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 1, bias=False).double()
    x, y = torch.randn(count, 3).double(), torch.randn(count).double()
    return model, x, y


def test_fisher_rao_of_linear_regression(quadratic):
    """With s = (wᵀx - y)²: ⟨∇s, w⟩ = 2 (wᵀx - y) wᵀx, whatever batches the units lie in."""
    model, x, y = regression()
    objective = by_unit(model, [(x[:9], y[:9]), (x[9:], y[9:])], squared)
    out = model(x).squeeze(1).detach()
    value, error = measure(objective, "fisher-rao")
    slopes = (2 * (out - y) * out).numpy()
    assert value == pytest.approx((slopes**2).mean(), rel=1e-12)
    assert error == pytest.approx((slopes**2).std(ddof=1) / 30**0.5, rel=1e-12)
    theta = objective.theta
    assert value == pytest.approx(float(theta @ ll.empirical_fisher(objective)(theta)), rel=1e-12)


@pytest.mark.parametrize(
    ("units", "message"),
    [(None, "not given the units"), (lambda m, b: (m(b).detach()[:, 0], torch.ones(2)), "no derivative")],
)
def test_fisher_rao_needs_units_that_can_be_differentiated(units, message):
    objective = Objective(nn.Linear(3, 1), [torch.ones(2, 3)], lambda m, b: (m(b).sum(), 2), units=units)
    with pytest.raises(InputError, match=message):
        ll.sharpness(objective, ["fisher-rao"])
    assert "fisher-rao" not in ll.sharpness(objective, steps=1, samples=2, probes=2).measures


# the Hessian


def test_curvature_rows_are_those_of_the_curvature_measurements(sasrec_objective):
    rows = ll.sharpness(sasrec_objective, ["lambda-max", "trace", "frobenius"], probes=5, seed=2).measures
    top = ll.top_eigenpairs(sasrec_objective, 1, bottom=0, seed=2)
    trace = ll.trace(sasrec_objective, probes=5, seed=2)
    norm = ll.frobenius_norm(sasrec_objective, probes=5, seed=2)
    assert rows["lambda-max"]["value"] == pytest.approx(float(top.eigenvalues[0]), rel=1e-9)
    assert rows["trace"]["value"] == pytest.approx(trace.value, rel=1e-9)
    assert rows["trace"]["se"] == pytest.approx(trace.standard_error, rel=1e-9)
    assert rows["frobenius"]["value"] == pytest.approx(norm.value, rel=1e-9)
    assert rows["frobenius"]["se"] == pytest.approx(norm.standard_error, rel=1e-9)


def test_the_curvature_of_a_diagonal_quadratic_is_exact(quadratic):
    objective = quadratic(torch.diag(torch.tensor([3.0, 4.0, 0.0])).double(), torch.ones(3).double())
    rows = ll.sharpness(objective, ["lambda-max", "trace", "frobenius"], probes=2).measures
    assert rows["lambda-max"]["value"] == pytest.approx(4, rel=1e-6)
    assert (rows["trace"]["value"], rows["frobenius"]["value"]) == pytest.approx((7, 5))
    assert (rows["trace"]["se"], rows["frobenius"]["se"]) == pytest.approx((0, 0), abs=1e-12)


def test_the_graphs_of_the_hessian_are_built_once(sasrec_objective, monkeypatch):
    built = []
    monkeypatch.setattr(points, "hessian", lambda o: built.append(o) or ll.hessian(o, "reverse"))
    ll.sharpness(sasrec_objective, ["lambda-max", "trace", "frobenius"], probes=2)
    assert len(built) == 1


def test_relative_flatness_of_linear_regression():
    """H_{s,s'} = 2 E xxᵀ where s = s', and 0 elsewhere: Σ ‖w_s‖² 2 E ‖x‖²."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    objective = by_unit(model, [(x, y)], lambda m, b: ((m(b[0]) - b[1]) ** 2).sum(1))
    value, error = measure(objective, "relative-flatness-last", probes=500)
    expected = float(model.weight.detach().square().sum() * 2 * x.square().sum() / 20)
    assert error < 0.05 * expected
    assert abs(value - expected) < 3 * error


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Embedding(3, 2), "embedding"),
        (nn.Linear(2, 3, bias=False), "last"),
        (nn.Conv1d(2, 3, 2, bias=False), "last"),
        (nn.ConvTranspose1d(2, 3, 2, bias=False), "last"),
    ],
)
def test_relative_flatness_of_a_quadratic_is_the_sum_over_its_blocks(layer, name):
    """Σ over pairs of filters of ⟨w_s, w_s'⟩ tr A_{s,s'}, with A dense."""
    layer = layer.double()
    shape, n = layer.weight.shape, layer.weight.numel()
    root = torch.from_numpy(np.random.default_rng(0).standard_normal((n, n)))
    matrix = root @ root.T
    objective = Objective(
        layer, [None], lambda m, _: (m.weight.flatten() @ matrix @ m.weight.flatten() / 2, 1)
    )
    axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    rows = layer.weight.detach().movedim(axis, 0).flatten(1)
    blocks = matrix.view(*shape, *shape).movedim((axis, len(shape) + axis), (0, len(shape)))
    blocks = blocks.reshape(*rows.shape, *rows.shape)
    expected = float(torch.einsum("sk,tk,sjtj->", rows, rows, blocks))
    value, error = measure(objective, f"relative-flatness-{name}", probes=500)
    assert error < 0.15 * expected
    assert abs(value - expected) < 3.5 * error


def test_relative_flatness_of_single_weights_is_exact(quadratic, symmetric):
    """Rows of one entry: δ = ± w, so that every probe is wᵀAw."""
    w = torch.linspace(-1, 1, 12).double()
    value, error = measure(quadratic(symmetric, w[:, None]), "relative-flatness-last")
    assert value == pytest.approx(float(w @ symmetric @ w), rel=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_relative_flatness_says_which_layer_and_needs_one(sasrec_objective, quadratic):
    rows = ll.sharpness(sasrec_objective, samples=2, probes=2, steps=1).measures
    assert rows["relative-flatness-embedding"]["layer"] == "item.weight"
    assert rows["relative-flatness-last"]["layer"] == "blocks.0.ffn.outer.weight"
    spare = ll.sharpness(degenerate("unused parameters"), ["relative-flatness-last"], probes=2)
    assert spare.measures["relative-flatness-last"]["layer"] == "layer.1.weight"
    vector = quadratic(torch.eye(2).double(), torch.ones(2).double())
    assert not [name for name in ll.sharpness(vector).measures if name.startswith("relative")]
    with pytest.raises(InputError, match="needs an embedding"):
        ll.sharpness(vector, ["sam", "relative-flatness-embedding"])
    with pytest.raises(InputError, match="needs a weight matrix"):
        ll.sharpness(vector, ["relative-flatness-last"])


# scale


def network(factor=1.0):
    """An embedding, a ReLU and a linear layer, whose function does not depend on `factor`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.mul_(factor)
        model[2].weight.div_(factor)
    batches = [(torch.randint(0, 5, (10,)), torch.randn(10).double()) for _ in range(2)]
    return by_unit(model, batches, squared)


@pytest.mark.parametrize("name", INVARIANT)
def test_measures_that_claim_it_do_not_change_under_rescaling(name):
    values = [measure(network(f), name, rho=0.1, samples=4)[0] for f in (1.0, 5.0)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0] != 0


@pytest.mark.parametrize("name", SCALED)
def test_measures_that_do_not_claim_it_do_change(name):
    values = [measure(network(f), name, rho=0.1, sigma=0.5)[0] for f in (1.0, 5.0)]
    assert abs(math.log(values[0] / values[1])) > 0.5


# errors


@pytest.mark.parametrize("name", MEASURES)
def test_pseudo_values_average_to_the_value_and_their_spread_is_its_error(name):
    found = ll.sharpness(network(), [name], samples=5, probes=6)
    row, variance = found.measures[name], 0.0
    for pseudo, count in zip(
        (found.by_draw[0], found.by_unit[0]), (6 if "probes" in row else 5, 20), strict=True
    ):
        if len(pseudo):
            assert len(pseudo) == count
            assert pseudo.mean() == pytest.approx(row["value"], rel=1e-12)
            variance += pseudo.var(ddof=1) / count
    assert row["se"] == (pytest.approx(variance**0.5) if variance else None)
    assert (row["se"] is None) == (name == "lambda-max")


@pytest.mark.parametrize(
    "name",
    [
        "worst",
        "keskar",
        "average",
        "lpf",
        "average-adaptive",
        "pac-bayes-sigma",
        "gradient-norm",
        "fisher-rao",
    ],
)
def test_leaving_a_unit_out_moves_the_value_as_its_pseudo_value_says(name):
    """By (value - pseudo-value) / U, to first order; that the worst δ moves too is of second order."""
    model, x, y = regression(200)
    settings = {"samples": 3, "epsilon": 0.05, "steps": 50, "rho": 0.1}
    found = ll.sharpness(by_unit(model, [(x, y)], squared), [name], **settings)
    value, pseudo = found.measures[name]["value"], found.by_unit[0]
    for unit in np.argsort(-np.abs(pseudo - value))[:3]:
        stays = torch.arange(200) != int(unit)
        without = ll.sharpness(by_unit(model, [(x[stays], y[stays])], squared), [name], **settings)
        moved = without.measures[name]["value"] - value
        assert moved == pytest.approx((value - pseudo[unit]) / 200, rel=0.1)


def test_units_of_unequal_weight_have_the_error_of_a_ratio():
    """Units that all have one mean add none, however they weigh."""
    model = nn.Linear(1, 1).double()
    weights = torch.tensor([1.0, 2.0, 7.0]).double()

    def units(m, _):
        return weights * m.weight.square().sum(), weights

    objective = Objective(model, [None], lambda m, _: (units(m, None)[0].sum(), weights.sum()), units=units)
    value, error = measure(objective, "sam")
    assert value > 0
    assert error == pytest.approx(0, abs=1e-12)


def test_batches_are_the_units_of_an_objective_without_others(sasrec_objective):
    found = ll.sharpness(sasrec_objective, ["sam", "average"], samples=4)
    assert [len(pseudo) for pseudo in found.by_unit] == [3, 3]
    assert [len(pseudo) for pseudo in found.by_draw] == [0, 4]


def test_equal_seeds_are_equal_draws(sasrec_objective):
    a, b = (measure(sasrec_objective, "average", samples=3, seed=s)[0] for s in (1, 1))
    assert a == b
    assert a != measure(sasrec_objective, "average", samples=3, seed=2)[0]


# rows


def test_a_row_names_every_setting_it_depends_on():
    result = ll.sharpness(network(), steps=3, samples=2, probes=2)
    assert set(result.measures) == set(MEASURES)
    assert result.measures["worst"].keys() == {"value", "se", "rho", "steps", "seed"}
    for name, row in result.measures.items():
        assert row.keys() >= {"value", "se", *MEASURES[name].uses}
    assert result.loss == network().value()
    assert result.weight_norm == pytest.approx(float(network().theta.norm()))


def test_a_result_reads_back_with_its_pseudo_values(tmp_path):
    result = ll.sharpness(network(), steps=2, samples=2, probes=2)
    again = ll.load(result.save(tmp_path / "s.npz"))
    assert again.measures == result.measures
    for before, after in ((result.by_draw, again.by_draw), (result.by_unit, again.by_unit)):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_traces_of_groups_add_up():
    objective = network()
    groups = sharpness_by_group(objective, ["trace", "sam"], probes=400, seed=1)
    assert set(groups) == {"embedding", "other"}
    assert groups["other"].measures["sam"]["value"] == measure(objective.of_group("other"), "sam", rho=0.1)[0]
    whole = ll.trace(objective, probes=400)
    parts = [found.measures["trace"] for found in groups.values()]
    error = sum(row["se"] ** 2 for row in parts) + whole.standard_error**2
    assert abs(sum(row["value"] for row in parts) - whole.value) < 3 * error**0.5


def test_a_measure_that_a_group_cannot_have_is_left_out_of_it():
    groups = sharpness_by_group(network(), ["relative-flatness-embedding", "sam"], probes=2)
    assert set(groups["embedding"].measures) == {"relative-flatness-embedding", "sam"}
    assert set(groups["other"].measures) == {"sam"}
    with pytest.raises(InputError, match="no sharpness measure 'blunt'"):
        sharpness_by_group(network(), ["blunt"])


class WithSpare(nn.Module):
    """A layer beside parameters that the loss does not know."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


def nothing(model, batch):
    return 0 * squared(model, batch)


def output(model, batch):
    return model(batch[0]).squeeze(-1)


def degenerate(case):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 1))
    x, y = torch.tensor([0, 1, 1]), torch.ones(3)
    each = squared
    if case == "constant loss":
        each = nothing
    elif case == "zero weights":
        model = model.apply(lambda m: [nn.init.zeros_(p) for p in m.parameters(recurse=False)])
    elif case == "zero gradient":
        y = model(x).squeeze(-1).detach()
    elif case == "unused parameters":
        model = WithSpare(model)
    elif case == "one parameter":
        model = nn.Embedding(1, 1)
        x = torch.zeros_like(x)
    elif case == "linear loss":
        each = output
    return by_unit(model, [(x, y)], each)


CASES = [
    "constant loss",
    "zero weights",
    "zero gradient",
    "unused parameters",
    "one parameter",
    "linear loss",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MEASURES)
def test_a_degenerate_case_has_a_number(name, case):
    found = ll.sharpness(degenerate(case), [name], samples=2, probes=2, steps=3)
    row = found.measures[name]
    assert math.isfinite(row["value"])
    assert row["se"] is None or math.isfinite(row["se"])
    assert all(np.isfinite(pseudo).all() for pseudo in (*found.by_draw, *found.by_unit))
    if case == "constant loss":
        assert row["value"] == 0
        assert not row["se"]
    if case == "zero weights" and MEASURES[name].invariant:
        assert row["value"] == 0
    if case == "zero gradient" and name in ("sam", "m-sharpness", "asam", "gradient-norm", "fisher-rao"):
        assert row["value"] == 0
    if case == "zero gradient" and name in ("worst", "keskar", "worst-adaptive"):
        assert row["value"] > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"measures": ["blunt"]}, "no sharpness measure 'blunt'"),
        ({"rho": 0}, "positive"),
        ({"rise": math.inf}, "positive"),
        ({"epsilon": math.nan}, "positive"),
        ({"samples": 1}, "samples"),
        ({"probes": 1}, "probes"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_settings_are_refused(sasrec_objective, kwargs, message):
    with pytest.raises(InputError, match=message):
        ll.sharpness(sasrec_objective, **kwargs)

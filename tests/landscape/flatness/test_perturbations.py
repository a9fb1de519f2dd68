"""Measures of a perturbed loss, the worst and the average one: their closed forms, and where they end."""

import math

import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from tests.flatness import RHO, SIGMA, by_unit, measure, squared

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


@pytest.mark.parametrize("name", ["worst", "worst-adaptive"])
def test_an_ascent_of_one_step_looks_at_two_points(quadratic, positive, name):
    """At u₀ = ρ Cg / ‖Cg‖, and at the point of the ball nearest to u₀ and as far again along its gradient."""
    at = torch.linspace(-1, 1, 12).double()
    scale, g = at.abs() if name == "worst-adaptive" else torch.ones_like(at), positive @ at

    def rise(u):
        return float(g @ (scale * u) + (scale * u) @ positive @ (scale * u) / 2)

    def furthest(gradient):
        return RHO * scale * gradient / (scale * gradient).norm()

    first = furthest(g)
    beyond = first + furthest(g + positive @ (scale * first))
    second = RHO * beyond / beyond.norm()
    assert rise(second) > rise(first) * (1 + 1e-6)
    assert measure(quadratic(positive, at), name, steps=1)[0] == pytest.approx(rise(second), rel=1e-12)


@pytest.mark.parametrize(("worst", "stepped"), [("worst", "sam"), ("worst-adaptive", "asam")])
def test_the_worst_of_a_linear_loss_is_one_step(quadratic, worst, stepped):
    flat, slope = torch.zeros(12, 12).double(), torch.linspace(-2, 3, 12).double()
    objective = quadratic(flat, torch.linspace(-1, 2, 12).double(), slope)
    expected = measure(objective, stepped)[0]
    assert measure(objective, worst, steps=1)[0] == pytest.approx(expected, rel=1e-12)


def test_an_ascent_stays_at_a_point_that_has_a_loss_and_no_gradient():
    """L = 80 w + √(e - w) up to w = e, where torch.where hides from the value that its slope is no number."""
    far = 2.0**-10
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)

    def loss(model, _):
        w = model.weight.sum()
        return 80 * w + torch.where(w < far, (far - w).sqrt(), 0.0), 1

    objective = Objective(model, [None], loss, check=False)
    rise = 80 * far - far**0.5
    assert measure(objective, "worst", rho=far)[0] == rise
    assert measure(objective, "keskar", epsilon=far)[0] == pytest.approx(100 * rise / (1 + far**0.5))


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
    lower, at_it = (
        Objective(nn.Linear(1, 1).double(), [None], lambda m, _, c=c: (0 * m.bias.sum() ** 2 - c, 1))
        for c in (9, 1)
    )
    with pytest.raises(InputError, match="L is -1;"):
        ll.sharpness(at_it, ["keskar"])
    quick = {"samples": 2, "probes": 2, "steps": 1}
    assert "keskar" in ll.sharpness(objective, **quick).measures
    assert "keskar" not in ll.sharpness(lower, **quick).measures
    with pytest.raises(InputError, match=r"1 \+ L"):
        ll.sharpness(lower, ["keskar"])


class Logarithm(nn.Module):
    """-Σ ln w, which is no number where a w is negative."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w).double())

    def forward(self, x):
        return -self.w.log().sum() * x


@pytest.mark.parametrize(("name", "worse"), [("worst", 0.02), ("worst-adaptive", 0.6), ("keskar", 5e-4)])
def test_there_is_no_worst_where_the_loss_is_no_number(name, worse):
    """The ball reaches beyond 0 for the first w, and not for the second."""

    def rise(w, rho):
        of = by_unit(Logarithm(w), [torch.ones(3).double()], lambda model, x: model(x))
        return ll.sharpness(of, [name], rho=rho, steps=4).measures[name].value

    rho = 1.5 if name == "worst-adaptive" else 0.05
    assert math.isnan(rise([worse, 0.4] if name != "keskar" else [worse, 0.5], rho))
    assert rise([0.5, 0.4], rho / 5) > 0


def test_a_zero_gradient_is_no_division(quadratic, positive):
    objective = quadratic(positive, torch.zeros(12).double())
    for name in ("sam", "asam", "m-sharpness"):
        assert measure(objective, name)[0] == 0


@pytest.mark.parametrize("size", [1e-300, 1e-42, 1.0, 1e80])
def test_measures_of_the_worst_case_scale_with_the_loss(symmetric, size):
    """Squares of a gradient of 1e-200 are 0, and ρ over one of 1e-40 is no number of float32."""
    at = torch.linspace(0.1, 1, 12).double()
    for dtype in (torch.float64, *([torch.float32] if 1e-45 < size < 1e30 else [])):
        model = nn.Linear(12, 1, bias=False).to(dtype)
        model.weight.data = at.to(dtype)[None]
        matrix = (symmetric @ symmetric).to(dtype)

        def loss(model, factor, matrix=matrix):
            return factor * (model.weight @ matrix @ model.weight.T).squeeze() / 2, 1

        def rises(c, model=model, loss=loss):
            objective = Objective(model, [c], loss, check=False)
            return [measure(objective, name)[0] / c for name in ("sam", "asam", "worst")]

        found, expected = rises(size), rises(1.0)
        assert found == pytest.approx(expected, rel=1e-9 if dtype == torch.float64 else 1e-2)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_no_number_is_no_rise_of_zero():
    """As of a square root at 0, which torch.where leaves out of the value alone."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[0.0, 1.0]])

    def loss(model, _):
        w = model.weight[0]
        return w.square().sum() + torch.where(w > 0, w.sqrt(), w).sum(), 1

    objective = Objective(model, [None], loss, check=False)
    for name in ("sam", "asam", "m-sharpness", "worst"):
        assert math.isnan(measure(objective, name)[0])


def test_m_sharpness_is_the_mean_of_what_each_batch_rises_alone():
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    batches = [(torch.randn(n, 3).double(), torch.randn(n).double()) for n in (4, 8)]
    alone = [measure(by_unit(model, [batch], squared), "sam")[0] for batch in batches]
    row = ll.sharpness(by_unit(model, batches, squared), ["m-sharpness"], rho=RHO).measures["m-sharpness"]
    assert row.value == pytest.approx((4 * alone[0] + 8 * alone[1]) / 12, rel=1e-12)
    assert row.settings["m"] == 8
    one = by_unit(model, batches[:1], squared)
    assert measure(one, "m-sharpness")[0] == pytest.approx(measure(one, "sam")[0], rel=1e-12)


def test_one_unit_with_a_weight_has_no_error():
    """The batch whose targets are all ignored adds nothing, and says nothing of the spread."""
    model = nn.Linear(1, 1).double()
    objective = Objective(model, [0.0, 3.0], lambda m, w: (w * m.weight.square().sum(), w))
    for name in ("sam", "m-sharpness", "worst"):
        value, error = measure(objective, name)
        assert value > 0
        assert error is None


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
    assert rows["lpf"].value == pytest.approx(found.loss + rows["average"].value, rel=1e-14)


def test_measures_of_one_noise_share_their_evaluations():
    """The σ at which both PAC-Bayes searches begin is the average's by default."""
    calls = []
    model, batch = nn.Linear(2, 1), (torch.ones(3, 2), torch.zeros(3))

    def each(model, batch):
        calls.append(1)
        return squared(model, batch)

    objective = by_unit(model, [batch], each)
    objective.per_example()  # the first time, it is compared with the loss

    def spent(*names):
        calls.clear()
        ll.sharpness(objective, names, samples=4)
        return len(calls)

    assert spent("average", "lpf") == spent("average")
    assert spent("average", "pac-bayes-sigma") == spent("pac-bayes-sigma")


RISES = ("sam", "m-sharpness", "worst", "keskar", "asam", "worst-adaptive", "average", "average-adaptive")


def lifted(offset, dtype, returned=None, at=1.0):
    """Two batches whose losses are a square and an offset, of a dtype of their own."""

    def loss(model, x):
        return (offset + model(x).square().sum()).to(returned or dtype), 1

    model = nn.Linear(3, 1, bias=False).to(dtype)
    nn.init.constant_(model.weight, at)
    return Objective(model, list(torch.eye(3, dtype=dtype)[:2]), loss, check=False)


@pytest.mark.parametrize(
    ("offset", "dtype", "returned", "resolved"),
    [
        (1.0, torch.float32, None, True),
        (1e7, torch.float32, None, False),
        (1e7, torch.float64, None, True),
        (1e7, torch.float64, torch.float32, False),
        (1.0, torch.float64, torch.bfloat16, False),
    ],
)
def test_a_rise_says_whether_the_loss_resolves_it(offset, dtype, returned, resolved):
    objective = lifted(offset, dtype, returned)
    found = ll.sharpness(objective, RISES, rho=1e-2, sigma=1e-2, steps=1, samples=2)
    assert {name: row.settings["resolved"] for name, row in found.measures.items()} == dict.fromkeys(
        RISES, resolved
    )


def test_a_rise_without_a_step_is_0_and_not_rounded():
    rises = ("sam", "m-sharpness", "asam")
    found = ll.sharpness(lifted(1e7, torch.float32, at=0.0), rises).measures
    assert [(found[name].value, found[name].settings["resolved"]) for name in rises] == 3 * [(0.0, True)]

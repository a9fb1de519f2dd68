import math

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness.measures import MEASURES

RHO, SIGMA = 0.3, 0.05


@pytest.fixture
def positive(symmetric):
    return symmetric @ symmetric / 12


def measure(objective, name, **settings):
    row = ll.sharpness(objective, [name], **{"rho": RHO, "sigma": SIGMA, **settings}).measures[name]
    return row["value"], row["se"]


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


def test_the_worst_case_is_at_least_one_step(quadratic, symmetric, sasrec_objective):
    at = torch.linspace(-1, 1, 12).double()
    for objective in (quadratic(symmetric, at), sasrec_objective):
        assert measure(objective, "worst")[0] >= measure(objective, "sam")[0]


def test_the_worst_case_solves_the_trust_region_problem(quadratic, positive):
    """Off a minimum: δ = (μ - A)⁻¹ g with μ > λmax and ‖δ‖ = ρ."""
    at = torch.linspace(-1, 1, 12).double()
    g = positive @ at
    values, vectors = torch.linalg.eigh(positive)
    low, high = float(values[-1]) + 1e-12, float(values[-1]) + float(g.norm()) / RHO + 1
    for _ in range(200):
        mu = (low + high) / 2
        delta = vectors @ ((vectors.T @ g) / (mu - values))
        low, high = (mu, high) if delta.norm() > RHO else (low, mu)
    expected = g @ delta + delta @ positive @ delta / 2
    assert measure(quadratic(positive, at), "worst", steps=100)[0] == pytest.approx(float(expected), rel=1e-8)


def test_the_average_of_a_quadratic_is_half_the_trace(quadratic, symmetric):
    """E over z of L(θ + σz) - L(θ) = σ² tr A / 2: antithetic pairs take the gradient out exactly."""
    objective = quadratic(symmetric, 100 * torch.ones(12).double())
    value, error = measure(objective, "average", samples=4000)
    assert abs(value - SIGMA**2 * float(symmetric.trace()) / 2) < 3 * error
    variance = SIGMA**4 * float((symmetric**2).sum()) / 2
    assert error == pytest.approx((variance / 4000) ** 0.5, rel=0.1)


def test_the_adaptive_average_scales_by_the_weights(quadratic, symmetric):
    at = torch.linspace(0, 2, 12).double()
    value, error = measure(quadratic(symmetric, at), "average-adaptive", samples=4000)
    assert abs(value - SIGMA**2 * float((at**2 * symmetric.diag()).sum()) / 2) < 3 * error


def test_the_gradient_norm(quadratic, symmetric):
    at = torch.ones(12).double()
    assert measure(quadratic(symmetric, at), "gradient-norm")[0] == pytest.approx(
        float((symmetric @ at).norm())
    )


def test_a_zero_gradient_is_no_division(quadratic, positive):
    objective = quadratic(positive, torch.zeros(12).double())
    assert measure(objective, "sam")[0] == 0
    assert measure(objective, "asam")[0] == 0


def rescaled(factor):
    """A two-layer ReLU network whose function does not depend on `factor`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    with torch.no_grad():
        model[0].weight.mul_(factor)
        model[2].weight.div_(factor)
    return Objective(model, [(x, y)], lambda m, b: (((m(b[0]) - b[1]) ** 2).sum(), len(b[1])))


@pytest.mark.parametrize("name", ["asam", "average-adaptive"])
def test_measures_that_claim_it_do_not_change_under_rescaling(name):
    values = [measure(rescaled(f), name, rho=0.1)[0] for f in (1.0, 5.0)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


@pytest.mark.parametrize("name", ["sam", "average"])
def test_measures_that_do_not_claim_it_do_change(name):
    values = [measure(rescaled(f), name, rho=0.1)[0] for f in (1.0, 5.0)]
    assert abs(math.log(values[0] / values[1])) > 0.5


def test_equal_seeds_are_equal_draws(sasrec_objective):
    a, b = (measure(sasrec_objective, "average", samples=3, seed=s)[0] for s in (1, 1))
    assert a == b
    assert a != measure(sasrec_objective, "average", samples=3, seed=2)[0]


def test_a_row_names_every_setting_it_depends_on(sasrec_objective):
    result = ll.sharpness(sasrec_objective, steps=3, samples=2)
    assert set(result.measures) == set(MEASURES)
    assert result.measures["worst"].keys() == {"value", "se", "rho", "steps", "seed"}
    assert result.loss == sasrec_objective.value()
    assert result.weight_norm == pytest.approx(float(sasrec_objective.theta.norm()))
    assert np.isfinite([row["value"] for row in result.measures.values()]).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"measures": ["blunt"]}, "no sharpness measure 'blunt'"),
        ({"rho": 0}, "positive"),
        ({"samples": 1}, "samples"),
    ],
)
def test_bad_settings_are_refused(sasrec_objective, kwargs, message):
    with pytest.raises(InputError, match=message):
        ll.sharpness(sasrec_objective, **kwargs)

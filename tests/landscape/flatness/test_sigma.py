"""The σ of PAC-Bayes: how much noise makes the loss rise by so much."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness.noise import LARGEST, sigma_reaching
from tests.flatness import by_unit, draws, measure


@pytest.mark.parametrize("name", ["pac-bayes-sigma", "pac-bayes-sigma-adaptive"])
def test_the_pac_bayes_sigma_of_a_quadratic(quadratic, positive, name):
    """The rise is σ² zᵀAz / 2 of each draw, so 1/σ² is the mean of zᵀAz / (2 rise), exactly."""
    at = torch.linspace(0.5, 1.5, 12).double()
    scale = at if name.endswith("adaptive") else torch.ones_like(at)
    z = draws(3, 5, 12) * scale
    each = ((z @ positive) * z).sum(1) / (2 * 0.7)
    found = ll.sharpness(quadratic(positive, at), [name], samples=5, rise=0.7, seed=3)
    row = found.measures[name]
    assert row.value == pytest.approx(float(each.mean()), rel=1e-10)
    assert row.settings["sigma"] == pytest.approx(float(each.mean()) ** -0.5, rel=1e-10)
    np.testing.assert_allclose(found.by_draw[0], each, rtol=1e-8)


@pytest.mark.parametrize("name", ["pac-bayes-sigma", "pac-bayes-sigma-adaptive"])
def test_a_rise_that_the_loss_rounds_off_has_no_sigma(quadratic, positive, name):
    objective = quadratic(positive.float(), torch.linspace(0.5, 1.5, 12))
    loss = objective.value()
    ll.sharpness(objective, [name], rise=1e-5 * loss)
    with pytest.raises(InputError, match="less than float32 resolves of a loss of"):
        ll.sharpness(objective, [name], rise=1e-8 * loss)


def test_large_losses_that_cancel_round_off_as_much_as_others():
    def each(model, _):
        square = model.weight.square().sum()
        return torch.stack([square + 1e6, square - 1e6])

    objective = by_unit(nn.Linear(2, 1), [None], each)
    assert abs(objective.value()) < 2
    with pytest.raises(InputError, match=r"give a rise of more than 0\.48"):
        ll.sharpness(objective, ["pac-bayes-sigma"], rise=0.1)


def test_at_the_pac_bayes_sigma_the_average_rise_is_the_one_asked_for(sasrec_objective):
    found = ll.sharpness(sasrec_objective, ["pac-bayes-sigma"], samples=3, rise=0.3)
    sigma = found.measures["pac-bayes-sigma"].settings["sigma"]
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
    assert (row.value, row.standard_error, row.settings["sigma"]) == (0, None, math.inf)


def test_a_loss_that_falls_off_a_cliff_has_a_sigma_at_its_edge():
    def cliff(model, _):
        near = model.weight.abs().max() < 1
        return torch.where(near, model.weight.square(), math.inf).sum(), 1

    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    found = ll.sharpness(Objective(layer, [None], cliff), ["pac-bayes-sigma"], samples=4, rise=50)
    row = found.measures["pac-bayes-sigma"]
    furthest = float(draws(0, 4, 6)[:, :4].abs().max())
    assert row.settings["sigma"] == pytest.approx(1 / furthest, rel=2e-3)
    assert np.isfinite(found.by_draw[0]).all()

"""Errors of measures over draws and units, and what a unit counts."""

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Objective
from landscape.flatness.measures import MEASURES
from tests.flatness import by_unit, measure, regression, squared
from tests.landscape.flatness.test_flatness import network


@pytest.mark.parametrize("name", MEASURES)
def test_pseudo_values_average_to_the_value_and_their_spread_is_its_error(name):
    found = ll.sharpness(network(), [name], samples=5, probes=6)
    row, variance = found.measures[name], 0.0
    for pseudo, count in zip(
        (found.by_draw[0], found.by_unit[0]), (6 if "probes" in row.settings else 5, 20), strict=True
    ):
        if len(pseudo):
            assert len(pseudo) == count
            assert pseudo.mean() == pytest.approx(row.value, rel=1e-12)
            variance += pseudo.var(ddof=1) / count
    assert row.standard_error == (pytest.approx(variance**0.5) if variance else None)
    assert (row.standard_error is None) == (name == "lambda-max")


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
    value, pseudo = found.measures[name].value, found.by_unit[0]
    for unit in np.argsort(-np.abs(pseudo - value))[:3]:
        stays = torch.arange(200) != int(unit)
        without = ll.sharpness(by_unit(model, [(x[stays], y[stays])], squared), [name], **settings)
        moved = without.measures[name].value - value
        assert moved == pytest.approx((value - pseudo[unit]) / 200, rel=0.1)


def test_the_pseudo_values_of_the_loss_are_the_losses_of_units_of_equal_weight():
    model, x, y = regression(20)
    found = ll.sharpness(by_unit(model, [(x, y)], squared), ["sam"])
    losses = squared(model, (x, y)).detach().numpy()
    np.testing.assert_allclose(found.loss_by_unit, losses, rtol=1e-12)
    assert found.loss == pytest.approx(found.loss_by_unit.mean(), rel=1e-12)


def test_units_of_unequal_weight_have_the_error_of_a_ratio():
    """Units that all have one mean add none, however they weigh."""
    model = nn.Linear(1, 1).double()
    weights = torch.tensor([1.0, 2.0, 7.0]).double()

    def units(m, _):
        return weights * m.weight.square().sum(), weights

    objective = Objective(
        model, [None], lambda m, _: (units(m, None)[0].sum(), weights.sum()), per_example=units
    )
    value, error = measure(objective, "sam")
    assert value > 0
    assert error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in MEASURES if name not in ("fisher-rao", "relative-flatness-embedding")]
)
def test_a_unit_of_weight_three_counts_as_three_units(name):
    model, x, y = regression(8)
    counts = torch.tensor([1, 3, 1, 1, 2, 1, 4, 1])
    parts = slice(0, 3), slice(3, 8)

    def units(model, batch):
        *pair, weights = batch
        return weights * squared(model, pair), weights

    def loss(model, batch):
        sums, weights = units(model, batch)
        return sums.sum(), weights.sum()

    weighed = Objective(model, [(x[p], y[p], counts[p].double()) for p in parts], loss, per_example=units)
    repeated = [tuple(t[p].repeat_interleave(counts[p], 0) for t in (x, y)) for p in parts]
    one, other = (measure(of, name, steps=4)[0] for of in (weighed, by_unit(model, repeated, squared)))
    assert one == pytest.approx(other, rel=1e-7)


def test_batches_are_the_units_of_an_objective_without_others(sasrec_objective):
    found = ll.sharpness(sasrec_objective, ["sam", "average"], samples=4)
    assert [len(pseudo) for pseudo in found.by_unit] == [3, 3]
    assert [len(pseudo) for pseudo in found.by_draw] == [0, 4]


def test_equal_seeds_are_equal_draws(sasrec_objective):
    a, b = (measure(sasrec_objective, "average", samples=3, seed=s)[0] for s in (1, 1))
    assert a == b
    assert a != measure(sasrec_objective, "average", samples=3, seed=2)[0]

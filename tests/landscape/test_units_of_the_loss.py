"""A loss in other units has the same landscape in those units: a power of two changes no digit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import landscape as ll

UNITS = [2.0**-40, 2.0**40]
OWN = {"keskar", "pac-bayes-sigma", "pac-bayes-sigma-adaptive"}  # a loss plus 1; a given rise of the loss


def network(unit, seed=0):
    torch.manual_seed(seed + 1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    torch.manual_seed(0)
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(3, (40,))

    def criterion(outputs, classes):
        return unit * F.cross_entropy(outputs, classes)

    return ll.supervised(model, list(zip(x.split(20), y.split(20), strict=True)), criterion)


@pytest.mark.parametrize("unit", UNITS)
def test_surfaces(unit):
    for draw in (ll.plane, ll.line):
        plain, found = (draw(network(u), tol=1e-2) for u in (1.0, unit))
        assert found.evaluations == plain.evaluations
        np.testing.assert_array_equal(found.losses, unit * plain.losses)
        assert found.certificate.max_error == plain.certificate.max_error  # of the range
        assert found.certificate.error == unit * plain.certificate.error
        assert found.certificate.standard_error == unit * plain.certificate.standard_error


@pytest.mark.parametrize("unit", UNITS)
def test_a_barrier(unit):
    plain, found = (ll.barrier(network(u), network(u, seed=1), tol=1e-2) for u in (1.0, unit))
    np.testing.assert_array_equal(found.losses, unit * plain.losses)
    assert (found.height, found.standard_error) == (unit * plain.height, unit * plain.standard_error)


@pytest.mark.parametrize("unit", UNITS)
def test_sharpness(unit):
    plain = ll.sharpness(network(1.0), samples=4)
    names = [name for name in plain.measures if name not in OWN]
    found = ll.sharpness(network(unit), names, samples=4)
    for name in names:
        one, other = plain.measures[name], found.measures[name]
        own = unit**2 if name == "fisher-rao" else unit  # it is of squares of the loss
        assert other.value == own * one.value
        assert other.standard_error == (one.standard_error and own * one.standard_error)

"""A loss in other units has the same curvature in those units: twice the loss, twice each eigenvalue.

A power of two changes no digit, so that each decision of a solver must fall as it fell: how many products are
taken, what counts as rounding, when a space has closed, and where a copy is looked for.
"""

import math

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.curvature.lanczos import lanczos
from landscape.curvature.power import power_iteration
from landscape.curvature.tracking import Tracker
from tests.worlds import with_spectrum

UNITS = [2.0**-40, 2.0**30]

SPECTRA = {
    "separate": np.geomspace(8, 0.01, 40) * np.resize([1, -0.7, 0.4], 40),
    "three copies": np.concatenate([[8.0, 8.0, 8.0, -3.0, -3.0], np.linspace(5, -1, 35)]),
    "four values": np.resize([8.0, 3.0, -1.0, -4.0], 40),
    "rank three": np.concatenate([[8.0, 2.0, -4.0], np.zeros(37)]),
    "both signs": np.concatenate([[8.0, -7.999], np.linspace(4, -4, 38)]),
    "tiny beside large": np.concatenate([[8.0], np.geomspace(1e-3, 1e-8, 39)]),
}


class Matrix:
    """A symmetric matrix in float32, in units of one's own."""

    def __init__(self, spectrum, unit):
        self.entries = with_spectrum(spectrum, torch.float32) * unit
        self.shape, self.device, self.dtype = self.entries.shape, self.entries.device, self.entries.dtype

    def __call__(self, vector):
        return self.entries @ vector


LIKE = torch.zeros(40)
SOLVERS = {
    "lanczos": lambda a: lanczos(a, LIKE, 4, 2, 1e-4, 120, 0),
    "from a vector": lambda a: lanczos(a, LIKE, 4, 2, 1e-4, 120, 0, start=iter([torch.linspace(-1, 1, 40)])),
    "blocks": lambda a: lanczos(Many(a), LIKE, 4, 2, 1e-4, 120, 0, block=2),
    "restarts": lambda a: lanczos(a, LIKE, 2, 1, 1e-4, 120, 0, capacity=10),
    "power": lambda a: power_iteration(a, LIKE, 4, 1, 1e-3, 150, 0),
}


class Many:
    """Products with several vectors at once."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, vector):
        return self.matrix(vector)

    def many(self, vectors):
        return torch.stack([self.matrix(v) for v in vectors])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_eigenpairs_in_other_units(solver, spectrum):
    plain = SOLVERS[solver](Matrix(SPECTRA[spectrum], 1.0))
    for unit in UNITS:
        found = SOLVERS[solver](Matrix(SPECTRA[spectrum], unit))
        assert (found.products, found.copies, found.k) == (plain.products, plain.copies, plain.k)
        np.testing.assert_array_equal(found.values, unit * plain.values)
        np.testing.assert_array_equal(found.residuals, plain.residuals)
        np.testing.assert_array_equal(found.vectors, plain.vectors)
        assert found.norm == unit * plain.norm


@pytest.mark.parametrize("turn", [1e-4, 0.3])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_followed_eigenpairs_in_other_units(spectrum, turn):
    """Over four matrices, each turned a little or far from the last."""

    def followed(unit):
        tracker, found = Tracker(3, max_products=80), []
        for step in range(4):
            matrix = Matrix(SPECTRA[spectrum], unit)
            matrix.entries = matrix.entries + step * turn * matrix.entries.flip(0).flip(1)
            found.append(tracker.solve(matrix, matrix.entries[0]))
        return found

    plain = followed(1.0)
    for unit in UNITS:
        for found, one in zip(followed(unit), plain, strict=True):
            assert found.products == one.products
            np.testing.assert_array_equal(found.values, unit * one.values)
            np.testing.assert_array_equal(found.residuals, one.residuals)
            np.testing.assert_array_equal(found.vectors, one.vectors)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_what_is_estimated_in_other_units(spectrum, unit):
    plain, scaled = (Matrix(SPECTRA[spectrum], u) for u in (1.0, unit))
    for measure in (lambda a: ll.trace(a, probes=6), lambda a: ll.trace(a, probes=12, method="xtrace")):
        one, found = measure(plain), measure(scaled)
        assert found.value == unit * one.value
        assert found.standard_error == unit * one.standard_error
    one, found = (ll.spectral_density(a, probes=3, steps=20) for a in (plain, scaled))
    np.testing.assert_array_equal(np.concatenate(found.nodes), unit * np.concatenate(one.nodes))
    np.testing.assert_array_equal(np.concatenate(found.weights), np.concatenate(one.weights))
    found, one = ll.frobenius_norm(scaled, probes=6), ll.frobenius_norm(plain, probes=6)
    assert math.isclose(found.value, unit * one.value, rel_tol=1e-12)

"""What is printed is true: a bound that is rounded still bounds, and what has not converged says so."""

import math
import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

import landscape as ll
from landscape.flatness.comparison import Contrast
from landscape.flatness.measures import Measurement
from landscape.flatness.notation import LATEX, PLAIN
from landscape.flatness.words import cautions, summary
from landscape.runtime.rounding import UNSURE, at_least, at_most, between
from landscape.surface.slice import Certificate
from landscape.surface.surfaces import facts
from tests.results import hessian, line, sharpness, trace

VALUES = np.random.default_rng(0)
MANY = [0.0, 0.00146, 0.1, 1 / 3, 0.9999999, 1e-320, 1e300, *10 ** VALUES.uniform(-9, 9, 2000)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_a_rounded_bound_bounds(digits, sign):
    for value in (sign * float(v) for v in MANY):
        above, below = Decimal(at_most(value, digits)), Decimal(at_least(value, digits))
        assert below <= Decimal(value) <= above
        assert above - below <= Decimal(abs(value)) * Decimal(10) ** (1 - digits) * Decimal("1.0001")
    assert at_most(math.inf) == "inf"


def test_a_rounded_interval_holds_what_it_held():
    for middle, half in zip(VALUES.normal(0, 10, 500), 10 ** VALUES.uniform(-6, 3, 500), strict=True):
        low, high = middle - half, middle + half
        for decimals in (0, 2, 5):
            written = [Decimal(end) for end in between(low, high, decimals)]
            assert written[0] <= Decimal(low)
            assert Decimal(high) <= written[1]
            assert not any(f"{end}" == "-0" for end in written)


@pytest.mark.parametrize("notation", [PLAIN, LATEX])
def test_a_ratio_that_differs_from_1_is_not_written_as_one_beyond_its_interval(notation):
    for low, width in zip(VALUES.uniform(0.5, 1.5, 300), 10 ** VALUES.uniform(-4, 0, 300), strict=True):
        contrast = Contrast(0.0, 0.1, low + width / 2, low, low + width)
        ends = re.findall(r"[-\d.]+", notation.contrast(contrast).partition("[")[2])
        assert float(ends[0]) <= low
        assert low + width <= float(ends[1])


def test_a_surface_states_no_smaller_error_and_no_larger_share_than_is_known():
    surface = line()
    for error, share in zip(10 ** VALUES.uniform(-7, 0, 300), VALUES.uniform(0, 1, 300), strict=True):
        known = Certificate(True, 1e-3, error, error, 50, 1, share, 0.0, None, None, None, 1)
        said = replace(surface, certificate=known).statement
        shown, percent = re.search(r"≤ (\S+) of the loss range on at least (\d+)%", said).groups()
        assert error <= float(shown) <= 1.11 * error
        assert 1 - share - 0.01 < int(percent) / 100 <= 1 - share


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_the_median_is_the_median(count, monkeypatch):
    widths = VALUES.uniform(0, 1, count)
    monkeypatch.setattr("landscape.surface.surfaces.doubling_widths", lambda _: widths)
    assert facts(line())["doubling_width"]["median"] == pytest.approx(np.median(widths))


def test_an_eigenvalue_that_has_not_converged_says_so_wherever_it_stands():
    found = hessian(-9.0)  # of the two largest, the second one has not converged
    assert found.written() == (["3", f"2{UNSURE}"], ["-9"])
    assert repr(found).count(", not converged") == 1
    doubtful = replace(found, converged=[False, False], smallest_residuals=np.array([0.5]), gradient_norm=0.0)
    comparison = ll.compare({"a": sharpness(), "b": sharpness()})
    for first, marks in ((found, 1), (doubtful, 2)):
        spectra, traces = {"a": first, "b": doubtful}, {"a": trace(7.0), "b": trace(7.0)}
        (sentence,) = [s for s in summary(spectra, traces, comparison) if "b against a" in s]
        assert sentence.count(UNSURE) == marks
    assert f"λmin = -9{UNSURE}" in next(cautions("a", doubtful))
    assert UNSURE not in next(cautions("a", found))


def test_a_measure_that_has_not_converged_is_marked_in_its_table():
    found = sharpness(measures=("sam", "lambda-max"))
    doubtful = {**found.measures, "lambda-max": Measurement(2.0, None, {"converged": False})}
    comparison = ll.compare({"a": replace(found, measures=doubtful)})
    rows = {row[0]: row[1] for row in PLAIN.table(comparison)[1]}
    assert [name for name, cell in rows.items() if UNSURE in cell] == ["lambda-max"]

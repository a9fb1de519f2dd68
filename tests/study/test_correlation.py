"""Rank correlation within strata."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau

from figures.correlation import granulated


def simpson(rng, strata=3, size=7):
    """Draw x and y that rise together within a stratum; from one to the next x rises and y falls, by more."""
    group = np.repeat(np.arange(strata), size)
    rises = np.tile(np.arange(size), strata)
    return rises + 20.0 * group + rng.normal(0, 0.3, len(group)), rises - 20.0 * group, group.tolist()


def test_what_rises_within_strata_is_seen_where_pooling_sees_the_contrary():
    x, y, strata = simpson(np.random.default_rng(0))
    assert kendalltau(x, y).statistic < -0.3
    found = granulated(x, y, strata)
    assert found.tau > 0.8
    assert found.p == pytest.approx(1 / 10_001, rel=1e-6)  # no permutation comes near, and p is never 0
    assert all(tau > 0.8 for tau in found.by_stratum.values())
    assert found.pairs == 3 * 7 * 6 / 2


def test_one_stratum_is_kendalls_tau():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 12))
    found = granulated(x, y, ["one"] * 12)
    assert found.tau == pytest.approx(kendalltau(x, y).statistic)
    assert found.p == pytest.approx(kendalltau(x, y, method="exact").pvalue, abs=0.02)


def test_p_is_the_share_of_all_permutations():
    x, y, strata = np.array([1, 2, 3, 4, 1, 2.0]), np.array([1, 3, 2, 4, 2, 1.0]), list("aaaabb")

    def total(order, swapped):
        of = np.concatenate([y[:4][list(order)], y[4:][list(swapped)]])
        pairs = [(i, j) for i in range(6) for j in range(i) if strata[i] == strata[j]]
        return sum(np.sign(x[i] - x[j]) * np.sign(of[i] - of[j]) for i, j in pairs)

    every = [total(a, b) for a in permutations(range(4)) for b in permutations(range(2))]
    share = np.mean(np.abs(every) >= abs(total(range(4), range(2))))
    assert granulated(x, y, strata).p == pytest.approx(share, abs=0.02)


def test_strata_that_alone_differ_give_p_that_is_uniform():
    """Sharper and worse by stratum, and unrelated within: pooling would see a correlation."""
    rng = np.random.default_rng(2)
    strata = [0] * 5 + [1] * 9 + [2] * 2
    shift = 10.0 * np.array(strata)
    found = [granulated(*(rng.normal(size=16) + shift for _ in range(2)), strata).p for _ in range(150)]
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert 0.4 < np.mean(found) < 0.6


def test_strata_of_one_run_have_no_pairs():
    assert granulated([1, 2], [1, 2], ["a", "b"]) is None
    assert granulated([1, 1, 2], [1, 2, 3], ["a", "a", "b"]) is None
    found = granulated([1, 2, 5], [1, 2, 3], ["a", "a", "b"])
    assert found.pairs == 1
    assert found.by_stratum == {"a": 1}

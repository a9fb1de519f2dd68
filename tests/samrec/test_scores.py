"""Equal scores are equal: whatever the shapes, the order of a sum, and what stands beside."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samrec.data.interactions import Interactions
from samrec.data.split import leave_one_out
from samrec.evaluation import metrics, ranks
from samrec.model import SASRec
from samrec.scores import summands


def expecting(table, expected):
    """A model that expects the same after every history."""
    items, dim = table.shape
    model = SASRec(items, dim, max_length=5, layers=1, heads=1)
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.copy_(expected)
        model.item.weight.copy_(table)
    return model


def everyone(items, users, seed=0):
    """Histories of three items each, in which all items occur."""
    rng = np.random.default_rng(seed)
    histories = [rng.permutation(items)[:3] + 1 for _ in range(users)]
    cover = [list(range(first, first + 3)) for first in range(1, items - 1)]
    return leave_one_out(Interactions.from_histories([*cover, *histories], "here"))


@pytest.mark.parametrize("dim", [3, 64, 100, 257])
@pytest.mark.parametrize("items", [9, 17, 130])
def test_equal_items_are_all_ranked_before_the_target(items, dim):
    """Nine of width 100 gave HR@5 = .576 once: a product rounds a column by where it stands."""
    torch.manual_seed(dim)
    split = everyone(items, 40)
    model = expecting(torch.randn(dim).expand(items, dim), torch.randn(dim))
    for batch_size in (1, 7, 1024):
        found = ranks(model, split, "test", batch_size)
        assert np.array_equal(found, np.full(len(split.evaluated("test")), items - 3))
    assert metrics(found)["hr@5"] == 0


@pytest.mark.parametrize("dim", [8, 100])
def test_scores_that_are_equal_by_other_rows_tie_too(dim):
    """Items whose coordinates are the same in another order, where all coordinates count the same."""
    torch.manual_seed(0)
    row = torch.randn(dim)
    table = torch.stack([row[torch.randperm(dim)] for _ in range(30)])
    split = everyone(30, 20)
    model = expecting(table, torch.full((dim,), 0.7))
    assert set(ranks(model, split, "test").tolist()) == {27}


@given(st.integers(1, 300), st.integers(-60, 60), st.integers(0, 2**32 - 1))
def test_dot_products_of_summands_are_exact(dim, exponent, seed):
    rng = np.random.default_rng(seed)
    given = torch.from_numpy(rng.standard_normal((2, dim)) * 2.0 ** rng.integers(-30, 30, (2, dim)))
    a, b = summands(given[0] * 2.0**exponent), summands(given[1])
    exact = sum((Fraction(x) * Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)), Fraction(0))
    order = torch.from_numpy(rng.permutation(dim))
    for one, other in ((a, b), (a[order], b[order]), (a.flip(0), b.flip(0))):
        assert Fraction(float(one @ other)) == exact
        assert Fraction(sum((one * other).tolist())) == exact


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_rounding_is_as_fine_as_a_float32_of_the_largest(dim, seed):
    row = torch.from_numpy(np.random.default_rng(seed).standard_normal(dim)).float()
    error = (summands(row) - row.double()).abs().max() / row.abs().max()
    assert error <= 2.0 ** -((53 - np.ceil(np.log2(dim))) // 2)


def test_zeros_stay_and_what_is_not_finite_is_seen():
    assert torch.equal(summands(torch.zeros(2, 3)), torch.zeros(2, 3, dtype=torch.float64))
    assert summands(torch.tensor([[1.0, torch.inf]])).isnan().all()
    assert summands(torch.tensor([[1.0, torch.nan]])).isnan().all()

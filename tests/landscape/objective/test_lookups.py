"""Rows that no batch reads are not moved, and nothing else changes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import Objective, random_direction
from landscape.surface.loss_cache import LossCache
from landscape.surface.strategies import strategies
from samrec.data.packing import TrainingBatches
from samrec.losses import bce, cross_entropy
from samrec.model import SASRec


class Lookup(nn.Module):
    """Scores from a few rows of a large table."""

    def __init__(self, score):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(100, 3).double()
        self.head = nn.Linear(3, 1).double()
        self.score = score

    def forward(self, items):
        return self.score(self, items)


BATCHES = [torch.tensor([[3, 99], [3, 7]]), torch.tensor([[50, 7]])]


def objective(score, **options):
    return Objective(
        Lookup(score), BATCHES, lambda m, items: (m(items).square().sum(), items.numel()), **options
    )


def by_module(model, items):
    return model.head(model.table(items))


def by_function(model, items):
    return model.head(F.embedding(items, model.table.weight))


@pytest.mark.parametrize("score", [by_module, by_function])
def test_only_what_is_read_is_left(score):
    whole = objective(score)
    compact, places = whole.compact()
    rows = [3, 7, 50, 99]
    expected = [*(3 * row + i for row in rows for i in range(3)), *range(300, 304)]
    assert places.tolist() == expected
    assert compact.params.numel == 16
    theta = whole.theta + torch.randn_like(whole.theta)
    assert compact.value(theta[places]) == whole.value(theta)
    both = torch.stack([theta, whole.theta])
    np.testing.assert_allclose(compact.values(both[:, places]), whole.values(both), rtol=1e-12)
    assert compact.clone().value(theta[places]) == whole.value(theta)
    assert whole.value(theta) == whole.value(theta.clone())  # the original is as it was


@pytest.mark.parametrize(
    "score",
    [
        lambda m, items: m.table(items) @ m.table.weight.T,  # all rows are scored
        lambda m, items: m.table(items) + m.table.weight.norm(),
        lambda m, items: m.table(items) * len(m.table.weight),
        lambda m, items: torch.cat([m.table(items).flatten(), m.table.weight.flatten()]),
        lambda m, items: m.table.weight[items],  # not by F.embedding: not understood, so not touched
    ],
    ids=["product", "norm", "size", "list", "index"],
)
def test_a_table_that_is_used_otherwise_stays_whole(score):
    assert objective(score).compact() is None


def test_a_table_of_which_most_is_read_stays_whole(sasrec_objective):
    assert sasrec_objective.compact() is None


def test_a_table_that_is_held_still_is_not_asked_for():
    assert objective(by_module, exclude=["table*"]).compact() is None


def test_where_another_row_is_read_the_loss_of_what_is_left_is_no_number():
    def chosen(model, items):
        far = (model.head.bias > 10).long()  # weights choose the rows
        return model.head(model.table((items + 60 * far) % 100))

    whole = objective(chosen)
    compact, places = whole.compact()
    theta = whole.theta.clone()
    theta[-1] += 20
    assert np.isfinite(whole.value(theta))
    assert np.isnan(compact.value(theta[places]))


@pytest.mark.parametrize("loss", [bce, cross_entropy])
def test_a_sample_of_users_reads_few_items_of_a_large_catalogue(split, loss):
    torch.manual_seed(0)
    model = SASRec(1000, dim=4, max_length=6, layers=1, heads=2).double()  # of which the data hold 30
    batches = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:40], 17, (0,))
    whole = Objective(model, batches, loss)
    if loss is cross_entropy:
        assert whole.compact() is None
        return
    compact, _ = whole.compact()
    assert compact.params.numel < whole.params.numel / 5
    directions = [random_direction(whole.params, 0, index=i) for i in (0, 1)]
    steps = [(0.3, -0.2), (0.0, 0.1), (-0.5, 0.4)]
    points = LossCache(whole, directions)
    expected = [whole.value(points.theta(step)) for step in steps]
    for strategy in strategies(whole, directions):
        np.testing.assert_allclose(list(strategy.losses(steps)), expected, rtol=1e-12)

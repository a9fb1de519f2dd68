"""The share of pairs that a model ranks the wrong way, which a bound is of."""

import math

import numpy as np
import pytest
import torch

from landscape.tasks import TaskOptions
from samrec.config import Config
from samrec.data.packing import Packed
from samrec.task import _frozen_pairwise
from tests.conftest import small_sasrec


def frozen_pairs(split, users=None):
    return _frozen_pairwise(
        Config(data="", max_length=6), split, TaskOptions(users=users, seed=3), torch.device("cpu")
    )


def test_the_pairwise_loss_is_that_of_a_double_loop(split):
    model = small_sasrec(split).eval()
    users, batches, loss, by_user, _ = frozen_pairs(split)
    table = model.item.weight.detach()
    expected = []
    (batch,) = batches
    for number, user in enumerate(users, start=1):
        start = split.interactions.offsets[user]
        history = split.interactions.items[start : start + split.train_lengths[user]][-7:].tolist()
        places = (batch.inputs.segments == number).nonzero()
        negatives = batch.negatives[0][tuple(places.T)].tolist()
        items = torch.tensor([history[:-1]])
        alone = Packed(
            items,
            torch.arange(len(items[0]))[None],
            torch.ones_like(items),
            torch.tensor([len(items[0]) - 1]),
        )
        with torch.no_grad():
            output = model(alone)[0]
        wrong = 0
        for state, target, negative in zip(output, history[1:], negatives, strict=True):
            wrong += float(state @ table[negative]) >= float(state @ table[target])
        expected.append(wrong / len(negatives))
    shares, weights = by_user(model, batch)
    assert len(set(expected)) > 3
    np.testing.assert_allclose(shares.detach(), expected, rtol=1e-12)
    assert (weights == 1).all()
    summed, weight = loss(model, batch)
    assert float(summed / weight) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("weight", [0.0, math.nan, math.inf])
def test_ties_and_scores_that_are_no_numbers_are_errors(split, weight):
    model = small_sasrec(split).eval()
    with torch.no_grad():
        model.item.weight.fill_(weight)
    users, (batch,), _, by_user, _ = frozen_pairs(split, users=10)
    assert len(users) == 10
    assert by_user(model, batch)[0].tolist() == [1.0] * 10

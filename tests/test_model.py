import numpy as np
import pytest
import torch

from samrec import losses
from samrec.data.packing import TrainingBatches, pack
from samrec.losses import bce, cross_entropy
from samrec.model import Dropout, SASRec
from tests.conftest import small_sasrec


def packed(*sequences, width=6):
    lengths = np.array([len(s) for s in sequences])
    items = torch.tensor([item for s in sequences for item in s])
    return pack(items, np.cumsum(lengths) - lengths, lengths, width)[0]


@pytest.fixture
def model(split):
    return small_sasrec(split).eval()


def outputs(model, histories):
    """The model's output on each history, in the histories' order."""
    found = model(histories).flatten(0, 1)[histories.flat]
    counts = torch.bincount(histories.segments.flatten()[histories.flat])[1:]
    return found.split(counts.tolist())


def test_neighbours_in_a_row_do_not_see_one_another(model):
    sequences = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10], [2, 1]]
    together = outputs(model, packed(*sequences))
    for sequence, found in zip(sequences, together, strict=True):
        (alone,) = outputs(model, packed(sequence))
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-12)


def test_the_future_is_not_seen(model):
    (a,), (b,) = (outputs(model, packed([1, 2, 3, last])) for last in (4, 9))
    assert torch.equal(a[:3], b[:3])
    assert not torch.equal(a[3], b[3])


def test_the_past_is_seen(model):
    (a,), (b,) = (outputs(model, packed([first, 2, 3])) for first in (1, 9))
    assert not torch.equal(a[2], b[2])


def test_order_matters(model):
    (a,), (b,) = (outputs(model, packed(s)) for s in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(a[2], b[2])


def test_there_is_a_row_for_each_item_and_none_for_padding():
    assert SASRec(7, dim=4, heads=2).item.weight.shape == (7, 4)


def test_bce_is_the_sum_of_both_terms_over_positions(split, model):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    expected = model(batch.inputs).flatten(0, 1)[batch.inputs.flat]
    positive = (expected * model.item.weight[batch.targets]).sum(-1).sigmoid().log()
    negative = (1 - (expected * model.item.weight[batch.negatives]).sum(-1).sigmoid()).log()
    total, weight = bce(model, batch)
    assert weight == len(batch.targets)
    assert float(total.detach()) == pytest.approx(-float((positive + negative).sum().detach()))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1_000_003))
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=2e-3)
    assert float(out.mean()) == pytest.approx(1, abs=6e-3)
    assert out.unique().numel() == 2


def test_dropout_draws_are_independent_between_elements():
    torch.manual_seed(0)
    mask = (Dropout(0.5)(torch.ones(400_000)) == 0).double().view(-1, 4)
    assert (torch.corrcoef(mask.T) - torch.eye(4)).abs().max() < 0.01


def test_dropout_does_nothing_in_eval_mode_or_at_zero():
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_follows_the_seed():
    x = torch.ones(100)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_cross_entropy_is_that_of_all_scores_whatever_the_chunk(split, model, monkeypatch):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    scores = model(batch.inputs).flatten(0, 1)[batch.inputs.flat] @ model.item.weight.T
    expected = torch.nn.functional.cross_entropy(scores, batch.targets, reduction="sum")
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    for dropout in model.modules():
        if isinstance(dropout, Dropout):
            dropout.threshold = 0
    for training in (False, True):  # in training a chunk is computed twice, and must come out the same
        for chunk in (1, 100, 2**24):
            monkeypatch.setattr(losses, "CHUNK", chunk)
            monkeypatch.setattr(losses, "KEPT", chunk)
            total, weight = cross_entropy(model.train(training), batch)
            assert weight == len(batch.targets)
            torch.testing.assert_close(total, expected)
            torch.testing.assert_close(torch.autograd.grad(total, list(model.parameters())), gradients)

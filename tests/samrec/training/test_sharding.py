"""A table that ranks share by rows gives what a whole one does, whoever asks for how much of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from landscape import InputError
from landscape.runtime.ranks import ALONE, Ranks
from samrec.data.packing import TrainingBatches
from samrec.evaluation import candidates, count_above
from samrec.losses import cross_entropy, fused_cross_entropy
from samrec.sharding import ShardedEmbedding
from tests.conftest import small_sasrec


class Threads(Ranks):
    """Ranks that are threads of one process; `told` holds what each says to the others."""

    def gathered(self, value):
        told, barrier = self.store
        told[self.rank] = value
        barrier.wait()
        values = list(told)
        barrier.wait()
        return values

    def summed(self, tensor):
        return torch.stack(self.gathered(tensor)).sum(0)

    def stacked(self, tensor):
        return torch.stack(self.gathered(tensor))

    def largest(self, number):
        return max(self.gathered(number))

    def exchanged(self, tensor, sent, received):
        pieces = [piece[self.rank] for piece in self.gathered(torch.split(tensor, sent))]
        assert [len(piece) for piece in pieces] == received
        return torch.cat(pieces)


def by_all(size, task):
    """Return what `task` returns on each of so many ranks."""
    shared = [None] * size, threading.Barrier(size, timeout=600)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(task, [Threads(rank, size, rank, shared) for rank in range(size)]))


@settings(max_examples=30)
@given(size=st.integers(1, 4), items=st.integers(4, 40), data=st.data())
def test_rows_and_their_gradients(size, items, data):
    table = torch.randn(items, 3, dtype=torch.float64)
    asked = [
        torch.tensor(data.draw(st.lists(st.integers(0, items - 1), max_size=8)), dtype=torch.int64)
        for _ in range(size)
    ]
    along = [torch.randn(*of.shape, 3, dtype=torch.float64) for of in asked]

    def looked_up(ranks):
        shard = ShardedEmbedding(table, ranks)
        found = shard(asked[ranks.rank])
        found.backward(along[ranks.rank])
        return found.detach(), shard.weight.grad

    parts = by_all(size, looked_up)
    whole = table.clone().requires_grad_()
    F.embedding(torch.cat(asked), whole).backward(torch.cat(along))
    for of, (found, _) in zip(asked, parts, strict=True):
        torch.testing.assert_close(found, table[of])
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), whole.grad)


@pytest.fixture
def model(split):
    return small_sasrec(split).eval()


def sharded(model, ranks):
    """Return a copy of a model that has the rank's rows of its table alone."""
    own = deepcopy(model)
    own.item = ShardedEmbedding(model.item.weight, ranks)
    return own


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cross_entropy_over_all_items(model, split, size):
    """Each rank has other rows of the batch; the last of three has no position to predict."""
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:40], 40, (0,))
    total, _ = cross_entropy(model, batch)
    total.backward()

    def of_rank(ranks):
        own, dealt = sharded(model, ranks), batch.dealt(ranks.rank % 2, min(size, 2))
        used = dealt.used if ranks.rank < 2 else 0 * dealt.used
        found, _ = fused_cross_entropy(own, replace(dealt, used=used))
        found.backward()
        return found.detach(), own.item.weight.grad, own.position.weight.grad

    losses, tables, positions = zip(*by_all(size, of_rank), strict=True)
    torch.testing.assert_close(sum(losses), total.detach())
    torch.testing.assert_close(torch.cat(tables), model.item.weight.grad)
    torch.testing.assert_close(sum(positions), model.position.weight.grad)


@torch.no_grad()
def counted(model, batch, ranks):
    return count_above(sharded(model, ranks), batch)


@torch.no_grad()
@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("ties", [False, True])
def test_counts_of_better_items(model, split, part, ties):
    if ties:  # scores of small integers, which no order of a sum rounds
        model.item.weight.round_()
        model.norm.weight.zero_()
        model.norm.bias.copy_(torch.tensor([1, -2, 1, 2]))
    (batch,) = candidates(split, part, 6, torch.device("cpu"))
    whole = count_above(model, batch)
    for size in (1, 3):
        for counts in by_all(size, partial(counted, model, batch)):
            assert torch.equal(counts, whole)


def test_weights_that_are_not_finite_rank_nothing_on_any_rank(model, split):
    with torch.no_grad():
        model.item.weight[0] = torch.nan
        (batch,) = candidates(split, "test", 6, torch.device("cpu"))
        for counts in by_all(2, partial(counted, model, batch)):
            assert counts.isnan().all()


def test_alone_a_rank_holds_all():
    table = torch.randn(5, 2)
    assert torch.equal(ShardedEmbedding(table, ALONE).weight, table)


def test_fewer_items_than_ranks():
    with pytest.raises(InputError, match="3 items cannot be shared among 4 ranks"):
        ShardedEmbedding(torch.zeros(3, 2), Ranks(0, 4))

"""Batches that are read anew each time: results are a list's, and changes are noticed."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import landscape as ll
from landscape.curvature import operators

TORCH = torch.Generator().manual_seed(0)
X = torch.randn(22, 4, generator=TORCH)
Y = torch.randint(3, (22,), generator=TORCH)
DATA = TensorDataset(X, Y)


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def objective(batches, **options):
    return ll.supervised(model(), batches, nn.CrossEntropyLoss(), **options)


class Anew:
    """Batches made anew each time, which also counts how many of them are alive."""

    def __init__(self, change=lambda number, batch: batch, count=6):
        self.change, self.count = change, count
        self.alive = self.most = self.read = 0

    def __iter__(self):
        for number in range(self.count):
            self.read += 1
            batch = self.change(
                number, (X[3 * number : 3 * number + 3].clone(), Y[3 * number : 3 * number + 3])
            )
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(batch[0], self._gone)
            yield batch
            del batch

    def _gone(self):
        self.alive -= 1


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Batches(Dataset):
    """Whole batches by their index."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[5 * index : 5 * index + 5], Y[5 * index : 5 * index + 5]


SOURCES = {
    "loader": lambda: DataLoader(DATA, batch_size=5),
    "two workers": lambda: DataLoader(DATA, batch_size=5, num_workers=2),
    "batches by index": lambda: DataLoader(Batches(), batch_size=None),
    "iterable data set": lambda: DataLoader(Stream(), batch_size=5),
    "iterable": Anew,
    "list": lambda: list(DataLoader(DATA, batch_size=5)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_results_are_those_of_a_list(source):
    kept, read = objective(list(source())), objective(ll.streamed(source()))
    assert read.count == kept.count
    assert read.value() == kept.value()
    assert read.provenance["batches_sha256"] == kept.provenance["batches_sha256"]
    assert torch.equal(read.grad(), kept.grad())
    v = torch.ones_like(kept.theta)
    assert torch.equal(read.hvp(v), kept.hvp(v))
    for a, b in zip(read.per_example(), kept.per_example(), strict=True):
        np.testing.assert_array_equal(a, b)


MEASUREMENTS = {
    "eigenpairs": lambda o: ll.top_eigenpairs(o, 2, tol=1e-4).eigenvalues,
    "eigenpairs, no graph kept": lambda o: ll.top_eigenpairs(ll.hessian(o, memory=1), tol=1e-3).eigenvalues,
    "forward": lambda o: ll.trace(ll.hessian(o, "forward"), probes=2).samples,
    "differences": lambda o: ll.trace(ll.hessian(o, "differences"), probes=2).samples,
    "gauss-newton": lambda o: ll.trace(ll.gauss_newton(o), probes=2).samples,
    "fisher": lambda o: ll.trace(ll.empirical_fisher(o), probes=2).samples,
    "plane": lambda o: ll.plane(o, grid=3).losses,
    "sharpness": lambda o: [
        m.value for m in ll.sharpness(o, ["sam", "m-sharpness", "average"]).measures.values()
    ],
    "in float64": lambda o: o.in_float64().value(),
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_measurements_are_those_of_a_list(measure):
    np.testing.assert_array_equal(measure(objective(list(Anew()))), measure(objective(ll.streamed(Anew()))))


def test_parts_are_read_where_they_are_asked_for():
    for source in SOURCES.values():
        batches, streamed = list(source()), ll.streamed(source())
        assert len(streamed) == len(batches)
        for index in (0, 2, -1):
            assert torch.equal(streamed[index][0], batches[index][0])
        for part in (slice(1, 3), slice(None, None, 2), slice(2, None), slice(5, 5)):
            found = list(streamed[part])
            assert len(found) == len(batches[part])
            assert all(torch.equal(a[0], b[0]) for a, b in zip(found, batches[part], strict=True))
        with pytest.raises(IndexError):
            streamed[len(batches)]


def test_workers_of_a_loader_end_well(monkeypatch):
    # torch takes any other end for a crash, and interrupts whatever is computed just then
    workers, own = [], _MultiProcessingDataLoaderIter.__init__
    monkeypatch.setattr(
        _MultiProcessingDataLoaderIter,
        "__init__",
        lambda self, loader: (own(self, loader), workers.extend(self._workers))[0],
    )
    batches = ll.streamed(SOURCES["two workers"]())
    list(batches)
    next(iter(batches))  # and one that is left early
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]


def test_no_more_than_three_batches_are_in_memory():
    source = Anew()
    of = objective(ll.streamed(source), check=False)
    operator = operators.hessian(of, "forward")
    gc.collect()
    source.most = source.alive = 0
    of.value()
    of.grad()
    operator(of.theta)
    assert source.most <= 3
    gc.collect()
    assert source.alive <= 0


def test_batches_are_read_ahead():
    source = Anew()
    batches = iter(ll.streamed(source))
    next(batches)
    next(batches)
    source_read = source.read - source.count  # the first pass counted them
    batches.close()
    assert 2 <= source_read <= 3


def test_half_precision_becomes_that_of_the_weights():
    def half(number, batch):
        return batch[0].half(), batch[1]

    assert objective(ll.streamed(Anew(half))).value() == objective(list(Anew(half))).value()


def noisy(number, batch):
    return batch[0] + torch.randn_like(batch[0]), batch[1]


class Shuffled:
    """Batches in an order that moves on by one at each reading."""

    def __init__(self):
        self.readings = 0

    def __iter__(self):
        self.readings += 1
        batches = list(Anew())
        return iter(batches[self.readings % 6 :] + batches[: self.readings % 6])


class Noisy(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.randn_like(x), y


CHANGING = {
    "augmentation": partial(Anew, noisy),
    "augmentation in a loader": lambda: DataLoader(Noisy(X, Y), batch_size=5),
    "augmentation in workers": lambda: DataLoader(Noisy(X, Y), batch_size=5, num_workers=1),
    "a shuffled stream": Shuffled,
}


@pytest.mark.parametrize("source", CHANGING.values(), ids=CHANGING)
def test_batches_that_change_are_refused_in_one_line(source):
    with pytest.raises(ll.InputError, match="is not what it was when it was first read; turn off") as caught:
        objective(ll.streamed(source()))
    assert "\n" not in str(caught.value)


def test_a_change_after_the_objective_was_made_is_refused_too():
    moved = 0.0
    of = objective(ll.streamed(Anew(lambda number, batch: (batch[0] + moved * (number == 4), batch[1]))))
    before = of.value()
    moved = 1e-3
    for measure in (of.value, of.grad, of.per_example, lambda: ll.top_eigenpairs(of)):
        with pytest.raises(ll.InputError, match="batch 4 is not what it was"):
            measure()
    moved = 0.0
    assert of.value() == before


def test_a_batch_that_is_missing_is_refused():
    source = Anew()
    of = objective(ll.streamed(source))
    source.count = 5
    with pytest.raises(ll.InputError, match="batch 5 is not what it was"):
        of.value()


def test_the_order_of_a_shuffling_loader_is_drawn_once():
    batches = ll.streamed(DataLoader(DATA, batch_size=5, shuffle=True))
    assert torch.equal(torch.cat([b[0] for b in batches]), torch.cat([b[0] for b in batches]))
    of = objective(batches)
    assert of.value() == of.value()


def test_the_users_random_numbers_stay():
    of = objective(ll.streamed(DataLoader(DATA, batch_size=5, num_workers=1)))
    before = torch.get_rng_state()
    of.value()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (iter([1, 2]), "cannot be read more than once"),
        ((b for b in [1]), "a generator cannot be read more than once"),
        (3, "a int cannot be read"),
        (DATA, "a data set gives single examples"),
        (Anew(count=10**9), "do not end after 100,000"),
    ],
)
def test_what_cannot_be_read_again_is_refused(batches, said, monkeypatch):
    monkeypatch.setattr("landscape.objective.streams.MANY", 100_000)
    if isinstance(batches, Anew):
        batches.change = lambda number, batch: (torch.zeros(1), 0)
        monkeypatch.setattr("landscape.objective.streams.MANY", 50)
        said = "do not end after 50"
    with pytest.raises(ll.InputError, match=said):
        ll.streamed(batches)


def test_ranks_share_them(monkeypatch):
    of = objective(ll.streamed(Anew()))
    assert sum(part.value() for part in of.per_batch()) / of.count == pytest.approx(of.value(), rel=1e-6)
    assert len(of.first_batch().batches) == 1


def test_a_change_follows_those_before_it():
    batches = ll.streamed([torch.tensor(1.0), torch.tensor(2.0)])
    changed = batches.changed(lambda batch: batch + 1).changed(lambda batch: batch * 10)
    assert [float(batch) for batch in changed] == [20, 30]

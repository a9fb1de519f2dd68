"""Histories to augment, what hypothesis draws them from, and tests of what was drawn."""

from itertools import chain, count

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from samrec.data.interactions import Interactions
from samrec.data.packing import pack
from samrec.data.ragged import Ragged
from samrec.data.split import leave_one_out
from samrec.training.engines.solo import with_bits

TOKEN = 10**6  # after all items of any test
LENGTHS = st.lists(st.integers(1, 23), min_size=1, max_size=8)
TWENTIETHS = st.integers(0, 20)  # of a history: ⌊k n / 20⌋ is then exact in whole numbers
SEEDS = st.integers(0, 2**32)
some = settings(max_examples=60, deadline=None)


def of_lengths(lengths):
    """Histories in which each item occurs once, so that where one came from can be seen."""
    return Ragged(np.arange(sum(lengths)), np.array(lengths))


def sequences(ragged):
    return [own.tolist() for own in np.split(ragged.values, ragged.starts[1:])]


def in_rows(*histories, width=6, asks=None):
    """Histories, as lists of items, laid into rows; each is followed by the item `asks`, if that is given."""
    flat = Ragged(np.array(list(chain(*histories))), np.array([len(own) for own in histories]))
    return pack(torch.from_numpy(flat.values), flat.starts, flat.lengths, width, asks)[0]


def outputs(model, packed):
    """The model's output on each history in rows, in the histories' order."""
    found = model(packed)
    return [found[packed.segments == number] for number in range(1, len(packed.last) + 1)]


def bits_for(batch, model):
    """Random numbers for dropout, as a step of the trainer deals them."""
    return with_bits(batch, model, torch.Generator(), count(5))


def need_alike(learner, batch, padded):
    """The losses of a batch and their gradients are those of the padded one."""
    results = []
    for each in (batch, padded):
        parts = learner(bits_for(each, learner.model))
        results.append((parts, *torch.autograd.grad(parts.sum(), list(learner.parameters()))))
    for alone, among in zip(*results, strict=True):
        assert among.isfinite().all()
        torch.testing.assert_close(among, alone, rtol=1e-10, atol=1e-12)


def drawn(seed=0):
    return np.random.default_rng(seed)


def likely(counts, expected=None):
    """Whether counts may be of the probabilities claimed; seeds are fixed, so this never flickers."""
    shares = None if expected is None else np.array(expected) / np.sum(expected) * np.sum(counts)
    return chisquare(counts, shares).pvalue > 1e-3


def unrelated(a, b):
    """Whether two things may be drawn independently, from pairs of their values."""
    table = np.zeros((max(a) + 1, max(b) + 1))
    np.add.at(table, (np.array(a), np.array(b)), 1)
    return chi2_contingency(table[table.any(1)][:, table.any(0)]).pvalue > 1e-3


def slots_of(packed):
    """The slots that each sequence was laid into, side by side in one row."""
    rows, width = packed.items.shape
    found = []
    for number, last in enumerate(packed.last.tolist(), start=1):
        slots = (packed.segments == number).flatten().nonzero().flatten().tolist()
        assert slots == list(range(last - len(slots) + 1, last + 1))
        assert slots[0] // width == last // width < rows
        found.append(slots)
    assert sum(map(len, found)) == int((packed.segments > 0).sum())
    return found


def unpacked(packed):
    """The sequences laid into rows, in their order; each one's positions count from 0."""
    items, positions = packed.items.flatten(), packed.positions.flatten()
    found = []
    for slots in slots_of(packed):
        assert positions[slots].tolist() == list(range(len(slots)))
        found.append(items[slots].tolist())
    return found


def same_tensors(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True))


def held_out_apart():
    """Histories whose validation and test items, 21 and more, occur nowhere else; one too short for them."""
    rng = np.random.default_rng(0)
    trained = [rng.integers(1, 21, rng.integers(1, 12)).tolist() for _ in range(30)]
    sequences = [[*own, 21 + 2 * user, 22 + 2 * user] for user, own in enumerate(trained)]
    with pytest.warns(UserWarning, match="1 of 31 users"):
        return leave_one_out(Interactions.from_histories([*sequences, [3, 4]], "here"))


def operators_of(history, view, shares):
    """Which operators may have made a view of a history."""
    n = len(history)
    kept, hidden, shuffled = (k * n // 20 for k in shares)
    found = set()
    runs = [history[first : first + max(1, kept)] for first in range(n)]
    if view in runs and len(view) == max(1, kept):
        found.add("crop")
    pairs = list(zip(history, view, strict=False))
    if len(view) == n and sum(new != old for old, new in pairs) == hidden:
        found |= {"mask"} if all(new in (old, TOKEN) for old, new in pairs) else set()
    moved = [place for place, (old, new) in enumerate(pairs) if old != new]
    if sorted(view) == sorted(history) and (not moved or moved[-1] - moved[0] < shuffled):
        found.add("reorder")
    return found

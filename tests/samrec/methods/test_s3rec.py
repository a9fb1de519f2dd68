"""S3Rec: what pre-training hides and shows, its losses by their formulas, what fine-tuning begins from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from samrec.architecture import PRESETS
from samrec.data.attributes import Attributes
from samrec.methods.s3rec import PIECES, Pretraining, PretrainingBatches, Weights, in_pieces
from samrec.model import SASRec
from tests.conftest import small_sasrec
from tests.histories import (
    LENGTHS,
    SEEDS,
    TOKEN,
    drawn,
    held_out_apart,
    in_rows,
    likely,
    need_alike,
    of_lengths,
    same_tensors,
    sequences,
    slots_of,
    some,
    unpacked,
)

CPU = torch.device("cpu")
WEIGHTS = Weights(associated_attribute=0.3, masked_item=0.7, masked_attribute=1.1, segment=0.5)


# Pieces


@some
@given(LENGTHS, st.integers(12, 30), SEEDS)
@example([1], 1, 0)
@example([1, 2, 3], 1, 0)
def test_a_segment_is_cut_out_and_another_is_from_elsewhere(lengths, others, seed):
    histories, elsewhere = of_lengths(lengths), np.arange(500, 500 + others)
    pieces, first = in_pieces(histories, elsewhere, TOKEN, drawn(seed))
    found = sequences(pieces)
    assert len(found) == len(first) == PIECES * len(lengths)
    for k, own in enumerate(sequences(histories)):
        rest, segment, other = found[PIECES * k : PIECES * (k + 1)]
        begin = first[PIECES * k + 1]
        assert first[PIECES * k : PIECES * (k + 1)].tolist() == [0, begin, begin]
        assert 1 <= len(segment) <= max(1, len(own) // 2)
        assert segment == own[begin : begin + len(segment)]
        assert rest == own[:begin] + [TOKEN] * len(segment) + own[begin + len(segment) :]
        assert other == list(range(other[0], other[0] + len(segment)))
        assert set(other) <= set(elsewhere.tolist())


def test_a_segments_length_its_place_and_where_the_other_is_from_are_uniform():
    pieces, first = in_pieces(of_lengths([8] * 12_000), np.arange(10_000), TOKEN, drawn())
    lengths, begins = pieces.lengths[1::PIECES], first[1::PIECES]
    assert likely(np.bincount(lengths)[1:])
    assert lengths.max() == 4
    for length in range(1, 5):
        assert likely(np.bincount(begins[lengths == length], minlength=9 - length))
    others = pieces.values[pieces.starts[2::PIECES]]
    assert likely(np.histogram(others, 10, (0, 10_000))[0])


# Batches


def batches_of(split, width=8, mask=0.2):
    return PretrainingBatches(split, width, CPU, mask)


def histories_of(split, users, width=8):
    """The last items of the training part, as training sees them."""
    begins = split.interactions.offsets[users]
    return [
        split.train_items[begin : begin + length][-width:].tolist()
        for begin, length in zip(begins, split.train_lengths[users], strict=True)
    ]


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_batch_holds_histories_with_items_hidden_and_what_they_are(split, noise):
    split = split.noisy(noise, 0)
    token, users = split.num_items, split.trained
    for place, batch in enumerate(batches_of(split).of_users(users, 16, (0, 1))):
        own = histories_of(split, users[16 * place : 16 * (place + 1)])
        inputs, slots = unpacked(batch.inputs), slots_of(batch.inputs)
        pieces, targets = batch.pieces.items.flatten(), batch.targets.flatten()
        places, where = slots_of(batch.pieces), batch.pieces.positions.flatten()
        assert len(own) == len(inputs)
        assert len(places) == PIECES * len(own)
        for k, history in enumerate(own):
            assert inputs[k][-1] == token
            assert all(new in (old, token) for new, old in zip(inputs[k], history, strict=True))
            assert targets[slots[k]].tolist() == history
            rest, segment, other = (pieces[p].tolist() for p in places[PIECES * k : PIECES * (k + 1)])
            begin = rest.index(token)
            assert rest == history[:begin] + [token] * len(segment) + history[begin + len(segment) :]
            assert segment == history[begin : begin + len(segment)]
            assert len(other) == len(segment)
            positions = [where[p].tolist() for p in places[PIECES * k : PIECES * (k + 1)]]
            assert positions[0] == list(range(len(history)))
            assert positions[1] == positions[2] == list(range(begin, begin + len(segment)))
        assert torch.equal(batch.used > 0, batch.inputs.segments > 0)
        assert not batch.targets[batch.used == 0].any()


def test_the_last_item_is_always_hidden_and_others_with_the_probability(split):
    for share in (0.0, 0.2, 0.7, 1.0):
        hidden = []
        for epoch in range(20):
            for batch in batches_of(split, mask=share).epoch(64, (0, epoch)):
                for history in unpacked(batch.inputs):
                    assert history[-1] == split.num_items
                    hidden += [item == split.num_items for item in history[:-1]]
        deviation = (share * (1 - share) / len(hidden)) ** 0.5
        assert abs(np.mean(hidden) - share) <= 4 * deviation


def test_only_what_is_trained_on_is_ever_shown():
    """No validation or test item, nothing of users who are left out, and nothing that noise replaced."""
    split = held_out_apart().fraction(0.5, 0)
    split = split.noisy(0.3, 0)
    ends = [(u, split.interactions.offsets[u], split.train_lengths[u]) for u in split.trained]
    allowed = {item for _, begin, n in ends for item in split.train_items[begin : begin + n].tolist()}
    assert len(allowed) < split.num_items
    shown, elsewhere = set(), []
    for epoch in range(20):
        for batch in batches_of(split).epoch(8, (0, epoch)):
            shown |= set(batch.targets[batch.used > 0].tolist())
            for part in (batch.inputs, batch.pieces):
                shown |= set(part.items[part.segments > 0].tolist()) - {split.num_items}
            elsewhere += [batch.pieces.items.flatten()[slots] for slots in slots_of(batch.pieces)[2::PIECES]]
    assert shown == allowed
    end_to_end = np.concatenate([split.train_items[begin : begin + n] for _, begin, n in ends])
    windows = {tuple(end_to_end[i : i + n]) for n in range(1, 6) for i in range(len(end_to_end) - n + 1)}
    assert {tuple(other.tolist()) for other in elsewhere} <= windows


def test_no_negative_is_of_its_users_training_history(split):
    users = split.trained
    for epoch in range(5):
        for batch in batches_of(split).of_users(users, len(users), (0, epoch)):
            assert batch.negatives.shape == (1, *batch.targets.shape)
            for number, user in enumerate(users, start=1):
                begin = split.interactions.offsets[user]
                own = split.train_items[begin : begin + split.train_lengths[user]]
                drawn = batch.negatives[0][batch.inputs.segments == number]
                assert not set(own.tolist()) & set(drawn.tolist())


def test_an_epoch_is_drawn_from_its_seed_alone(split):
    first, again, other = (list(batches_of(split).epoch(16, (0, epoch))) for epoch in (1, 1, 2))
    assert all(map(same_tensors, first, again))
    assert not any(map(same_tensors, first, other))


# The losses


@pytest.fixture
def attributes(split):
    """Of each item none to three of seven attributes."""
    rng = np.random.default_rng(0)
    of_item = np.full((split.num_items, 3), -1)
    for own in of_item:
        n = rng.integers(4)
        own[:n] = rng.choice(7, n, replace=False)
    return Attributes(of_item, 7)


def learner_of(split, attributes, preset="sasrec"):
    """A small one in float64, whose parameters are far enough from 0 that all of them count."""
    torch.manual_seed(0)
    model = SASRec(split.num_items, 4, 6, layers=2, heads=2, dropout=0.5, architecture=PRESETS[preset])
    learner = Pretraining(model, attributes, WEIGHTS).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def one_batch(split, users=9, mask=0.4):
    (batch,) = batches_of(split, 6, mask).of_users(split.trained[:users], users, (0, 1))
    return batch


def encoded(learner, items, positions, length):
    """What the encoder makes of one sequence alone in its row, its items looked up one by one.

    `length` is that of the history which the positions are places in.
    """
    model, token = learner.model, learner.token.embedding
    table = model.item.weight
    n, width = len(items), model.max_length
    packed = in_rows([0] * n, width=n)
    first = width - length if model.from_end else 0
    places = first + torch.tensor([positions])
    packed = replace(packed, positions=places, ends=torch.tensor([width - 1]))  # as they are, from either end
    rows = torch.stack([token if item == len(table) else table[item] for item in items])
    return model(packed, rows[None], causal=False)[0]


def linear(form, x):
    return form.weight @ x + form.bias


def losses_of(learner, batch, attributes):
    """By the formulas, slot by slot, attribute by attribute, history by history."""
    table = learner.model.item.weight
    found = torch.zeros(4, dtype=torch.float64)
    for slots in slots_of(batch.inputs):
        items, positions, targets, negatives = (
            tensor.flatten()[slots].tolist()
            for tensor in (batch.inputs.items, batch.inputs.positions, batch.targets, batch.negatives)
        )
        outputs = encoded(learner, items, positions, len(items))
        for output, shown, target, negative in zip(outputs, items, targets, negatives, strict=True):
            is_hidden = shown == len(table)
            if is_hidden:
                asked = linear(learner.of_item, output)
                found[0] += -0.7 * torch.sigmoid(asked @ table[target] - asked @ table[negative]).log()
            if not attributes:
                continue
            head = learner.attributes
            asked = linear(head.hidden if is_hidden else head.seen, output)
            for attribute in range(attributes.count):
                p = torch.sigmoid(asked @ head.embedding[attribute] + head.bias[attribute])
                has = attribute in attributes.of_item[target]
                cost = -(p if has else 1 - p).log()
                found[3 if is_hidden else 2] += (1.1 if is_hidden else 0.3) * cost
    items, positions = batch.pieces.items.flatten(), batch.pieces.positions.flatten()
    pieces = slots_of(batch.pieces)
    ends = [
        encoded(learner, items[s].tolist(), positions[s].tolist(), len(pieces[place // PIECES * PIECES]))[-1]
        for place, s in enumerate(pieces)
    ]
    for rest, segment, other in zip(ends[::3], ends[1::3], ends[2::3], strict=True):
        asked = linear(learner.of_segment, rest)
        found[1] += -0.5 * torch.sigmoid(asked @ segment - asked @ other).log()
    return found if attributes else found[:2]


@pytest.mark.parametrize("preset", ["sasrec", "sasrec-bert"])
def test_the_losses_are_their_formulas(split, attributes, preset):
    batch = one_batch(split)
    for known in (attributes, None):
        learner = learner_of(split, known, preset).eval()
        parts = learner(batch)
        names = "masked item", "segment", "associated attribute", "masked attribute"
        assert learner.parts == names[: 4 if known else 2]
        expected = losses_of(learner, batch, known)
        assert (expected > 0).all()
        torch.testing.assert_close(parts, expected, rtol=1e-10, atol=0)
        parameters = list(learner.parameters())
        gradients = (torch.autograd.grad(loss.sum(), parameters) for loss in (parts, expected))
        for found, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_neither_losses_nor_gradients(split, attributes, training):
    learner = learner_of(split, attributes).train(training)
    batch = one_batch(split)
    larger = batch.padded(len(batch.targets) + 3, 12)
    assert len(larger.pieces.last) == PIECES * 12
    assert len(larger.pieces.items) == 2 * len(larger.targets)
    need_alike(learner, batch, larger)


def test_each_objective_asks_its_own_form(split, attributes):
    """And all of them move the encoder."""
    learner = learner_of(split, attributes)
    own = {
        "masked item": {"of_item"},
        "segment": {"of_segment"},
        "associated attribute": {"attributes.seen", "attributes.embedding", "attributes"},
        "masked attribute": {"attributes.hidden", "attributes.embedding", "attributes"},
    }
    named = dict(learner.named_parameters())
    parts = learner(one_batch(split))
    for part, loss in zip(learner.parts, parts, strict=True):
        gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        moved = {name for name, g in zip(named, gradients, strict=True) if g is not None and g.any()}
        heads = {name for name in moved if not name.startswith(("model.", "token."))}
        assert {name.removesuffix(".weight").removesuffix(".bias") for name in heads} == own[part]
        assert {name for name in named if name.startswith("model.")} <= moved
        assert "token.embedding" in moved


# What the encoder sees


@pytest.fixture
def model(split):
    return small_sasrec(split).eval()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("causal", [False, True])
def test_pre_training_sees_both_sides_and_fine_tuning_never_the_future(split, preset, causal):
    torch.manual_seed(0)
    model = SASRec(split.num_items, 4, 8, heads=2, architecture=PRESETS[preset]).double().eval()
    before, after = (model(in_rows([1, 2, 3, later, 5], width=8), causal=causal)[0] for later in (4, 9))
    for slot in range(5):
        assert torch.equal(before[slot], after[slot]) == (causal and slot < 3)


@pytest.mark.parametrize("causal", [False, True])
def test_neighbours_in_a_row_never_see_one_another(model, causal):
    """Whatever stands beside a history, and on which side, its own slots are the same."""
    histories = [[1, 2, 3], [4, 5], [6]]
    packed = in_rows(*histories)
    assert len(packed.items) == 1
    together = model(packed, causal=causal)
    for number in range(1, 4):
        changed = (packed.segments != number) & (packed.segments > 0)
        others = model(
            replace(packed, items=torch.where(changed, packed.items + 10, packed.items)), causal=causal
        )
        own = packed.segments == number
        assert torch.equal(together[own], others[own])
        assert not torch.equal(together[changed], others[changed])
        alone = model(in_rows(histories[number - 1]), causal=causal)
        torch.testing.assert_close(together[own], alone[0, : own.sum()], rtol=1e-12, atol=1e-12)

"""S3Rec: what pre-training hides and shows, its losses by their formulas, what fine-tuning begins from."""

import json
import os
import shutil
import signal
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from landscape import InputError
from samrec import training
from samrec.checkpoint import load, trajectory
from samrec.config import configure, read_settings
from samrec.data.attributes import Attributes
from samrec.data.packing import pack
from samrec.engines.solo import with_bits
from samrec.log import read_log
from samrec.methods.s3rec import PIECES, Pretraining, PretrainingBatches, Weights, in_pieces
from samrec.model import PRESETS, SASRec
from samrec.stopping import Stopped
from tests.conftest import small_sasrec
from tests.test_cl4srec import (
    LENGTHS,
    SEEDS,
    TOKEN,
    drawn,
    held_out_apart,
    likely,
    of_lengths,
    same_tensors,
    sequences,
    slots_of,
    some,
    unpacked,
)
from tests.test_training import at_step, same_weights, small

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


def encoded(learner, items, positions):
    """What the encoder makes of one sequence alone in its row, its items looked up one by one."""
    model, token = learner.model, learner.token.embedding
    table = model.item.weight
    n = len(items)
    packed, _, _ = pack(torch.zeros(n, dtype=torch.int64), np.array([0]), np.array([n]), n)
    packed = replace(packed, positions=torch.tensor([positions]))
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
        outputs = encoded(learner, items, positions)
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
    ends = [encoded(learner, items[s].tolist(), positions[s].tolist())[-1] for s in slots_of(batch.pieces)]
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
    results = []
    for each in (batch, larger):
        parts = learner(with_bits(each, learner.model, torch.Generator(), count(5)))
        results.append((parts, *torch.autograd.grad(parts.sum(), list(learner.parameters()))))
    for alone, among in zip(*results, strict=True):
        assert among.isfinite().all()
        torch.testing.assert_close(among, alone, rtol=1e-10, atol=1e-12)


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


def row(*histories, width=8):
    items = torch.tensor([item for own in histories for item in own])
    lengths = np.array([len(own) for own in histories])
    return pack(items, np.cumsum(lengths) - lengths, lengths, width)[0]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("causal", [False, True])
def test_pre_training_sees_both_sides_and_fine_tuning_never_the_future(split, preset, causal):
    torch.manual_seed(0)
    model = SASRec(split.num_items, 4, 8, heads=2, architecture=PRESETS[preset]).double().eval()
    before, after = (model(row([1, 2, 3, later, 5]), causal=causal)[0] for later in (4, 9))
    for slot in range(5):
        assert torch.equal(before[slot], after[slot]) == (causal and slot < 3)


@pytest.mark.parametrize("causal", [False, True])
def test_neighbours_in_a_row_never_see_one_another(model, causal):
    """Whatever stands beside a history, and on which side, its own slots are the same."""
    histories = [[1, 2, 3], [4, 5], [6]]
    packed = row(*histories, width=6)
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
        alone = model(row(histories[number - 1], width=6), causal=causal)
        torch.testing.assert_close(together[own], alone[0, : own.sum()], rtol=1e-12, atol=1e-12)


# Training


@pytest.fixture(scope="module")
def data(data_file, tmp_path_factory):
    """The data in a folder of their own, with attributes beside them."""
    path = tmp_path_factory.mktemp("world") / "world.txt"
    shutil.copy(data_file, path)
    rng = np.random.default_rng(0)
    known = {str(item): rng.choice(5, rng.integers(1, 4), replace=False).tolist() for item in range(1, 31)}
    path.with_name("world_item2attributes.json").write_text(json.dumps(known))
    return path


def config_of(data, **settings):
    return small(data, method="s3rec", **{"pretrain_epochs": 2, "epochs": 4, **settings})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run from beginning to end."""
    return training.train(config_of(data, save_every=2), tmp_path_factory.mktemp("whole") / "run", "cpu")


def same_learned(a, b):
    return same_weights(a, b) and all(torch.equal(t, b.extra[name]) for name, t in a.extra.items())


def losses_logged(folder):
    return [line for line in read_log(folder / "metrics.jsonl") if "loss" in line]


def test_it_pre_trains_and_then_begins_from_there(data, whole):
    assert {path.name for path in whole.out.iterdir()} == {
        *("pretraining", "best.pt", "last.pt", "metrics.jsonl", "config.toml", "epochs")
    }
    folder = whole.out / "pretraining"
    assert {path.name for path in folder.iterdir()} == {"last.pt", "metrics.jsonl", "config.toml", "epochs"}
    pretrained, begun = load(folder / "last.pt"), load(trajectory(whole.out)[0])
    assert (pretrained.epoch, begun.epoch) == (2, 0)
    assert pretrained.weights.keys() == begun.weights.keys()
    assert same_weights(pretrained, begun)
    assert not same_weights(begun, load(whole.out / "last.pt"))
    assert not load(whole.out / "best.pt").extra
    beside = {name.partition(".")[0] for name in pretrained.extra}
    assert beside == {"token", "of_item", "of_segment", "attributes"}
    assert configure(read_settings(whole.out / "config.toml")) == config_of(data, save_every=2)
    assert pretrained.config.attributes == str(data.with_name("world_item2attributes.json"))


def test_the_log_has_the_losses_by_part(whole):
    for line in losses_logged(whole.out / "pretraining"):
        assert line["losses"].keys() == {"masked item", "segment", "associated attribute", "masked attribute"}
        assert sum(line["losses"].values()) == pytest.approx(line["loss"])
        assert "valid" not in line
    assert [("losses" in line, "valid" in line) for line in losses_logged(whole.out)] == [
        (False, epoch % 2 == 0) for epoch in (1, 2, 3, 4)
    ]


def test_pre_training_learns_all_that_it_is_asked(tmp_path):
    """Where there are two kinds of users, of items of their own, everything can be known half of the time."""
    rng = np.random.default_rng(0)
    items = [15 * (user % 2) + 1 + rng.permutation(15)[:10] for user in range(60)]
    lines = (f"{user} {' '.join(map(str, own))}\n" for user, own in enumerate(items, start=1))
    (tmp_path / "kinds.txt").write_text("".join(lines))
    known = {item: [int(item > 15), 2 + item % 3] for item in range(1, 31)}
    (tmp_path / "kinds.json").write_text(json.dumps(known))
    config = small(
        tmp_path / "kinds.txt",
        method="s3rec-pretraining",
        attributes=str(tmp_path / "kinds.json"),
        epochs=12,
        lr=1e-2,
        dropout=0.1,
    )
    outcome = training.train(config, tmp_path / "run", "cpu")
    assert (outcome.valid, outcome.test, outcome.best_epoch) == ({}, {}, 12)
    first, *_, last = losses_logged(outcome.out)
    for part, value in last["losses"].items():
        assert value < 0.7 * first["losses"][part], part
    assert outcome.losses == last["losses"]


def test_what_is_pre_trained_can_be_used_again(data, whole, tmp_path):
    apart = training.train(config_of(data).pretraining, tmp_path / "apart", "cpu").out / "last.pt"
    assert same_learned(load(apart), load(whole.out / "pretraining" / "last.pt"))
    again = training.train(config_of(data, pretrained=str(apart)), tmp_path / "again", "cpu")
    assert same_weights(load(whole.out / "last.pt"), load(again.out / "last.pt"))
    assert again.test == whole.test
    assert not (again.out / "pretraining").exists()


def test_runs_that_train_together_begin_from_it_too(data, whole, tmp_path):
    given = whole.out / "pretraining" / "last.pt"
    configs = [config_of(data, pretrained=str(given), seed=seed, save_every=4) for seed in (0, 1)]
    outcomes = training.train_together(configs, [tmp_path / "0", tmp_path / "1"], "cpu")
    first, last = zip(*(map(load, trajectory(outcome.out)) for outcome in outcomes), strict=True)
    assert all(same_weights(load(given), begun) for begun in first)
    assert not same_weights(*last)


def test_fine_tuning_is_sasrecs_training_from_other_weights(data, tmp_path):
    """The same users, negatives and dropout: from SASRec's own first weights it is SASRec, bit for bit."""
    plain = training.train(small(data, epochs=2, save_every=2), tmp_path / "plain", "cpu")
    start = str(trajectory(plain.out)[0])
    tuned = training.train(config_of(data, epochs=2, pretrained=start), tmp_path / "tuned", "cpu")
    assert same_weights(load(plain.out / "last.pt"), load(tuned.out / "last.pt"))


@pytest.fixture(scope="module")
def pretrained(data_file, tmp_path_factory):
    """A pre-training without attributes."""
    config = small(data_file, method="s3rec-pretraining", epochs=1)
    with pytest.warns(UserWarning, match="no attributes are beside"):
        return training.train(config, tmp_path_factory.mktemp("pretrained") / "run", "cpu").out / "last.pt"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 16}, "is pre-trained with dim 8, not 16"),
        ({"max_length": 9}, "is pre-trained with max_length 8, not 9"),
        ({"layers": 1}, "is pre-trained with layers 2, not 1"),
        ({"heads": 4}, "is pre-trained with heads 2, not 4"),
        ({"preset": "sasrec-bert"}, "is pre-trained with preset 'sasrec', not 'sasrec-bert'"),
        ({"pretrained": "no/such.pt"}, "no/such.pt: No such file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(data_file, pretrained, tmp_path, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        training.train(config_of(data_file, **{"pretrained": str(pretrained), **settings}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_pre_trained_on_other_data_is_refused(data_file, pretrained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("1 1 2 3 4 5\n2 3 4 5 6\n")
    with pytest.raises(InputError, match=r"other\.txt is not the data of the checkpoint"):
        training.train(config_of(other, pretrained=str(pretrained)), tmp_path / "run", "cpu")


def test_another_kind_of_model_is_no_pre_training(data_file, tmp_path):
    gru = (
        training.train(small(data_file, method="gru4rec", epochs=2), tmp_path / "gru", "cpu").out / "last.pt"
    )
    with pytest.raises(InputError, match="gru4rec") as caught:
        training.train(config_of(data_file, pretrained=str(gru)), tmp_path / "run", "cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_where_no_attributes_are_known_a_warning_says_so(data_file, tmp_path):
    with pytest.warns(
        UserWarning, match=r"no attributes are beside .*synthetic\.txt.*--attributes"
    ) as warned:
        outcome = training.train(config_of(data_file, epochs=2), tmp_path / "run", "cpu")
    assert len(warned) == 1
    (line, _) = losses_logged(outcome.out / "pretraining")
    assert line["losses"].keys() == {"masked item", "segment"}
    assert load(outcome.out / "pretraining" / "last.pt").config.attributes is None


def test_attributes_are_named_or_those_beside_the_data(data, tmp_path):
    path = tmp_path / "others.json"
    path.write_text('{"1": [7, 9]}')
    extra = [
        load(training.train(config, tmp_path / name, "cpu").out / "last.pt").extra
        for name, config in {
            "beside": config_of(data).pretraining,
            "named": config_of(data, attributes=str(path)).pretraining,
        }.items()
    ]
    assert [len(e["attributes.embedding"]) for e in extra] == [5, 2]
    with pytest.raises(InputError, match="cannot read JSON file of attributes"):
        training.train(config_of(data, attributes="no/such.json"), tmp_path / "none", "cpu")
    assert not (tmp_path / "none").exists()


STEPS = 4  # an epoch


@pytest.mark.parametrize("step", [2, STEPS, STEPS + 3, 2 * STEPS + 1, 2 * STEPS + 6])
def test_a_stopped_run_goes_on_bit_for_bit(data, whole, tmp_path, monkeypatch, step):
    """Inside of pre-training, between two of its epochs, and inside of fine-tuning."""
    out = tmp_path / "run"
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        training.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    within, at = ("", step - 2 * STEPS) if step > 2 * STEPS else ("pretraining", step)
    last = load(out / within / "last.pt")
    assert (last.epoch, len(last.sums)) == divmod(at, STEPS)
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        training.train(config_of(data), out, "cpu")
    training.train(config_of(data), out, "cpu", resume=True)
    for name in ("pretraining/last.pt", "last.pt", "best.pt"):
        a, b = load(whole.out / name), load(out / name)
        assert same_learned(a, b)
        assert (a.epoch, a.best, a.valid) == (b.epoch, b.best, b.valid)
    for part in ("pretraining", ""):
        logs = [losses_logged(folder / part) for folder in (whole.out, out)]
        assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]


def test_the_command_resumes_by_the_folder_alone(data, whole, tmp_path, monkeypatch, answer):
    out = tmp_path / "run"
    at_step(STEPS + 1, KeyboardInterrupt, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        training.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    answer("train", "--out", out, "--resume", "--device", "cpu")
    assert same_weights(load(whole.out / "last.pt"), load(out / "last.pt"))


def test_a_signal_in_the_last_step_of_pre_training_stops_the_run(data, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    at_step(2 * STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        training.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    assert not (out / "last.pt").exists()
    training.train(config_of(data), out, "cpu", resume=True)
    assert same_weights(load(whole.out / "last.pt"), load(out / "last.pt"))

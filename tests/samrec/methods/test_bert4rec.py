"""BERT4Rec: what a masked slot sees, what is masked, and how the mask asks for what comes next."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import landscape as ll
from landscape import InputError
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.config import Config, configure
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.data.synthetic import markov, write_sequences
from samrec.evaluation import candidates, ranks
from samrec.losses import LOSSES, cross_entropy, fused_cross_entropy
from samrec.methods import initial_learner, initial_model, recommendation_batches
from samrec.methods.bert4rec import BERT4Rec, ClozeBatches
from samrec.model import SASRec
from samrec.sweeps.jobs import plan
from samrec.task import objective
from samrec.training.loop import train, train_together
from tests.histories import in_rows, likely, unpacked
from tests.samrec.training.test_training import same_weights, small

CPU = torch.device("cpu")
ASKED = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10, 11, 2], [2, 1]]


def model_of(num_items=12, dtype=torch.float64, **settings):
    """Untrained, with weights far enough from 0 that everything it sees moves its output."""
    config = Config(data="", method="bert4rec", dim=4, max_length=6, **settings)
    model = initial_model(config, num_items).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=dtype, generator=generator))
    return model


def laid(histories, model):
    """Histories in rows, each followed by the mask token."""
    return in_rows(*histories, width=model.max_length, asks=model.asks)


def answers(model, histories):
    packed = laid(histories, model)
    return model(packed).flatten(0, 1)[packed.last]


def cloze(split, mask=0.2, last=0.0, negatives=0, max_length=6):
    return ClozeBatches(split, max_length, CPU, negatives, mask, last)


# What a slot sees


def test_a_history_is_followed_by_the_mask_at_the_next_position():
    model = model_of()
    packed = laid(ASKED, model)
    assert unpacked(packed) == [[*own, 12] for own in ASKED]
    assert packed.items.shape[1] == 7
    assert packed.items.flatten()[packed.last].tolist() == [12] * len(ASKED)


@pytest.mark.parametrize("positions", ["start", "end"])
def test_a_padded_transformer_in_plain_torch_answers_the_same(positions):
    """An oracle of its own: one row per history, empty slots masked as keys, torch's attention."""
    model = model_of(positions=positions)
    tokens = torch.full((len(ASKED), 7), -1)
    for row, own in zip(tokens, ASKED, strict=True):
        row[: len(own) + 1] = torch.tensor([*own, 12])
    table = torch.cat([model.item.weight, model.token.embedding[None]])
    lengths = (tokens >= 0).sum(1, keepdim=True)
    places = torch.arange(7) + (7 - lengths if positions == "end" else 0)
    x = 2 * table[tokens.clamp(min=0)] + model.position.weight[places.clamp(max=6)]
    for block in model.blocks:
        normed = F.layer_norm(x, (4,), block.attention_norm.weight, block.attention_norm.bias)
        weights, biases = block.attention.qkv.weight.split([4, 8]), block.attention.qkv.bias.split([4, 8])
        parts = [F.linear(normed, weights[0], biases[0]), *F.linear(x, weights[1], biases[1]).chunk(2, -1)]
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in parts)
        seen = (tokens >= 0)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        x = normed + F.linear(mixed, block.attention.out.weight, block.attention.out.bias)
        x = F.layer_norm(x, (4,), block.ffn_norm.weight, block.ffn_norm.bias)
        inner = F.relu(F.linear(x, block.ffn.inner.weight, block.ffn.inner.bias))
        x = x + F.linear(inner, block.ffn.outer.weight, block.ffn.outer.bias)
    x = F.layer_norm(x, (4,), model.norm.weight, model.norm.bias)
    expected = x.gather(1, (lengths - 1)[..., None].expand(-1, -1, 4)).squeeze(1)
    torch.testing.assert_close(answers(model, ASKED), expected, rtol=1e-12, atol=1e-12)


def test_without_positions_the_order_of_a_history_does_not_matter():
    """Attention to both sides is of a set. With positions, or a causal mask, it is of a sequence."""
    model = model_of()
    shuffled = [own[::-1] for own in ASKED]
    several = torch.tensor([len(own) > 1 for own in ASKED])
    before = answers(model, ASKED)
    assert (before != answers(model, shuffled)).any(1).equal(several)
    torch.nn.init.zeros_(model.position.weight)
    torch.testing.assert_close(answers(model, shuffled), answers(model, ASKED), rtol=1e-12, atol=1e-12)
    packed, turned = laid(ASKED, model), laid(shuffled, model)
    causal = [model(each, causal=True).flatten(0, 1)[each.last] for each in (packed, turned)]
    assert not torch.allclose(*causal)


def test_every_slot_sees_all_of_its_history_and_nothing_of_a_neighbour():
    model = model_of()
    packed = laid([[1, 2], [3, 4, 5]], model)
    before, segments = model(packed)[0], packed.segments[0]
    for slot in range(7):
        items = packed.items.clone()
        items[0, slot] = 9
        moved = (model(replace(packed, items=items))[0] != before).any(1)
        assert moved.equal(segments == segments[slot])


@pytest.mark.parametrize("preset", ["sasrec", "sasrec-original", "sasrec-bert"])
def test_a_masked_item_does_not_reach_its_own_prediction(split, preset):
    """The derivative of what a masked slot says by the input embedding of its true item is 0."""
    model = model_of(split.num_items, preset=preset)
    (batch,) = cloze(split, 0.4).of_users(split.trained[:9], 9, (0,))
    table = model.item.weight.detach().clone().requires_grad_()
    token = model.token.embedding.detach()
    of_inputs = torch.cat([table, token[None]])[batch.inputs.items]
    output = model(batch.inputs, of_inputs)
    assert torch.equal(output, model(batch.inputs))
    slots = batch.used.bool()
    hidden = checked = 0
    for row, column in slots.nonzero().tolist():
        target, own = batch.targets[row, column], batch.inputs.segments[row, column]
        (gradient,) = torch.autograd.grad(
            output[row, column] @ model.item.weight[target].detach(), table, retain_graph=True
        )
        visible = batch.inputs.items[row][batch.inputs.segments[row] == own]
        assert gradient.abs().sum(1).nonzero().flatten().tolist() == sorted(
            {item for item in visible.tolist() if item < split.num_items}
        )
        hidden += 1
        checked += target not in visible
    assert checked > hidden // 2 > 3


# What is masked


@pytest.mark.parametrize("mask", [0.0, 0.2, 0.5, 1.0])
def test_a_share_of_each_history_is_masked_and_one_item_at_least(split, mask):
    users = split.trained
    (batch,) = cloze(split, mask).of_users(users, len(users), (0,))
    histories = [h[-7:] for h in np.split(split.training.values, split.training.starts[1:])]
    given, targets = unpacked(batch.inputs), unpacked(replace(batch.inputs, items=batch.targets))
    assert targets == [own.tolist() for own in histories]
    for seen, own in zip(given, targets, strict=True):
        assert seen.count(split.num_items) == max(1, round(mask * len(own)))
        assert all(item in (split.num_items, true) for item, true in zip(seen, own, strict=True))
    assert batch.used.equal((batch.inputs.items == split.num_items).float())


def test_each_place_is_as_likely_to_be_masked_and_the_last_alone_as_often_as_asked(split):
    users = np.repeat(split.trained[split.train_lengths[split.trained] >= 7][:1], 3000)
    (batch,) = cloze(split, 0.3).of_users(users, len(users), (0,))
    counts = torch.bincount(batch.inputs.positions[batch.used.bool()], minlength=7)
    assert counts.sum() == 2 * 3000
    assert likely(counts.numpy())
    (batch,) = cloze(split, 0.3, last=0.25).of_users(users, len(users), (0,))
    alone = sum(
        own[6] == split.num_items and split.num_items not in own[:6] for own in unpacked(batch.inputs)
    )
    assert likely([alone, 3000 - alone], [0.25, 0.75])
    (batch,) = cloze(split, 0.3, last=1.0).of_users(split.trained, 60, (0,))
    assert batch.used.flatten().nonzero().flatten().tolist() == sorted(batch.inputs.last.tolist())


def test_masks_depend_on_the_seed_and_not_on_how_histories_are_packed(split):
    """One history per row, padded, has the same masks and the same loss."""
    users = split.trained[:20]
    batches = cloze(split, 0.3, 0.2)
    (packed,) = batches.of_users(users, 20, (0, 1))
    (again,) = batches.of_users(users, 20, (0, 1))
    (other,) = batches.of_users(users, 20, (0, 2))
    assert torch.equal(packed.inputs.items, again.inputs.items)
    assert not torch.equal(packed.inputs.items, other.inputs.items)
    model = model_of(split.num_items)
    total = 0.0
    for seen, own in zip(
        unpacked(packed.inputs), unpacked(replace(packed.inputs, items=packed.targets)), strict=True
    ):
        items = torch.tensor(seen)
        scores = model(in_rows(seen, width=7))[0, : len(seen)] @ model.item.weight.T
        costs = F.cross_entropy(scores, torch.tensor(own), reduction="none")
        total += costs[items == split.num_items].sum().item()
    value, weight = cross_entropy(model, packed)
    assert weight == packed.used.sum() == sum(own.count(split.num_items) for own in unpacked(packed.inputs))
    assert value.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_items_in_view_and_empty_slots_take_no_part_in_the_loss(split, loss):
    model = model_of(split.num_items)
    (batch,) = cloze(split, 0.3, negatives=0 if loss == "ce" else 2).of_users(split.trained[:9], 9, (0,))
    changed = torch.where(batch.used.bool(), batch.targets, (batch.targets + 1) % split.num_items)
    value, weight = LOSSES[loss](model, batch)
    assert LOSSES[loss](model, replace(batch, targets=changed))[0] == value
    assert 0 < weight < (batch.inputs.segments > 0).sum()


def test_the_form_that_leaves_empty_slots_out_has_the_same_gradient(split):
    model = model_of(split.num_items)
    (batch,) = cloze(split).of_users(split.trained[:9], 9, (0,))
    weights = list(model.parameters())
    found = []
    for form in (cross_entropy, fused_cross_entropy):
        total, weight = form(model, batch)
        found.append([total, weight, *torch.autograd.grad(total, weights)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


# Runs


def test_settings_begin_as_documented(split):
    config = Config(data="", method="bert4rec")
    assert (config.loss, config.hidden, config.mask_last) == ("ce", 0.2, 0.1)
    batches = recommendation_batches(config, split, CPU, config.drawn, config.mask_last)
    assert (batches.mask, batches.last, batches.max_length) == (0.2, 0.1, 51)
    assert Config(data="", method="bert4rec", loss="bce", mask=0.6).loss == "bce"
    with pytest.raises(InputError, match="mask_last is not a setting of sasrec"):
        configure({"data": "d", "mask_last": 0.5})
    first = initial_model(config, 30)
    plain = initial_model(Config(data="", max_length=51), 30)
    assert isinstance(first, BERT4Rec)
    assert isinstance(plain, SASRec)
    own = first.state_dict()
    assert own.keys() - plain.state_dict().keys() == {"token.embedding"}
    assert all(torch.equal(t, own[name]) for name, t in plain.state_dict().items())


def test_ranking_is_by_the_answer_to_the_mask(split):
    model = model_of(split.num_items)
    found = ranks(model, split, "test")
    start, length, target = split.history("test")
    for row in range(0, len(found), 7):
        history = split.interactions.items[start[row] : start[row] + length[row]]
        scores = (answers(model, [history[-6:].tolist()]) @ model.item.weight.T)[0]
        of_target = scores[target[row]].item()
        scores[torch.from_numpy(history)] = -torch.inf
        scores[target[row]] = -torch.inf
        assert found[row] == (scores >= of_target).sum()
    (batch,) = candidates(split, "test", 6, CPU, asks=model.asks)
    assert len(batch.histories.last) == len(found)


@pytest.fixture(scope="module")
def run(data_file, tmp_path_factory):
    config = small(data_file, method="bert4rec", epochs=4, lr=5e-3)
    return train(config, tmp_path_factory.mktemp("bert4rec") / "run", "cpu")


def test_runs_that_train_as_one_agree_with_a_run_alone(run, tmp_path):
    settings = load(run.out / "last.pt").config.settings
    jobs = plan(settings, {"rho": ["0", "0.05"]}, tmp_path)
    train_together([job.config for job in jobs], [job.out for job in jobs], "cpu")
    (alone, together) = load(run.out / "last.pt"), load(jobs[0].out / "last.pt")
    for name, weight in alone.weights.items():
        torch.testing.assert_close(together.weights[name], weight, rtol=1e-3, atol=1e-4)


def test_its_landscape_is_of_the_masked_loss_with_masks_that_stay(run, data_file):
    path = run.out / "best.pt"
    options = TaskOptions(users=None, seed=3, device="cpu")
    frozen = objective(path, options)
    split, checkpoint = leave_one_out(read(data_file)), load(path)
    users = np.random.default_rng(3).permutation(split.trained)
    batches = list(cloze(split, 0.2, 0.1, max_length=8).of_users(users, 256, (3,)))
    model = checkpoint.model().eval()
    with torch.no_grad():
        sums = [cross_entropy(model, batch) for batch in batches]
    expected = float(sum(total for total, _ in sums) / sum(weight for _, weight in sums))
    assert frozen.value() == frozen.value() == pytest.approx(expected, rel=1e-6)
    assert objective(path, options).provenance == frozen.provenance
    assert list(frozen.params.split(frozen.theta)) == list(checkpoint.weights)
    valid = objective(path, replace(options, metric="valid-loss"))
    assert [float(batch.used.sum()) for batch in valid.batches] == [60.0]  # the last of each user, masked
    for batch in valid.batches:
        assert (batch.inputs.items.flatten()[batch.inputs.last] == split.num_items).all()
    assert objective(path, replace(options, metric="hr@10")).value() == pytest.approx(run.test["hr@10"])
    assert 0 < objective(path, replace(options, metric="pairwise")).value() < 1


def test_products_with_its_hessian_are_differences_of_gradients(split):
    batches = list(cloze(split, 0.3).of_users(split.trained[:20], 7, (0,)))
    frozen = ll.Objective(model_of(split.num_items), batches, cross_entropy)
    vector = torch.ones_like(frozen.theta)
    ahead, behind = (frozen.grad(frozen.theta + step * vector) for step in (1e-5, -1e-5))
    for way in ("reverse", "forward"):
        found = ll.hessian(frozen, way)(vector)
        torch.testing.assert_close(found, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-7)


def test_it_learns_what_a_markov_chain_makes(tmp_path):
    drawn = markov(users=300, items=40, mean_length=10, noise=0.1, seed=0)
    write_sequences(drawn.interactions, tmp_path / "data.txt")
    settings = {"dim": 16, "max_length": 12, "dropout": 0.1, "batch_size": 64, "lr": 1e-2, "layers": 1}
    run = {"epochs": 60, "eval_every": 30, "mask": 0.3, "positions": "end"}
    config = Config(data=str(tmp_path / "data.txt"), method="bert4rec", **settings, **run)
    found = train(config, tmp_path / "run", "cpu")
    by_chance = 10 / 31  # about nine of the forty items are of the history
    assert drawn.ideal_hr10 > found.test["hr@10"] > 2.1 * by_chance


def test_a_seed_is_one_run(run, tmp_path):
    config = load(run.out / "last.pt").config
    again = train(config, tmp_path / "again", "cpu")
    assert same_weights(load(again.out / "last.pt"), load(run.out / "last.pt"))
    learner = initial_learner(config, leave_one_out(read(Path(config.data))))
    assert learner.state_dict().keys() == {f"model.{name}" for name in load(run.out / "last.pt").weights}

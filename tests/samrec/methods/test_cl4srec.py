"""CL4SRec: what its operators may do to a history, whose views are whose, and its loss from the formula."""

from itertools import product

import numpy as np
import pytest
import torch

from samrec.checkpoint import load
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.losses import bce
from samrec.methods.cl4srec import Augmentation, CL4SRec, ContrastiveBatches, info_nce
from samrec.methods.learner import NextItem
from samrec.training.log import read_log
from samrec.training.loop import train, train_together
from tests.conftest import small_sasrec
from tests.histories import (
    TOKEN,
    bits_for,
    held_out_apart,
    in_rows,
    need_alike,
    operators_of,
    same_tensors,
    unpacked,
)
from tests.samrec.training.test_training import SMALL, small

CPU = torch.device("cpu")


# Batches


def batches_of(split, width=8, shares=(0.6, 0.3, 0.6), negatives=2):
    return ContrastiveBatches(split, width, CPU, negatives, Augmentation(*shares))


def test_the_recommendation_is_trained_on_what_sasrec_is(split):
    plain = list(TrainingBatches(split, 8, CPU, 2).epoch(16, (0, 3)))
    found = list(batches_of(split).epoch(16, (0, 3)))
    assert len(found) == batches_of(split).steps(16) == len(plain)
    for ours, theirs in zip(found, plain, strict=True):
        assert same_tensors(ours.inputs, theirs.inputs)
        assert torch.equal(ours.targets, theirs.targets)
        assert torch.equal(ours.used, theirs.used)
        assert ours.negatives.shape == theirs.negatives.shape
    assert torch.equal(found[0].negatives, plain[0].negatives)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_views_are_of_the_inputs_of_the_same_users(split, noise):
    split = split.noisy(noise, 0)
    k = (12, 6, 12)
    users = np.random.default_rng(0).permutation(split.trained)
    for place, batch in enumerate(batches_of(split).of_users(users, 16, (0, 1))):
        inputs, views = unpacked(batch.inputs), unpacked(batch.views)
        assert len(views) == 2 * len(inputs)
        for user, history, *pair in zip(users[16 * place :], inputs, views[::2], views[1::2], strict=False):
            begin = split.interactions.offsets[user]
            assert history == split.train_items[begin:][: split.train_lengths[user] - 1][-8:].tolist()
            own = [[TOKEN if item == split.num_items else item for item in view] for view in pair]
            made = product(*(operators_of(history, view, k) for view in own))
            assert any(a != b for a, b in made)


def test_an_epoch_is_drawn_from_its_seed_alone_and_views_anew_in_each(split):
    first, again, other = (list(batches_of(split).epoch(16, (0, epoch))) for epoch in (1, 1, 2))
    assert all(map(same_tensors, first, again))
    users = split.trained[:16]
    (a,), (b,) = (list(batches_of(split).of_users(users, 16, (0, epoch))) for epoch in (1, 2))
    assert same_tensors(a.inputs, b.inputs)
    assert unpacked(a.views) != unpacked(b.views)
    assert not same_tensors(first[0].inputs, other[0].inputs)


def test_no_batch_holds_the_token_but_in_views_nor_an_item_that_is_held_out():
    split = held_out_apart()
    held_out = {int(item) for part in ("valid", "test") for item in split.history(part)[2]}
    assert len(held_out) == 60
    trains_on = split.num_items - len(held_out)
    hidden = 0
    for epoch in range(5):
        for batch in batches_of(split).epoch(8, (0, epoch)):
            for items in (batch.inputs.items, batch.targets):
                assert 0 <= items.min() <= items.max() < trains_on
            assert 0 <= batch.negatives.min() <= batch.negatives.max() < split.num_items
            shown = set(batch.views.items.unique().tolist())
            assert not shown & held_out
            assert max(shown) <= split.num_items
            hidden += split.num_items in shown
    assert hidden


def test_no_negative_is_of_its_users_training_history(split):
    users = split.trained
    for batch in batches_of(split).of_users(users, len(users), (0, 1)):
        for number, user in enumerate(users, start=1):
            begin = split.interactions.offsets[user]
            own = split.train_items[begin : begin + split.train_lengths[user]]
            drawn = batch.negatives[:, batch.inputs.segments == number]
            assert not set(own.tolist()) & set(drawn.unique().tolist())


# The loss


def info_nce_of(queries, keys):
    """By the formula: of each view its other view is the positive, and 2 (N - 1) others are negatives."""
    total = 0.0
    for view in range(len(queries)):
        positive = view + 1 if view % 2 == 0 else view - 1
        negatives = [other for other in range(len(keys)) if other not in (view, positive)]
        assert len(negatives) == 2 * (len(keys) // 2 - 1)
        above = np.exp(queries[view] @ keys[positive])
        total -= np.log(above / (above + sum(np.exp(queries[view] @ keys[other]) for other in negatives)))
    return total / len(queries)


@pytest.mark.parametrize("histories", [1, 2, 3, 7])
@pytest.mark.parametrize("padding", [0, 2, 6])
def test_info_nce_is_its_formula_whatever_is_padded(histories, padding):
    torch.manual_seed(histories)
    ends = torch.randn(2 * histories, 4).double()
    expected = info_nce_of((ends / 0.7).numpy(), ends.numpy())
    padded = torch.cat([ends, 1e3 * torch.randn(padding, 4).double()])
    slopes = []
    for views in (ends.requires_grad_(), padded.requires_grad_()):
        found = info_nce(views / 0.7, views, torch.tensor(2 * histories))
        assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
        slopes.append(torch.autograd.grad(found, views)[0])
    torch.testing.assert_close(slopes[1][: 2 * histories], slopes[0], rtol=1e-12, atol=1e-14)
    assert not slopes[1][2 * histories :].any()
    if histories == 1:
        assert expected == 0
        assert not slopes[0].any()


def test_the_gradient_of_info_nce_is_that_of_its_value():
    torch.manual_seed(0)
    ends = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: info_nce(e / 0.7, e, torch.tensor(6)), ends)


def learner_of(split, weight=0.3, temperature=0.7, seed=0):
    """A small one in float64, with a token that is no longer nearly 0."""
    learner = CL4SRec(small_sasrec(split, seed), bce, weight, temperature).double()
    with torch.no_grad():
        learner.token.embedding.normal_(generator=torch.Generator().manual_seed(1))
    return learner


def one_batch(split, users=9, **settings):
    (batch,) = batches_of(split, 6, **settings).of_users(split.trained[:users], users, (0, 1))
    return batch


def test_the_loss_is_sasrecs_and_the_views_likeness_in_the_same_unit(split):
    """λ times the mean over views stands beside the mean over slots, so λ Σ used times beside their sum."""
    learner = learner_of(split).eval()
    model, token = learner.model, learner.token.embedding
    batch = one_batch(split)
    ends = []
    for view in unpacked(batch.views):  # each alone, its items looked up one by one
        rows = [token if item == split.num_items else model.item.weight[item] for item in view]
        embedded = torch.zeros(1, 6, 4).double()
        embedded[0, : len(view)] = torch.stack(rows)
        ends.append(model(in_rows([0] * len(view)), embedded)[0, len(view) - 1].detach().numpy())
    ends = np.array(ends)
    assert split.num_items in batch.views.items
    recommendation, contrast = learner(batch).tolist()
    assert recommendation == bce(model, batch)[0].item()
    expected = 0.3 * float(batch.used.sum()) * info_nce_of(ends / 0.7, ends)
    assert contrast == pytest.approx(expected, rel=1e-6)  # Σ used is of float32
    assert learner.parts == ("recommendation", "contrast")


def test_without_weight_it_is_sasrec_in_every_bit(split):
    learner = learner_of(split, weight=0.0)
    batch = bits_for(one_batch(split), learner.model)
    plain = NextItem(learner.model, bce)
    ours, theirs = learner(batch), plain(batch)
    assert torch.equal(ours[:1], theirs)
    assert ours[1] == 0
    parameters = list(learner.model.parameters())
    for a, b in zip(
        torch.autograd.grad(ours.sum(), [*parameters, learner.token.embedding]),
        torch.autograd.grad(theirs.sum(), parameters),
        strict=False,
    ):
        assert torch.equal(a, b)


def test_dropout_of_the_recommendation_is_that_of_sasrec(split):
    """The views' random numbers are others, so the first part is SASRec's whatever the weight."""
    learner = learner_of(split)
    batch = bits_for(one_batch(split), learner.model)
    assert torch.equal(learner(batch)[:1], NextItem(learner.model, bce)(batch))
    assert not torch.equal(batch.views.bits[0], batch.inputs.bits[0])
    learner.eval()
    assert not torch.equal(learner(batch)[:1], NextItem(learner.model.train(), bce)(batch))


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_neither_loss_nor_gradient(split, training):
    learner = learner_of(split).train(training)
    batch = one_batch(split)
    larger = batch.padded(len(batch.targets) + 3, 12)
    assert len(larger.views.last) == 24
    assert len(larger.views.items) == 2 * len(larger.targets)
    need_alike(learner, batch, larger)


def test_the_contrast_moves_every_weight_and_the_token(split):
    learner = learner_of(split)
    contrast = learner(bits_for(one_batch(split, shares=(0.6, 0.6, 0.6)), learner.model))[1]
    for name, parameter in learner.named_parameters():
        (gradient,) = torch.autograd.grad(contrast, parameter, retain_graph=True)
        assert gradient.any(), name


# Training


def test_the_first_step_without_weight_is_sasrecs(data_file, tmp_path):
    """Of one batch an epoch, whose negatives are then SASRec's too: equal weights, bit for bit."""
    settings = {"epochs": 1, "batch_size": 64}
    ours = train(small(data_file, method="cl4srec", contrast=0.0, **settings), tmp_path / "a", "cpu")
    theirs = train(small(data_file, **settings), tmp_path / "b", "cpu")
    a, b = (load(outcome.out / "last.pt") for outcome in (ours, theirs))
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(t, b.weights[name]) for name, t in a.weights.items())
    assert (a.extra.keys(), b.extra.keys()) == ({"token.embedding"}, set())
    assert ours.losses["recommendation"] == pytest.approx(theirs.losses["recommendation"], rel=1e-6)


def test_both_parts_are_logged_and_fall(data_file, tmp_path):
    settings = {"contrast": 0.5, "mask": 0.5, "lr": 5e-3, "dropout": 0.1, "epochs": 8}
    out = train(small(data_file, method="cl4srec", **settings), tmp_path / "run", "cpu").out
    lines = [line for line in read_log(out / "metrics.jsonl") if "loss" in line]
    for line in lines:
        assert line["losses"].keys() == {"recommendation", "contrast"}
        assert sum(line["losses"].values()) == pytest.approx(line["loss"])
    for part in ("recommendation", "contrast"):
        assert lines[-1]["losses"][part] < lines[0]["losses"][part]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"rho": 0.1, "every": 2, "perturb": "no-embedding", "loss": "ce"},
        {"rho": 0.1, "micro_batches": 2, "ascent": "micro-batch", "precision": "bf16"},
        {"rho": 0.1, "micro_batches": 2, "preset": "sasrec-bert"},
        {"crop": 0.0, "mask": 0.0, "reorder": 0.0},
        {"crop": 1.0, "mask": 1.0, "reorder": 1.0},
    ],
)
def test_settings_combine_and_the_loss_falls(data_file, tmp_path, settings):
    config = small(data_file, method="cl4srec", lr=5e-3, **{"epochs": 4, **settings})
    out = train(config, tmp_path / "run", "cpu").out
    losses = [line["loss"] for line in read_log(out / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("settings", [{}, {"rho": 0.2, "loss": "gbce", "negatives": 3}])
def test_runs_that_train_together_equal_their_solo_twins(data_file, tmp_path, double, settings):
    settings = {"data": str(data_file), "method": "cl4srec", **SMALL, "epochs": 2, **settings}
    configs = [Config(seed=seed, **settings) for seed in (0, 1)]
    together = train_together(configs, [tmp_path / "0", tmp_path / "1"], "cpu")
    for seed, config in enumerate(configs):
        alone = train(config, tmp_path / f"alone-{seed}", "cpu")
        a, b = (load(outcome.out / "last.pt") for outcome in (alone, together[seed]))
        assert a.extra.keys() == b.extra.keys() == {"token.embedding"}
        for name, tensor in (a.weights | a.extra).items():
            torch.testing.assert_close(tensor, (b.weights | b.extra)[name], rtol=1e-5, atol=1e-6, msg=name)
        for part, value in alone.losses.items():
            assert together[seed].losses[part] == pytest.approx(value, rel=1e-4)

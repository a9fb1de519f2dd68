import math
import sys
from dataclasses import replace

import pytest
import torch

from samrec import chunks, losses
from samrec.architecture import PRESETS, completed
from samrec.config import configure
from samrec.data.packing import TrainingBatches
from samrec.losses import bce, cross_entropy, fused_cross_entropy, gbce, sampled_softmax
from samrec.methods import new_model, outline
from samrec.methods.bert4rec import BERT4Rec
from samrec.methods.gru4rec import GRU4Rec
from samrec.model import Attention, Draws, Dropout, SASRec, block_mask
from tests.conftest import small_sasrec
from tests.histories import in_rows, outputs


@pytest.fixture
def model(split):
    return small_sasrec(split).eval()


def test_neighbours_in_a_row_do_not_see_one_another(model):
    sequences = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10], [2, 1]]
    together = outputs(model, in_rows(*sequences))
    for sequence, found in zip(sequences, together, strict=True):
        (alone,) = outputs(model, in_rows(sequence))
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-12)


def test_the_future_is_not_seen(model):
    (a,), (b,) = (outputs(model, in_rows([1, 2, 3, last])) for last in (4, 9))
    assert torch.equal(a[:3], b[:3])
    assert not torch.equal(a[3], b[3])


def test_the_past_is_seen(model):
    (a,), (b,) = (outputs(model, in_rows([first, 2, 3])) for first in (1, 9))
    assert not torch.equal(a[2], b[2])


def test_order_matters(model):
    (a,), (b,) = (outputs(model, in_rows(s)) for s in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(a[2], b[2])


def test_there_is_a_row_for_each_item_and_none_for_padding():
    assert SASRec(7, dim=4, heads=2).item.weight.shape == (7, 4)


def test_bce_is_the_sum_of_both_terms_over_positions(split, model):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    used = batch.inputs.segments > 0
    expected = model(batch.inputs)[used]
    positive = (expected * model.item.weight[batch.targets[used]]).sum(-1).sigmoid().log()
    negative = (1 - (expected * model.item.weight[batch.negatives[0][used]]).sum(-1).sigmoid()).log()
    total, weight = bce(model, batch)
    assert weight == int(used.sum())
    assert float(total.detach()) == pytest.approx(-float((positive + negative).sum().detach()))


def dropped(dropout, shape):
    """What dropout makes of ones, with random numbers of its own."""
    rows, *rest = shape
    draws = Draws(Draws.fresh(rows, math.prod(rest), torch.device("cpu")))
    return dropout(torch.ones(shape), draws)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    out = dropped(Dropout(p), (3, 333_335))
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=2e-3)
    assert float(out.mean()) == pytest.approx(1, abs=6e-3)
    assert out.unique().numel() == 2


def test_dropout_of_nearly_all_keeps_the_mean_of_what_is_left():
    torch.manual_seed(0)
    dropout = Dropout(1 - 2**-30)
    assert dropped(dropout, (3, 333_335)).unique().tolist() in ([0.0], [0.0, dropout.scale])


def test_dropout_draws_are_independent_between_elements():
    torch.manual_seed(0)
    mask = (dropped(Dropout(0.5), (4, 100_000)) == 0).double()
    for view in (mask, mask.view(-1, 4).T):
        assert (torch.corrcoef(view) - torch.eye(4)).abs().max() < 0.02


def test_dropout_does_nothing_without_draws_or_at_zero():
    x = torch.randn(5, 2)
    assert Dropout(0.5)(x, None) is x
    assert Dropout(0.0)(x, Draws(torch.zeros(5, 0, dtype=torch.int16))) is x


def model_of(kind, num_items, dropout=0.5):
    """A model of each kind that ranks: the Transformer's presets, and the recurrent one."""
    shape = num_items, 4, 6, 2
    if kind == "gru4rec":
        return GRU4Rec(*shape, dropout)
    if kind == "bert4rec":
        return BERT4Rec(*shape, 2, dropout)
    return SASRec(*shape, 2, dropout, PRESETS[kind])


@pytest.mark.parametrize("kind", [*PRESETS, "gru4rec", "bert4rec"])
def test_dropout_follows_the_seed_or_the_given_bits_and_is_off_in_eval_mode(kind):
    model = model_of(kind, 12)
    histories = in_rows([1, 2, 3], [4, 5])
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model(histories))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    bits = Draws.fresh(1, model.draws(6), torch.device("cpu"), torch.Generator().manual_seed(3))
    with_bits = replace(histories, bits=bits)
    given = model(with_bits)
    assert torch.equal(given, model(with_bits))
    model.eval()
    assert torch.equal(model(with_bits), model(histories))
    assert not torch.equal(model(histories), given)


@pytest.mark.parametrize("kind", [*PRESETS, "gru4rec", "bert4rec"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_pass_takes_exactly_the_draws_that_are_foretold(kind, dropout, monkeypatch):
    model = model_of(kind, 12, dropout)
    taken = []
    take = Draws.take
    monkeypatch.setattr(
        Draws, "take", lambda self, shape: taken.append(shape[1:].numel()) or take(self, shape)
    )
    model(in_rows([1, 2, 3], [4, 5], [1, 2, 3, 4]))
    assert sum(taken) == model.draws(6)
    assert bool(sum(taken)) == bool(dropout)


@pytest.mark.parametrize("kind", [*PRESETS, "gru4rec", "bert4rec"])
def test_rows_that_are_added_change_nothing_in_the_others(split, kind):
    """What lets a batch have the shape of a graph, or of other runs' batches."""
    model = model_of(kind, split.num_items).double()
    (batch,) = TrainingBatches(split, 6, torch.device("cpu"), 2).of_users(split.trained[:9], 9, (0,))
    larger = batch.padded(len(batch.targets) + 3, 12)
    assert len(larger.targets) == len(batch.targets) + 3
    assert len(larger.inputs.last) == 12
    results = []
    for each in (batch, larger):
        bits = Draws.fresh(
            len(each.targets), model.draws(6), torch.device("cpu"), torch.Generator().manual_seed(0)
        )
        total, weight = bce(model, replace(each, inputs=replace(each.inputs, bits=bits)))
        results.append((total, weight, *torch.autograd.grad(total, list(model.parameters()))))
    for alone, among in zip(*results, strict=True):
        torch.testing.assert_close(alone, among)


def norms(monkeypatch):
    """Record what each LayerNorm is given."""
    seen = []
    forward = torch.nn.LayerNorm.forward
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: seen.append(x) or forward(self, x))
    return seen


def test_presets_put_norms_where_their_papers_do(monkeypatch):
    """With layers that add nothing, the norms alone are left: what each preset says can be written down."""
    histories = in_rows([1, 2, 3])
    for preset, architecture in PRESETS.items():
        torch.manual_seed(0)
        model = SASRec(12, dim=4, max_length=6, heads=2, architecture=architecture).eval().double()
        with torch.no_grad():
            for block in model.blocks:
                for linear in (block.attention.out, block.ffn.outer):
                    linear.weight.zero_()
                    linear.bias.zero_()
        x = model.item.weight[histories.items] * (1 if preset == "sasrec-bert" else 2)  # √4
        first = 3 if architecture.positions == "end" else 0  # of three items, in six positions
        x = x + model.position.weight[first + histories.positions]
        normed = torch.nn.functional.layer_norm(x, (4,))
        again = torch.nn.functional.layer_norm(normed, (4,))
        torch.testing.assert_close(model(histories), again, rtol=1e-3, atol=1e-3)
        seen = norms(monkeypatch)
        model(histories)
        monkeypatch.undo()
        assert len(seen) == 5  # two a layer, and one of the input or of the output
        torch.testing.assert_close(seen[0], x)
    assert PRESETS["sasrec-bert"].expansion == 4


def test_positions_from_the_end_are_those_that_padding_on_the_left_gives():
    """Histories of different lengths in one row end at one position, whoever stands beside them."""
    architecture = replace(PRESETS["sasrec"], positions="end")
    model = SASRec(12, dim=4, max_length=6, heads=2, architecture=architecture).eval().double()
    shifted = SASRec(12, dim=4, max_length=6, heads=2).eval().double()
    for length in (1, 4, 6):
        shifted.load_state_dict(model.state_dict())
        with torch.no_grad():
            shifted.position.weight.copy_(model.position.weight.roll(length - 6, 0))
        together, alone = in_rows([9] * (6 - length), list(range(length))), in_rows(list(range(length)))
        found = outputs(model, together)[-1] if length < 6 else outputs(model, alone)[0]
        torch.testing.assert_close(found, outputs(shifted, alone)[0])


def test_the_original_attends_to_what_is_not_normalized():
    torch.manual_seed(0)
    attention = Attention(4, 2, 0.0).double()
    queries, context = torch.randn(2, 1, 3, 4).double()
    mask = block_mask(torch.ones(1, 3, dtype=torch.int64))
    w, b = attention.qkv.weight, attention.qkv.bias
    q = queries @ w[:4].T + b[:4]
    k, v = (context @ w[4 * i : 4 * i + 4].T + b[4 * i : 4 * i + 4] for i in (1, 2))
    heads = []
    for h in (slice(0, 2), slice(2, 4)):
        scores = q[..., h] @ k[..., h].mT / 2**0.5 + mask[0]
        heads.append(scores.softmax(-1) @ v[..., h])
    expected = torch.cat(heads, -1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(queries, context, mask, None), expected)
    torch.testing.assert_close(
        attention(context, context, mask, None), attention(context, context + 0, mask, None)
    )


@pytest.fixture
def scored(split, model):
    """A batch, and the scores of its targets and five negatives in plain arithmetic, a row a slot."""
    (batch,) = TrainingBatches(split, 6, torch.device("cpu"), 5).of_users(split.trained[:5], 8, (0,))
    used = batch.used > 0
    expected = model(batch.inputs)[used]
    scores = expected @ model.item.weight.T
    return batch, scores.gather(1, batch.targets[used][:, None]), scores.gather(1, batch.negatives[:, used].T)


def test_gbce_raises_the_targets_probability_to_beta(model, scored):
    batch, target, negatives = scored
    alpha = 5 / (model.item.num_embeddings - 1)
    for t in (0.0, 0.3, 1.0):
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)  # as the paper writes it
        log = (target.sigmoid() ** beta).log().sum() + (1 - negatives.sigmoid()).log().sum()
        total, weight = gbce(model, batch, t)
        torch.testing.assert_close(total, -log)
        assert weight == len(target)
    torch.testing.assert_close(gbce(model, batch, 0.0)[0], bce(model, batch)[0])


def test_sampled_softmax_is_unbiased_in_its_sum_and_exact_with_every_item(model, scored):
    batch, target, negatives = scored
    others = model.item.num_embeddings - 1
    total = target.exp() + negatives.exp().sum(1, keepdim=True) * others / 5
    expected = (total.log() - target).sum()
    torch.testing.assert_close(sampled_softmax(model, batch)[0], expected)

    rest = torch.arange(others)[:, None, None]
    rest = rest + (rest >= batch.targets).long()  # all items but the target, once each
    everything = replace(batch, negatives=rest)
    torch.testing.assert_close(sampled_softmax(model, everything)[0], cross_entropy(model, batch)[0])


def test_cross_entropy_is_that_of_all_scores_whatever_the_chunk(split, model, monkeypatch):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    used = batch.used > 0
    scores = model(batch.inputs)[used] @ model.item.weight.T
    expected = torch.nn.functional.cross_entropy(scores, batch.targets[used], reduction="sum")
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    for chunk, rows in ((1, 1), (100, 1), (100, 2), (2**24, 64)):
        monkeypatch.setitem(chunks.SCORES, "cpu", chunk)
        monkeypatch.setattr(losses, "KEPT", chunk)
        monkeypatch.setattr(losses, "ROWS", rows)
        for form in (cross_entropy, fused_cross_entropy):
            total, weight = form(model, batch)
            assert weight == int(used.sum())
            torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
            found = torch.autograd.grad(total, list(model.parameters()))
            torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [gbce, sampled_softmax])
@pytest.mark.parametrize("chunk", [1, 600, 2**20])
def test_a_fused_loss_of_many_negatives_is_the_plain_one(loss, chunk, split, model, monkeypatch):
    monkeypatch.setitem(chunks.SCORES, "cpu", chunk)
    batches = TrainingBatches(split, 6, torch.device("cpu"), losses.MANY)
    (batch,) = batches.of_users(split.trained[:5], 8, (0,))
    found = []
    for fused in (False, True):
        total, weight = loss(model, batch, fused=fused)
        assert weight == int((batch.used > 0).sum())
        found.append((total, *torch.autograd.grad(3 * total, list(model.parameters()), retain_graph=True)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)
    with pytest.raises(RuntimeError, match="has a first derivative only"):
        torch.autograd.grad(total, model.item.weight, create_graph=True)


def test_fused_cross_entropy_survives_scores_that_overflow(split, model):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    with torch.no_grad():
        model.norm.weight.mul_(1e4)
    plain, fused = (form(model.float(), batch)[0] for form in (cross_entropy, fused_cross_entropy))
    assert plain.isfinite()
    torch.testing.assert_close(plain, fused)


def test_fused_cross_entropy_refuses_a_second_derivative(split, model):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:5], 8, (0,))
    total, _ = fused_cross_entropy(model, batch)
    with pytest.raises(RuntimeError, match="has a first derivative only"):
        torch.autograd.grad(total, model.item.weight, create_graph=True)


@pytest.mark.parametrize("loss", [gbce, sampled_softmax])
def test_half_precision_leaves_the_scores_of_many_negatives_in_full(loss, split, model):
    batches = TrainingBatches(split, 6, torch.device("cpu"), losses.MANY)
    (batch,) = batches.of_users(split.trained[:20], 20, (0,))
    found = []
    for fused in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(loss(model.float(), batch, fused=fused)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=0)


def test_half_precision_products_give_nearly_the_same_gradient(split, model):
    (batch,) = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:20], 20, (0,))
    model = model.float()
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total, _ = fused_cross_entropy(model, batch)
        found.append((total, *torch.autograd.grad(total, list(model.parameters()))))
    for exact, half in zip(*found, strict=True):
        assert half.dtype == torch.float32
        assert float(((exact - half).norm() / exact.norm()).detach()) < 0.03


@pytest.mark.parametrize(
    ("stored", "init", "positions"),
    [
        ({"preset": "sasrec"}, "xavier", "start"),
        ({}, "xavier", "start"),
        ({"preset": "sasrec-bert"}, "normal", "start"),
        ({"preset": "sasrec-original"}, "xavier", "start"),
        ({"preset": "sasrec", "init": "normal", "positions": "end"}, "normal", "end"),
    ],
)
def test_runs_stored_before_presets_changed_keep_the_architecture_that_they_had(stored, init, positions):
    settings = completed(stored)
    assert (settings["init"], settings["positions"]) == (init, positions)
    assert completed(settings) == settings
    assert configure({"data": "d", **settings}).architecture.init == init


def test_a_preset_decides_what_is_not_given_and_settings_name_all_of_it():
    config = configure({"data": "d", "preset": "sasrec-bert", "expansion": 2})
    assert config.architecture == replace(PRESETS["sasrec-bert"], expansion=2)
    assert config.settings["norm"] == "post"
    assert configure(config.settings) == config
    assert "norm" not in configure({"data": "d", "method": "gru4rec"}).settings


@pytest.mark.parametrize("method", ["sasrec", "gru4rec", "bert4rec"])
def test_an_outline_has_the_shapes_of_a_model_and_needs_no_compiler(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    config = configure({"data": "any", "method": method, "dim": 8})
    shapes = {name: tensor.shape for name, tensor in new_model(config, 20).state_dict().items()}
    found = outline(config, 20).state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == shapes
    assert all(tensor.is_meta for tensor in found.values())

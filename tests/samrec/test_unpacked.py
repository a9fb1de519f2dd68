"""From the file to the gradient: packed batches are a loop over histories in plain torch, one by one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from samrec.architecture import PRESETS
from samrec.config import Config
from samrec.data.readers import read
from samrec.data.split import split_by
from samrec.methods import batches_of, initial_learner
from samrec.model import Draws, SASRec
from tests.histories import in_rows

CPU = torch.device("cpu")
ITEMS, LENGTH, DIM, HEADS = 40, 8, 16, 4
LOSSES = [("bce", 1), ("bce", 3), ("gbce", 2), ("gbce", 100), ("sampled", 5), ("sampled", 100), ("ce", None)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Histories with repeats, of which some are too short to train on, and some longer than the model."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([2, 3, 4, 5, 9, 14, 25], 30)
    lines = [[user, *rng.integers(1, ITEMS + 1, n)] for user, n in enumerate(lengths, start=1)]
    path = tmp_path_factory.mktemp("unpacked") / "data.txt"
    path.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    return path


FORMS = [*PRESETS.values(), replace(PRESETS["sasrec-bert"], norm="pre", scaled=True)]


def encoded(weights, items, form, dropped=lambda x: x):
    """What the encoder makes of one history, (items, d): no padding, no neighbours, a head at a time."""

    def norm(x, name):
        return F.layer_norm(x, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def attended(queries, context, name):
        q, k, v = (
            linear(x, f"{name}.qkv").split(DIM, 1)[at].split(DIM // HEADS, 1)
            for at, x in enumerate((queries, context, context))
        )
        later = torch.ones(len(items), len(items)).triu(1).bool()
        heads = []
        for a, b, c in zip(q, k, v, strict=True):
            scores = (a @ b.T / math.sqrt(DIM // HEADS)).masked_fill(later, -math.inf)
            heads.append(dropped(scores.softmax(1)) @ c)
        added = linear(torch.cat(heads, 1), f"{name}.out")
        return dropped(added) if form.residual_dropout else added

    def fed(x, name):
        inner = linear(x, f"{name}.inner")
        inner = F.gelu(inner) if form.activation == "gelu" else F.relu(inner)
        return dropped(linear(inner if form.residual_dropout else dropped(inner), f"{name}.outer"))

    first = LENGTH - len(items) if form.positions == "end" else 0
    x = weights["item.weight"][items] * (math.sqrt(DIM) if form.scaled else 1)
    x = x + weights["position.weight"][first : first + len(items)]
    x = dropped(norm(x, "norm") if form.norm == "post" else x)
    for block in ("blocks.0", "blocks.1"):
        attention, ffn = f"{block}.attention", f"{block}.ffn"
        if form.norm == "post":
            x = norm(x + attended(x, x, attention), f"{attention}_norm")
            x = norm(x + fed(x, ffn), f"{ffn}_norm")
        elif form.norm == "pre":
            normed = norm(x, f"{attention}_norm")
            x = x + attended(normed, normed, attention)
            x = x + fed(norm(x, f"{ffn}_norm"), ffn)
        else:
            normed = norm(x, f"{attention}_norm")
            x = norm(normed + attended(normed, x, attention), f"{ffn}_norm")
            x = x + fed(x, ffn)
    return x if form.norm == "post" else norm(x, "norm")


def cost(config, expected, table, target, negatives):
    """The loss of one position, as its paper writes it."""
    right, count = expected @ table[target], len(negatives)
    if config.loss == "ce":
        return -(right - torch.logsumexp(table @ expected, 0))
    wrong = table[negatives] @ expected
    if config.loss == "sampled":
        others = (len(table) - 1) / count * wrong.exp().sum()
        return -(right.exp() / (right.exp() + others)).log()
    rate = count / (len(table) - 1)
    beta = rate * (config.calibration * (1 - 1 / rate) + 1 / rate) if config.loss == "gbce" else 1
    return -beta * F.logsigmoid(right) - F.logsigmoid(-wrong).sum()


@pytest.mark.parametrize(("loss", "negatives"), LOSSES)
@pytest.mark.parametrize("form", FORMS)
def test_an_epoch_is_a_loop_over_histories(file, loss, negatives, form):
    config = Config(
        **{"data": str(file), "loss": loss, "negatives": negatives, **vars(form)},
        **{"dim": DIM, "max_length": LENGTH, "heads": HEADS, "dropout": 0, "batch_size": 8},
        **{"noise": 0.2, "train_fraction": 0.7, "seed": 3},
    )
    with pytest.warns(UserWarning, match="fewer than three items"):
        whole = split_by(config.split, read(file))
    split = whole.fraction(config.train_fraction, config.seed).noisy(config.noise, config.seed)
    learner = initial_learner(config, split, fused=True).double().train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    weights = {name: p.detach().clone().requires_grad_() for name, p in learner.model.named_parameters()}
    table, data = weights["item.weight"], split.interactions
    total, positions = torch.zeros(()), 0
    order = np.random.default_rng((config.seed, 1)).permutation(split.trained)
    for number, batch in enumerate(batches_of(config, split, CPU).epoch(8, (config.seed, 1))):
        learner(batch).sum().backward()
        for history, user in enumerate(order[8 * number : 8 * number + 8], start=1):
            own = split.train_items[data.offsets[user] :][: split.train_lengths[user]]
            slots = (batch.inputs.segments.flatten() == history).nonzero().squeeze(1)
            drawn = batch.negatives.flatten(1)[:, slots].T
            assert not np.isin(drawn.numpy(), own).any()
            *items, last = own[-LENGTH - 1 :].tolist()
            expected = encoded(weights, items, form)
            for x, target, others in zip(expected, [*items[1:], last], drawn, strict=True):
                total = total + cost(config, x, table, target, others)
                positions += 1
    total.backward()
    assert positions == sum(np.minimum(split.train_lengths[split.trained] - 1, LENGTH))
    for name, p in learner.model.named_parameters():
        torch.testing.assert_close(p.grad, weights[name].grad, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_dropout_is_of_the_input_of_attentions_weights_and_of_what_layers_add(form):
    """Each by numbers of its own, in their order: of 2^16, those below p drop, and the rest is scaled up."""
    torch.manual_seed(0)
    model = SASRec(ITEMS, DIM, LENGTH, 2, HEADS, 0.4, form).double().train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    bits = Draws.fresh(1, model.draws(LENGTH), CPU)
    dealt, below = iter(bits[0].tolist()), round(0.4 * 2**16)

    def dropped(x):
        kept = [next(dealt) + 2**15 >= below for _ in range(x.numel())]
        return x * torch.tensor(kept).view_as(x) / (1 - below / 2**16)

    history = torch.randint(ITEMS, (LENGTH,)).tolist()
    found = model(replace(in_rows(history, width=LENGTH), bits=bits))[0]
    torch.testing.assert_close(
        found, encoded(model.state_dict(), history, form, dropped), rtol=1e-10, atol=1e-12
    )
    assert len(list(dealt)) < 4  # what is left of a word

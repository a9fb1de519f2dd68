"""What holds of every method: no look ahead, one frozen loss to compare by, whole checkpoints."""

import json
import os
import signal
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

import landscape as ll
from landscape import InputError
from landscape.errors import Stopped
from landscape.tasks import TaskOptions, objectives_of
from samrec.checkpoint import load, save
from samrec.concerns import METHODS_OF
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import evaluate, metrics
from samrec.losses import bce
from samrec.methods import batches_of, initial_learner
from samrec.methods.cl4srec import Augmentation
from samrec.methods.gru4rec import GRU4Rec
from samrec.methods.learner import NextItem, joined
from samrec.methods.s3rec import Weights
from samrec.model import Draws, SASRec
from samrec.task import objective, ranking
from samrec.training.engines.solo import with_bits
from samrec.training.loop import train
from tests.histories import in_rows
from tests.samrec.training.test_training import at_step, same_weights, small

CPU = torch.device("cpu")
METHODS = {
    "sasrec": {},
    "samrec": {"method": "samrec"},
    "cl4srec": {"method": "cl4srec"},
    "cl4srec-sam": {"method": "cl4srec", "rho": 0.1},
    "s3rec": {"method": "s3rec", "pretrain_epochs": 1},
    "gru4rec": {"method": "gru4rec"},
    "bert4rec": {"method": "bert4rec", "rho": 0.05},
    "noise": {"noise": 0.2},
    "share": {"train_fraction": 0.5, "method": "cl4srec"},
}
TRANSFORMERS = ["sasrec", "samrec", "cl4srec", "cl4srec-sam", "s3rec"]
OPTIONS = TaskOptions(users=40, device="cpu")


@pytest.fixture(scope="module")
def configs(data_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("attributes") / "attributes.json"
    path.write_text(json.dumps({item: [item % 3] for item in range(1, 31)}))
    beside = {"s3rec": {"attributes": str(path)}}
    common = {"epochs": 2, "lr": 5e-3}
    return {
        name: small(data_file, **common, **settings, **beside.get(name, {}))
        for name, settings in METHODS.items()
    }


@pytest.fixture(scope="module")
def trained(configs, tmp_path_factory):
    """A run of each method: its folder, by name."""
    folder = tmp_path_factory.mktemp("methods")
    return {name: train(config, folder / name, "cpu").out for name, config in configs.items()}


every = pytest.mark.parametrize("name", METHODS)
ONE_SIDED = [name for name in METHODS if name != "bert4rec"]  # that sees both sides of a masked item
from_behind = pytest.mark.parametrize("name", ONE_SIDED)


# Settings


def test_settings_reach_what_they_are_of_and_begin_as_documented(split):
    """CL4SRec: λ 0.02, T √d, views of 0.6, 0.3, 0.6. S3Rec: a fifth hidden, weights of the authors."""
    given = {"crop": 0.1, "mask": 0.2, "reorder": 0.4, "contrast": 0.5, "temperature": 0.7}
    for settings, operators, weight, temperature in (
        ({}, (0.6, 0.3, 0.6), 0.02, 8.0),
        (given, (0.1, 0.2, 0.4), 0.5, 0.7),
    ):
        config = Config(data="", method="cl4srec", **settings)
        assert batches_of(config, split, CPU).augmentation == Augmentation(*operators)
        learner = initial_learner(config, split)
        assert (learner.weight, learner.temperature) == (weight, temperature)
    given = {"associated_attribute": 0.1, "masked_item": 0.3, "masked_attribute": 0.4, "segment": 0.6}
    for settings, mask, weights in (
        ({}, 0.2, (0.2, 1.0, 1.0, 0.5)),
        (given | {"mask": 0.7}, 0.7, (0.1, 0.3, 0.4, 0.6)),
    ):
        config = Config(data="", method="s3rec", **settings).pretraining
        assert batches_of(config, split, CPU).mask == mask
        assert initial_learner(config, split).weights == Weights(*weights)


@pytest.mark.parametrize("name", ["samrec", "cl4srec", "s3rec"])
def test_what_a_method_learns_beside_it_leaves_the_first_weights_alone(configs, split, name):
    """One seed is one recommender, so that methods differ in what they learn alone."""
    first, other = (initial_learner(configs[key], split).model.state_dict() for key in ("sasrec", name))
    assert first.keys() == other.keys()
    assert all(torch.equal(t, other[key]) for key, t in first.items())


# What a model sees


@from_behind
@pytest.mark.parametrize("training", [False, True])
def test_no_slot_sees_its_future_or_a_neighbour(trained, name, training):
    """Each item of a full row is changed in turn: its own slot moves, and the later ones of its history."""
    model = load(trained[name] / "best.pt").model().train(training)
    histories = in_rows([1, 2, 3], [4, 5], [6, 7, 8], width=8)
    bits = Draws.fresh(1, model.draws(8), CPU, torch.Generator().manual_seed(0))
    (before,) = model(replace(histories, bits=bits))
    segments, positions = histories.segments[0], histories.positions[0]
    for slot in range(8):
        items = histories.items + 10 * (torch.arange(8) == slot)
        (after,) = model(replace(histories, items=items, bits=bits))
        moved = torch.tensor([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        sees = (segments == segments[slot]) & (positions >= positions[slot])
        assert not moved[~sees].any()
        assert training or moved[sees].all()  # dropout may hide it


@from_behind
def test_the_loss_of_a_slot_depends_on_nothing_later(configs, split, name):
    """As the trainer computes it, dropout and all."""
    config = configs[name]
    learner = initial_learner(config, split).double()
    users = split.trained[:6]
    (batch,) = batches_of(config, split, CPU).of_users(users, len(users), (0, 1))
    batch = with_bits(batch, learner.model, torch.Generator(), count(3))

    def by_slot(batch):
        used = batch.used.clone().requires_grad_()
        (costs,) = torch.autograd.grad(learner(replace(batch, used=used))[0], used)
        return costs

    before = by_slot(batch)
    assert torch.equal(before > 0, torch.ones_like(before) > 0)
    last = batch.inputs.last
    items = batch.inputs.items.flatten()
    items[last] = (items[last] + 1) % split.num_items
    changed = replace(batch, inputs=replace(batch.inputs, items=items.view_as(batch.inputs.items)))
    moved = (by_slot(changed) != before).flatten().nonzero().flatten()
    assert moved.tolist() == sorted(last.tolist())


# Checkpoints


@every
def test_a_checkpoint_is_the_model_and_what_its_method_learned_beside(
    configs, trained, data_file, name, tmp_path
):
    last, best = (load(trained[name] / file) for file in ("last.pt", "best.pt"))
    assert last.config == best.config == configs[name]
    model = best.model()
    assert isinstance(model, GRU4Rec if name == "gru4rec" else SASRec)
    assert all(torch.equal(t, best.weights[key]) for key, t in model.state_dict().items())
    assert best.weights.keys() == dict(model.named_parameters()).keys()
    split = leave_one_out(read(data_file))
    assert evaluate(model, split, "valid") == best.valid
    assert set(best.extra) == ({"token.embedding"} if last.config.method == "cl4srec" else set())
    learner = initial_learner(last.config, split)
    learner.load_state_dict(joined(last.weights, last.extra))  # all that it has, and nothing else
    save(last, tmp_path / "copy.pt")
    again = load(tmp_path / "copy.pt")
    assert again.config == last.config
    assert same_weights(again, last)
    assert all(torch.equal(t, again.extra[key]) for key, t in last.extra.items())


@every
def test_a_checkpoint_ranks_clean_histories_of_everyone(trained, name):
    lines = [json.loads(line) for line in (trained[name] / "metrics.jsonl").read_text("utf-8").splitlines()]
    found = ranking(trained[name] / "best.pt", "test", device="cpu")
    assert metrics(found.ranks) == lines[-1]["test"]
    assert len(found.ranks) == 60


@pytest.mark.parametrize("name", ["cl4srec-sam", "gru4rec", "bert4rec", "noise", "share"])
def test_a_stopped_run_goes_on_bit_for_bit(configs, trained, tmp_path, monkeypatch, name):
    steps = 2 if name == "share" else 4
    at_step(steps + 1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped, match=f"in epoch 2, after step 1 of {steps}"):
        train(configs[name], tmp_path / "run", "cpu")
    monkeypatch.undo()
    train(configs[name], tmp_path / "run", "cpu", resume=True)
    for file in ("last.pt", "best.pt"):
        a, b = load(trained[name] / file), load(tmp_path / "run" / file)
        assert same_weights(a, b)
        assert all(torch.equal(t, b.extra[key]) for key, t in a.extra.items())
        assert (a.epoch, a.best, a.valid) == (b.epoch, b.best, b.valid)


# Landscapes


def paths_of(trained):
    return {name: out / "best.pt" for name, out in trained.items()} | {
        "pretraining": trained["s3rec"] / "pretraining" / "last.pt"
    }


@pytest.mark.parametrize("name", [*ONE_SIDED, "pretraining"])
def test_the_landscape_is_of_the_recommendation_loss(trained, data_file, name):
    """Of dropout-free weights on frozen batches: users that are trained on, with the noise of training."""
    path = paths_of(trained)[name]
    checkpoint = load(path)
    config = checkpoint.config
    frozen = objective(path, TaskOptions(users=None, seed=3, device="cpu"))
    split = leave_one_out(read(data_file))
    split = split.fraction(config.train_fraction, config.seed).noisy(config.noise, config.seed)
    users = np.random.default_rng(3).permutation(split.trained)
    batches = list(TrainingBatches(split, config.max_length, CPU).of_users(users, 256, (3,)))
    learner = NextItem(checkpoint.model().eval(), bce)
    with torch.no_grad():
        total = sum(float(learner(batch)) for batch in batches)
    assert frozen.value() == pytest.approx(
        total / sum(float(batch.used.sum()) for batch in batches), rel=1e-6
    )
    weights = frozen.params.split(frozen.theta)
    assert list(weights) == list(checkpoint.weights)
    assert all(torch.equal(t, checkpoint.weights[key]) for key, t in weights.items())


def test_minima_of_all_methods_are_of_one_loss_over_the_same_parameters(trained):
    paths = paths_of(trained)
    same = objectives_of([paths[name] for name in (*TRANSFORMERS, "pretraining", "gru4rec")], OPTIONS)
    first, *others = same[:-1]
    for other in others:
        assert other.params.entries == first.params.entries
        assert not torch.equal(other.theta, first.theta)
    assert {each.provenance["loss"] for each in same} == {"bce"}
    for name in ("noise", "share", "bert4rec"):
        with pytest.raises(InputError, match=r"different (batches|losses)"):
            objectives_of([paths["sasrec"], paths[name]], OPTIONS)


@pytest.fixture
def ckpts(trained):
    return lambda *names: [o for name in names for o in ("--ckpt", paths_of(trained)[name])]


COMPARED = ("sasrec", "cl4srec", "s3rec")
FEW = ("--users", 20, "--device", "cpu")


def test_surfaces_of_several_methods_are_on_one_scale(answer, ckpts, tmp_path):
    found = answer("surface", *ckpts(*COMPARED), "--grid", 3, "--out", tmp_path / "random", *FEW)
    assert [ll.load(entry["file"]).losses.shape for entry in found["checkpoints"]] == [(3, 3)] * 3
    line = ("--dim", 1, "--directions", "between", "--grid", 3)
    found = answer("surface", *ckpts("s3rec", "sasrec"), *line, "--out", tmp_path / "between", *FEW)
    assert found["checkpoints"]


@pytest.mark.slow
def test_curvature_and_sharpness_of_every_kind_of_model(answer, ckpts, tmp_path):
    four = ckpts(*COMPARED, "gru4rec")
    found = answer("hessian", *four, "--top", 1, "--trace", "--tol", 0.1, "--out", tmp_path, *FEW)
    assert [entry["eigenvalues"][0] > 0 for entry in found["checkpoints"]] == [True] * 4
    assert [entry["converged"] for entry in found["checkpoints"]] == [[True]] * 4
    found = answer("sharpness", *four, "--measure", "sam", "--measure", "average", *FEW)
    for entry in found["checkpoints"]:
        assert entry["measures"]["sam"]["value"] > 0
    for ratio in found["comparison"]["rows"]:
        assert ratio["checkpoints"].keys() == {*COMPARED, "gru4rec"}


def test_a_landscape_of_masked_items_stands_by_itself(answer, ckpts, tmp_path):
    own = ckpts("bert4rec")
    found = answer("surface", *own, "--grid", 3, "--out", tmp_path / "surface", *FEW)
    assert ll.load(found["checkpoints"][0]["file"]).losses.shape == (3, 3)
    (entry,) = answer("hessian", *own, "--top", 1, "--tol", 0.1, *FEW)["checkpoints"]
    assert entry["converged"] == [True]
    (entry,) = answer("sharpness", *own, "--measure", "sam", *FEW)["checkpoints"]
    assert entry["measures"]["sam"]["value"] > 0


@pytest.mark.slow
def test_one_report_of_several_methods(answer, ckpts, few_measures, tmp_path):
    found = answer("compare", *ckpts(*COMPARED), "--grid", 2, "--top", 1, "--out", tmp_path / "out", *FEW)
    assert [entry["name"] for entry in found["checkpoints"]] == list(COMPARED)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert all(name in text for name in COMPARED)


def test_a_line_between_other_kinds_of_model_is_refused(landscape, ckpts, tmp_path):
    line = ("--dim", 1, "--directions", "between", "--out", tmp_path / "out", *FEW)
    code, out, err = landscape("surface", *ckpts("sasrec", "gru4rec"), *line)
    assert (code, out, err.count("\n")) == (2, "", 1), err


def test_a_run_keeps_the_settings_of_its_method_alone(trained):
    """What another method's default is may change; old files then still load."""
    for name, out in trained.items():
        content = torch.load(out / "last.pt", weights_only=True)
        written = (out / "config.toml").read_text("utf-8")
        for setting, methods in METHODS_OF.items():
            has = content["config"]["method"] in methods
            assert (setting in content["config"]) == has, (name, setting)
            assert has or f"\n{setting} =" not in written

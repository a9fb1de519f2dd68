"""Item features: sums of embeddings, which every method has and every checkpoint keeps."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError
from landscape.errors import Stopped
from landscape.tasks import TaskOptions
from samrec import recommend
from samrec.checkpoint import load, save
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import candidates, count_above, metrics, ranks
from samrec.features import FeaturedEmbedding, read_features
from samrec.losses import LOSSES, bce, cross_entropy, fused_cross_entropy
from samrec.methods import batches_of, initial_learner, initial_model
from samrec.scorer import Scorer
from samrec.task import Recommendation, objective, ranking
from samrec.training.loop import train, train_together
from tests.samrec.training.test_training import at_step, same_weights, small

CPU = torch.device("cpu")
METHODS = ("sasrec", "cl4srec", "s3rec-pretraining", "gru4rec", "bert4rec")


def attributes(num_items=30, most=3):
    """Up to three of five attributes each; every fourth item has none."""
    of_item = torch.full((num_items, most), -1)
    for item in range(num_items):
        for place in range(item % (most + 1)):
            of_item[item, place] = (item + 2 * place) % 5
    return of_item


@pytest.fixture
def table():
    torch.manual_seed(0)
    return FeaturedEmbedding(nn.Embedding(30, 4), attributes()).double()


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.json"
    known = {str(n + 1): [10 * a for a in own if a >= 0] for n, own in enumerate(attributes().tolist())}
    path.write_text(json.dumps(known))
    return path


# Sums


def test_a_row_is_the_item_s_own_plus_those_of_its_attributes(table):
    """As a product with the matrix of who has what."""
    has = torch.zeros(30, 5, dtype=torch.float64)
    for item, own in enumerate(attributes().tolist()):
        has[item, [a for a in own if a >= 0]] = 1
    expected = table.own.weight + has @ table.features.weight
    torch.testing.assert_close(table.weight, expected, rtol=1e-14, atol=1e-14)
    without = has.sum(1) == 0
    assert without.sum() == 8
    assert torch.equal(table.weight[without], table.own.weight[without])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_looked_up_is_that_of_the_whole_table_bit_for_bit(table, dtype):
    table = table.to(dtype)
    items = torch.randint(30, (4, 3, 7))
    assert torch.equal(table(items), table.weight[items])
    assert torch.equal(torch.stack([table(torch.tensor(i)) for i in range(30)]), table.weight)


@pytest.mark.parametrize("method", METHODS)
def test_features_of_zero_are_the_plain_model_bit_for_bit(split, method):
    """In training, loss and gradients too."""
    config = Config(data="", method=method, dim=4, max_length=6)
    learners = [initial_learner(config, split) for _ in range(2)]
    plain, featured = learners
    featured.model.item = FeaturedEmbedding(featured.model.item, attributes(split.num_items))
    nn.init.zeros_(featured.model.item.features.weight)
    (batch,) = batches_of(config, split, CPU).of_users(split.trained[:9], 9, (0,))
    found = []
    for learner in learners:
        torch.manual_seed(0)
        parts = learner(batch)
        parts.sum().backward()
        item = learner.model.item
        found.append((parts, (item.own if learner is featured else item).weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)  # scattered in other orders
    model = plain.model.eval(), featured.model.eval()
    assert np.array_equal(ranks(model[0], split, "test"), ranks(model[1], split, "test"))
    histories = torch.randint(30, (3, 6)), torch.tensor([1, 6, 3])
    assert torch.equal(Scorer(model[0])(*histories), Scorer(model[1])(*histories))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_by_a_feature_is_the_sum_of_those_by_its_items(split, loss):
    config = Config(data="", dim=4, max_length=6)
    plain = initial_model(config, split.num_items).double()
    featured = initial_model(config, split.num_items, attributes(split.num_items)).double()
    with torch.no_grad():
        plain.item.weight.copy_(featured.item.weight)
    batches = TrainingBatches(split, 6, CPU, 0 if loss == "ce" else 2)
    (batch,) = batches.of_users(split.trained[:9], 9, (0,))
    for model in (plain.eval(), featured.eval()):
        LOSSES[loss](model, batch)[0].backward()
    gradient = plain.item.weight.grad
    torch.testing.assert_close(featured.item.own.weight.grad, gradient)
    expected = torch.zeros(6, 4, dtype=torch.float64)
    for place in attributes(split.num_items).unbind(1):
        expected.index_add_(0, place % 6, gradient)  # what is -1, no attribute, goes to the last row
    torch.testing.assert_close(featured.item.features.weight.grad, expected[:5])
    if loss == "ce":
        featured.zero_grad()
        fused_cross_entropy(featured, batch)[0].backward()
        torch.testing.assert_close(featured.item.features.weight.grad, expected[:5])


def test_equal_items_tie_exactly(split):
    """A held-out item counts all that have its attributes and its own vector against it."""
    model = initial_model(Config(data="", dim=64, max_length=6), split.num_items, attributes(30)).eval()
    with torch.no_grad():
        model.item.own.weight[1:] = model.item.own.weight[0]
        model.item.of_item[:] = model.item.of_item[3]
    (batch,) = candidates(split, "test", 6, CPU)
    seen = torch.bincount(batch.seen[0], minlength=len(batch.targets))
    distinct = [len(set(batch.seen[1][batch.seen[0] == k].tolist())) for k in range(len(seen))]
    with torch.no_grad():
        counts = count_above(model, batch)
    assert counts.tolist() == [29.0 - own for own in distinct]


# Measurements


def test_the_hessian_includes_features_and_is_that_of_differences(split):
    torch.manual_seed(0)
    model = initial_model(Config(data="", dim=4, max_length=6, layers=1), 30, attributes(30)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    batches = list(TrainingBatches(split, 6, CPU).of_users(split.trained[:20], 7, (0,)))
    for loss in (bce, cross_entropy):
        frozen = ll.Objective(model, batches, loss)
        assert "item.features.weight" in frozen.params.split(frozen.theta)
        along = {name: torch.zeros_like(t) for name, t in frozen.params.split(frozen.theta).items()}
        along["item.features.weight"] += 1
        vector = torch.cat([t.flatten() for t in along.values()])
        ahead, behind = (frozen.grad(frozen.theta + step * vector) for step in (1e-5, -1e-5))
        for way in ("reverse", "forward"):
            found = ll.hessian(frozen, way)(vector)
            assert found.abs().max() > 1e-3
            torch.testing.assert_close(found, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-8)


# Files


def test_unknown_items_are_counted_and_a_file_of_none_is_refused(split, tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"1": [5], "30": [7], "x": [5], "3000": [9]}))
    with pytest.warns(UserWarning, match=r"f\.json: 2 of its items are not in .*; their attributes are not"):
        found = read_features(path, split.interactions)
    names = split.interactions.item_ids.tolist()
    assert found[names.index(1)].tolist() == [0]
    assert found[names.index(30)].tolist() == [1]
    assert (found >= 0).sum() == 2
    path.write_text(json.dumps({"x": [5]}))
    with pytest.raises(InputError, match="has no attributes of any item of"):
        read_features(path, split.interactions)


def test_a_pre_training_counts_items_that_it_does_not_know_too(data_file, split, tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"1": [5], "30": [7], "3000": [9]}))
    with pytest.warns(UserWarning, match=r"f\.json: 1 of its items are not in .*; their attributes are not"):
        initial_learner(small(data_file, method="s3rec-pretraining", attributes=str(path)), split)


@pytest.fixture(scope="session")
def config(data_file, file):
    return small(data_file, epochs=2, lr=5e-3, item_features=str(file), loss="ce")


@pytest.fixture(scope="session")
def run(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("featured") / "run", "cpu")


def test_a_checkpoint_needs_no_file_of_attributes(run, config, file, tmp_path):
    """To rank, recommend, measure and begin: from best.pt, and from its safetensors beside it."""
    gone = str(tmp_path / "gone.json")
    loaded = load(run.out / "best.pt")
    moved = replace(loaded, config=config.model_copy(update={"item_features": gone}))
    save(moved, tmp_path / "best.pt")
    assert metrics(ranking(tmp_path / "best.pt", "test", device="cpu").ranks) == run.test
    model = load(run.out / "best.safetensors").model()
    for source in (loaded.model(), load(tmp_path / "best.pt").model()):
        assert torch.equal(source.item.weight, model.item.weight)
    assert torch.equal(model.item.of_item, read_features(file, read(Path(config.data))))
    found = recommend(tmp_path / "best.pt", histories=[[3, 4]], top=3)
    scores = Scorer(model)(torch.tensor([[2, 3, *[0] * 6]]), torch.tensor([2]))[0]
    assert found.items.tolist() == (scores.topk(3).indices + 1).tolist()
    frozen = objective(tmp_path / "best.pt", TaskOptions(users=None, device="cpu"))
    assert frozen.value() == objective(run.out / "best.pt", TaskOptions(users=None, device="cpu")).value()
    names = list(frozen.params.split(frozen.theta))
    task = Recommendation()
    for weights in (task.theta(tmp_path / "best.pt"), task.initial(tmp_path / "best.pt")):
        assert list(weights) == names
    first = initial_learner(config, leave_one_out(read(Path(config.data)))).model
    assert torch.equal(task.initial(tmp_path / "best.pt")["item.features.weight"], first.item.features.weight)


@pytest.mark.slow
def test_what_is_exported_is_the_sums(run, answer, tmp_path):
    import polars as pl

    answer("export", run.out / "best.pt", tmp_path / "items.parquet")
    model = load(run.out / "best.pt").model()
    table = torch.tensor(pl.read_parquet(tmp_path / "items.parquet")["embedding"].to_list())
    assert torch.equal(table, model.item.weight)
    answer("export", run.out / "best.pt", tmp_path / "scorer.pt2")
    program = torch.export.load(tmp_path / "scorer.pt2").module()
    histories = torch.randint(30, (5, 8)), torch.tensor([1, 2, 8, 4, 5])
    torch.testing.assert_close(program(*histories), Scorer(model)(*histories), rtol=0, atol=1e-6)


def test_a_stopped_run_goes_on_bit_for_bit_with_its_own_features_alone(
    run, config, file, tmp_path, monkeypatch
):
    at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", "cpu")
    monkeypatch.undo()
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"1": [1], "2": [2]}))
    for given, message in ((None, "other item features"), (str(other), "other item features")):
        changed = config.model_copy(update={"item_features": given})
        with pytest.raises(InputError, match=message) as caught:
            train(changed, tmp_path / "run", "cpu", resume=True)
        assert "\n" not in str(caught.value)
    copy = tmp_path / "copy.json"
    copy.write_bytes(file.read_bytes())
    moved = config.model_copy(update={"item_features": str(copy)})
    train(moved, tmp_path / "run", "cpu", resume=True)
    assert same_weights(load(tmp_path / "run" / "last.pt"), load(run.out / "last.pt"))


def test_runs_that_train_as_one_agree_with_a_run_alone(run, config, tmp_path):
    configs = [config, config.model_copy(update={"seed": 1})]
    train_together(configs, [tmp_path / "a", tmp_path / "b"], "cpu")
    alone, together = load(run.out / "last.pt"), load(tmp_path / "a" / "last.pt")
    assert list(alone.weights) == list(together.weights)
    for name, weight in alone.weights.items():
        torch.testing.assert_close(together.weights[name], weight, rtol=1e-3, atol=1e-4)
    train_together(
        [c.model_copy(update={"epochs": 4}) for c in configs], [tmp_path / "a", tmp_path / "b"], "cpu", True
    )
    assert load(tmp_path / "a" / "last.pt").epoch == 4


def test_a_pre_training_has_the_features_of_what_goes_on_from_it(data_file, file, tmp_path):
    settings = {"attributes": str(file), "pretrain_epochs": 1, "epochs": 2}
    config = small(data_file, method="s3rec", item_features=str(file), **settings)
    out = train(config, tmp_path / "run", "cpu").out
    before = load(out / "pretraining" / "last.pt")
    assert before.config.item_features == str(file)
    first = initial_model(before.config, 30, before.weights["item.of_item"])
    assert not torch.equal(before.weights["item.features.weight"], first.item.features.weight)
    plain = config.model_copy(
        update={"item_features": None, "pretrained": str(out / "pretraining" / "last.pt")}
    )
    with pytest.raises(InputError, match="with other item features"):
        train(plain, tmp_path / "plain", "cpu")


def test_ranks_cannot_share_the_rows_of_a_table_with_features(config, tmp_path):
    with pytest.raises(InputError, match="with item features, each rank needs all items"):
        train(config, tmp_path / "run", "cpu", shard_items=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damaged",
    [
        torch.full((30, 3), -1),
        torch.zeros(29, 3, dtype=torch.int64),
        torch.zeros(30, dtype=torch.int64),
        torch.zeros(30, 3),
        torch.zeros(30, 0, dtype=torch.int64),
        torch.tensor([-2, 4, 0]).repeat(30, 1),
        torch.full((30, 3), 2**62),
        torch.full((30, 3), 9),
    ],
)
def test_damaged_features_are_refused_in_one_line(run, tmp_path, damaged):
    loaded = load(run.out / "best.pt")
    save(replace(loaded, weights=loaded.weights | {"item.of_item": damaged}), tmp_path / "bad.pt")
    for act in (lambda: load(tmp_path / "bad.pt").model(), lambda: recommend(tmp_path / "bad.pt", top=2)):
        with pytest.raises(InputError, match=r"the checkpoint's (item features|weights|settings)") as caught:
            act()
        assert "\n" not in str(caught.value)

"""A frozen objective of a checkpoint holds the right items, at the right slots, of the right users."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import metrics
from samrec.task import objective, ranking
from samrec.training import loop
from samrec.training.engines.solo import Solo
from tests.samrec.training.test_training import small

ALL = {"users": None, "device": "cpu"}


@pytest.fixture(scope="module")
def best(data_file, tmp_path_factory):
    return loop.train(small(data_file), tmp_path_factory.mktemp("task") / "run", "cpu").out / "best.pt"


@pytest.mark.parametrize("metric", ["hr@10", "ndcg@5", "mrr"])
def test_a_ranking_metric_is_of_the_test_items(best, metric):
    frozen = objective(best, TaskOptions(**ALL, metric=metric))
    found = {part: metrics(ranking(best, part).ranks)[metric] for part in ("valid", "test")}
    assert found["valid"] != found["test"]
    assert frozen.value() == pytest.approx(found["test"], rel=1e-6)


def test_a_ranking_metric_that_is_the_same_at_all_weights_is_measured(tmp_path):
    """Who has had every other item is asked for the only one that is left."""
    data = tmp_path / "few.txt"
    data.write_text("1 1 2 1 2\n2 2 2 1\n3 1 1 2 2 1\n")
    best = loop.train(small(data, epochs=2), tmp_path / "run", "cpu").out / "best.pt"
    assert ranking(best, "test").ranks.tolist() == [0, 0, 0]
    assert objective(best, TaskOptions(**ALL, metric="ndcg@10")).value() == 1


def test_the_validation_loss_is_of_each_users_held_out_item_alone(best):
    """One user at a time, by hand: BCE of the item before last, given those before it."""
    checkpoint = load(best)
    model = checkpoint.model().double().eval()
    split = leave_one_out(read(Path(checkpoint.config.data)))
    frozen = objective(best, TaskOptions(**ALL, metric="valid-loss"))
    assert frozen.weight == len(split.evaluated("test"))
    sums = frozen.per_example()[0]
    costs = []
    for batch in frozen.batches:
        inputs = batch.inputs
        with torch.no_grad():
            output = model(inputs).flatten(0, 1)[inputs.last]
            table = model.item.weight
            target, negative = (t.flatten()[inputs.last] for t in (batch.targets, batch.negatives[0]))
            right, wrong = ((output * table[items]).sum(-1) for items in (target, negative))
            costs.append(F.softplus(-right) + F.softplus(wrong))
    np.testing.assert_allclose(sums, torch.cat(costs).numpy(), rtol=1e-5)
    held_out = split.history("valid")[2]
    targets = torch.cat([b.targets.flatten()[b.inputs.last] for b in frozen.batches])
    assert sorted(targets.tolist()) == sorted(held_out.tolist())


def test_each_step_of_a_training_drops_by_numbers_of_its_own(data_file, tmp_path, monkeypatch):
    """The same masks in every step of an epoch would pass every test of seeds and of resuming."""
    seeds, step = [], Solo.step

    def noted(self, batches, given, *rest):
        seeds.extend(given)
        return step(self, batches, given, *rest)

    monkeypatch.setattr(Solo, "step", noted)
    loop.train(small(data_file, epochs=3), tmp_path / "run", "cpu")
    assert len(seeds) == len(set(seeds)) > 6

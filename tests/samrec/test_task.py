"""What samrec's task tells of a checkpoint beside its loss."""

from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from landscape import InputError
from landscape.tasks import (
    TaskOptions,
    differences_of,
    facts_of,
    initial_of,
    joined,
    objective_of,
    theta_of,
    trajectory_of,
)
from samrec.checkpoint import load
from samrec.choices import METRICS
from samrec.config import Config
from samrec.facts import curves, known_rankers
from samrec.task import initial_weights, task
from samrec.training.log import read_log
from samrec.training.loop import train

OPTIONS = TaskOptions(device="cpu", seed=3)


@pytest.fixture(scope="module")
def run(data_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("task") / "run"
    small = {"dim": 8, "max_length": 8, "epochs": 2, "eval_every": 1, "batch_size": 16, "save_every": 1}
    return train(Config(data=str(data_file), **small), out, "cpu").out


def test_the_entry_point_is_the_task():
    (point,) = entry_points(group="landscape.tasks", name="samrec")
    assert point.load() is task


@pytest.mark.parametrize("excluded", [(), ("item*",)])
def test_theta_is_that_of_the_objective(run, excluded):
    options = TaskOptions(device="cpu", exclude=excluded)
    objective = objective_of(run / "last.pt", options)
    assert torch.equal(theta_of(run / "last.pt", objective, options), objective.theta)
    way = trajectory_of(run / "last.pt")
    assert [path.stem for path in way] == ["epoch-0000", "epoch-0001", "epoch-0002"]
    began = joined(initial_of(run / "last.pt"), run / "last.pt", objective)
    assert torch.equal(theta_of(way[0], objective, options), began)
    assert torch.equal(objective.params.join(initial_weights(run / "best.pt")), began)


def test_two_rankings_are_compared_user_by_user(run, monkeypatch):
    best, last = run / "best.pt", run / "last.pt"
    (same,) = differences_of({"a": best, "b": best}, OPTIONS)
    assert same.startswith("Ranking of the test items by b: no clear difference from a.")
    found = {best: np.array([0] * 50 + [20] * 50), last: np.array([0] * 80 + [20] * 20)}  # NDCG .5 and .8
    monkeypatch.setattr("samrec.task.ranking", lambda path, *_, **__: SimpleNamespace(ranks=found[path]))
    (better,), (worse,) = (
        differences_of(dict(zip("ab", p, strict=True)), OPTIONS) for p in (found, (last, best))
    )
    # 30 of 100 users gain 1, so the difference is .3 ± sqrt(.3 · .7 / 99), times Student's 1.984
    assert better.endswith(
        "0.8000 against 0.5000; the difference is +0.3000 [+0.2086, +0.3914] over 100 users."
    )
    assert ": better than a." in better
    assert ": worse than a." in worse
    assert differences_of({"a": best}, OPTIONS) == ()


def test_theta_builds_no_objective(run, monkeypatch):
    objective = objective_of(run / "last.pt", OPTIONS)
    monkeypatch.setattr("samrec.task.objective", None)
    assert torch.equal(theta_of(run / "last.pt", objective, OPTIONS), objective.theta)


def test_weights_of_another_model_are_refused(run, data_file, tmp_path):
    other = {"dim": 4, "max_length": 8, "epochs": 1, "eval_every": 1}
    out = train(Config(data=str(data_file), **other), tmp_path / "run", "cpu").out
    objective = objective_of(run / "last.pt", OPTIONS)
    with pytest.raises(InputError, match=r"has no parameter item\.weight of shape"):
        theta_of(out / "last.pt", objective, OPTIONS)


def test_the_table_is_what_evaluation_gives(run, answer):
    (table,) = facts_of(run / "best.pt", OPTIONS).tables
    for row, split in zip(table.rows, ("valid", "test"), strict=True):
        found = answer("evaluate", "--ckpt", run / "best.pt", "--part", split, "--seed", 3)
        assert dict(zip(table.columns, row.values, strict=True)) == {m: found[m] for m in METRICS}
        assert [list(pair) for pair in row.intervals] == [found["intervals"][m] for m in METRICS]
        assert row.note == f"{found['users']} users"
    logged = read_log(run / "metrics.jsonl")[-1]["test"]
    assert facts_of(run / "best.pt", OPTIONS).headlines() == {"test ndcg@10": logged["ndcg@10"]}


def test_the_curves_are_those_of_the_log(run):
    loss, validated = facts_of(run / "best.pt", OPTIONS).curves
    assert loss.x == validated.x == (1, 2)
    assert validated.y[load(run / "best.pt").epoch - 1] == max(validated.y)


def test_a_checkpoint_alone_has_no_curves(run, tmp_path):
    (tmp_path / "best.pt").write_bytes((run / "best.pt").read_bytes())
    assert facts_of(tmp_path / "best.pt", OPTIONS).curves == ()


def test_of_a_loss_in_parts_the_curve_is_that_of_recommendation():
    parts = {"recommendation": 0.5, "contrast": 0.25}
    lines = [
        {"epoch": 1, "loss": 0.75, "losses": parts},
        {"epoch": 2, "loss": None},
        {"epoch": 3, "loss": 0.7, "valid": {"ndcg@10": 0.1}},
        {"epoch": 3, "test": {"ndcg@10": 0.2}},
    ]
    loss, validated = curves(lines)
    assert (loss.x, loss.y) == ((1, 2, 3), (0.5, None, 0.7))
    assert (validated.x, validated.y) == ((3,), (0.1,))


def test_rankers_that_train_nothing_are_rows_of_the_same_table(run):
    (table,) = facts_of(run / "best.pt", OPTIONS).tables
    known = known_rankers(0.9, {"markov": dict.fromkeys(METRICS, 0.2)})
    assert (known.title, known.columns) == (table.title, table.columns)
    counted, ideal = known.rows
    assert counted.values == (0.2,) * len(METRICS)
    assert dict(zip(METRICS, ideal.values, strict=True)) == dict.fromkeys(METRICS) | {"hr@10": 0.9}

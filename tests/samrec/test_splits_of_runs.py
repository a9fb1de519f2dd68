"""A run's split goes with its checkpoint, into all that is done with it."""

import re
import shlex

import numpy as np
import pytest
import torch

from landscape import InputError
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.data.readers import read
from samrec.data.split import split_by
from samrec.recommendation import recommend
from samrec.sweeps.jobs import plan
from samrec.task import objective, ranking
from samrec.training import loop
from samrec.training.log import read_log
from tests.samrec.training.test_training import small

CUT = 100
BEFORE = f"time:{CUT}"
pytestmark = pytest.mark.filterwarnings("ignore:.*no item to predict")


def rows(users=40, items=20, seed=0):
    """Everybody has each item at most once, from time 0 to 200; the first user comes after the cut."""
    draw = np.random.default_rng(seed)
    return [
        (user, item, time)
        for user in range(users)
        for item, time in zip(
            draw.permutation(items)[:12].tolist(),
            sorted(draw.integers(0 if user else CUT, 200, 12).tolist()),
            strict=True,
        )
    ]


def written(path, table):
    path.write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in table))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return written(tmp_path_factory.mktemp("timed") / "a.csv", rows())


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / BEFORE
    return loop.train(small(table, split=BEFORE, epochs=2), out, "cpu").out


def test_what_comes_later_changes_nothing_that_is_learned(run, tmp_path):
    """Whatever happens from the date on, the weights and the validation are the same."""
    before = [row for row in rows() if row[2] < CUT]
    later = [row for row in rows() if row[2] >= CUT]
    other = written(tmp_path / "b.csv", [*before, *[(u, (i + 7) % 20, t) for u, i, t in later]])
    again = loop.train(small(other, split=BEFORE, epochs=2), tmp_path / "again", "cpu").out
    one, two = (load(out / "last.pt") for out in (run, again))
    assert one.digest != two.digest
    assert all(torch.equal(tensor, two.weights[name]) for name, tensor in one.weights.items())
    assert one.valid == two.valid


def test_every_command_takes_the_split_of_the_checkpoint(run, table, answer):
    split = split_by(BEFORE, read(table, times=True))
    for part in ("valid", "test"):
        found = answer("evaluate", "--ckpt", run / "best.pt", "--part", part)
        users = len(split.evaluated(part))
        assert (found["part"], found["split"]) == (part, BEFORE)
        assert (found["users"], found["without_target"]) == (users, 40 - users)
        assert len(ranking(run / "best.pt", part).ranks) == users
    counted = answer("baselines", "--data", table, "--split", BEFORE)
    assert (counted["split"], counted["users"]) == (BEFORE, len(split.evaluated("test")))
    frozen = objective(run / "best.pt", TaskOptions(users=None, device="cpu"))
    assert frozen.provenance["split"] == BEFORE
    assert frozen.weight == (split.train_lengths[split.trained] - 1).sum()
    ranked = objective(run / "best.pt", TaskOptions(users=None, device="cpu", metric="mrr"))
    assert ranked.weight == len(split.evaluated("test"))
    assert recommend(run / "best.pt", top=3, device="cpu").num_users == 40
    assert read_log(run / "metrics.jsonl")[-1]["test"]["mrr"] == pytest.approx(ranked.value())


def test_the_table_tells_who_has_nothing_to_predict(run, landscape):
    code, out, err = landscape("evaluate", "--ckpt", run / "best.pt")
    assert code == 0, err
    assert "39 users (1 without an item to predict)" in " ".join(out.split())


@pytest.mark.parametrize("part", ["valid", "test"])
def test_it_names_the_command_whose_counting_ranks_the_same_users(
    run, table, landscape, answer, monkeypatch, part
):
    monkeypatch.setenv("COLUMNS", "400")
    asked = ["evaluate", "--ckpt", run / "best.pt", "--part", part]
    code, out, err = landscape(*asked, "--data", table)
    assert code == 0, err
    named = re.search(r"landscape (baselines .*), with the training's other options", out)
    counted, found = answer(*shlex.split(named[1])), answer(*asked)
    assert [counted[key] for key in ("part", "split", "users")] == [
        found[key] for key in ("part", "split", "users")
    ]
    for other in (["--noise", 0.5], ["--repeats", "miss"]):  # which counting does not heed
        assert "baselines" not in landscape(*asked, *other)[1]


def test_other_times_are_other_data(run, tmp_path):
    moved = written(tmp_path / "moved.csv", [(u, i, t + 50) for u, i, t in rows()])
    with pytest.raises(InputError, match="is not the data of the checkpoint"):
        ranking(run / "best.pt", "test", moved)


def test_resuming_with_another_split_is_refused(run, table):
    with pytest.raises(InputError, match="split 'time:100', not 'leave-one-out'"):
        loop.train(small(table, epochs=2), run, "cpu", resume=True)


def test_a_checkpoint_of_before_is_leave_one_out(table, tmp_path):
    out = loop.train(small(table, epochs=2), tmp_path / "old", "cpu").out
    content = torch.load(out / "best.pt", weights_only=True)
    expected = ranking(out / "best.pt", "test").ranks
    assert content["config"].pop("split") == "leave-one-out"
    torch.save(content, tmp_path / "older.pt")
    assert np.array_equal(ranking(tmp_path / "older.pt", "test").ranks, expected)
    assert "split" not in objective(tmp_path / "older.pt", TaskOptions(device="cpu")).provenance


def test_losses_and_ranks_of_two_splits_are_not_compared(table, tmp_path, landscape):
    out = loop.train(small(table, split="ratio:.8,.1,.1", epochs=2), tmp_path / "ratio", "cpu").out
    plain = loop.train(small(table, epochs=2), tmp_path / "plain", "cpu").out
    code, _, err = landscape(
        "compare", "--ckpt", out / "best.pt", "--ckpt", plain / "best.pt", "--out", tmp_path / "c"
    )
    assert code == 2
    assert "have different splits" in err


def test_a_pre_training_on_another_split_is_refused(table, tmp_path):
    before = small(table, method="s3rec-pretraining", epochs=1)
    with pytest.warns(UserWarning, match="no attributes file"):
        pretrained = loop.train(before, tmp_path / "before", "cpu").out / "last.pt"
    for split in ("ratio:.8,.1,.1", BEFORE):
        tuned = small(table, method="s3rec", pretrained=str(pretrained), split=split)
        with pytest.raises(InputError, match="is pre-trained with split 'leave-one-out', not"):
            loop.train(tuned, tmp_path / "tuned", "cpu")


def test_a_sweep_varies_the_split(table, tmp_path, answer):
    varied = 'split=leave-one-out,"ratio:.8,.1,.1"'
    found = answer("sweep", "--data", table, "--vary", varied, "--out", tmp_path / "s", "--dry-run")
    assert [run["run"] for run in found["runs"]] == ["split=leave-one-out", "split=ratio_.8,.1,.1"]
    (job,) = plan({"data": str(table)}, {"split": ["time:2014-01-01"]}, tmp_path)
    assert job.config.split == "time:2014-01-01"


def test_sequences_have_no_times_to_split_by(landscape, data_file, tmp_path):
    code, out, err = landscape(
        "train", "--data", data_file, "--split", "time:2014-01-01", "--out", tmp_path / "r"
    )
    assert (code, out) == (2, "")
    assert "has no times, which split time:2014-01-01 needs" in " ".join(err.split())
    assert not (tmp_path / "r" / "last.pt").exists()

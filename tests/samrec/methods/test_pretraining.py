"""S3Rec's two trainings: what fine-tuning begins from, what is logged, stopped and refused."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from landscape import InputError
from landscape.errors import Stopped
from samrec.checkpoint import load, trajectory
from samrec.config import configure, read_settings
from samrec.training import loop
from samrec.training.log import read_log
from tests.samrec.training.test_training import at_step, same_weights, small

CPU = torch.device("cpu")
STEPS = 4  # an epoch


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
    before = {} if "pretrained" in settings else {"pretrain_epochs": 2}
    return small(data, method="s3rec", **{**before, "epochs": 4, **settings})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run from beginning to end."""
    return loop.train(config_of(data, save_every=2), tmp_path_factory.mktemp("whole") / "run", "cpu")


def same_learned(a, b):
    return same_weights(a, b) and all(torch.equal(t, b.extra[name]) for name, t in a.extra.items())


def losses_logged(folder):
    return [line for line in read_log(folder / "metrics.jsonl") if "loss" in line]


def test_it_pre_trains_and_then_begins_from_there(data, whole):
    assert {path.name for path in whole.out.iterdir()} == {
        *("pretraining", "best.pt", "best.safetensors", "last.pt", "metrics.jsonl", "config.toml", "epochs")
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
    outcome = loop.train(config, tmp_path / "run", "cpu")
    assert (outcome.valid, outcome.test, outcome.best_epoch) == ({}, {}, 12)
    first, *_, last = losses_logged(outcome.out)
    for part, value in last["losses"].items():
        assert value < 0.7 * first["losses"][part], part
    assert outcome.losses == last["losses"]


def test_what_is_pre_trained_can_be_used_again(data, whole, tmp_path):
    apart = loop.train(config_of(data).pretraining, tmp_path / "apart", "cpu").out / "last.pt"
    assert same_learned(load(apart), load(whole.out / "pretraining" / "last.pt"))
    again = loop.train(config_of(data, pretrained=str(apart)), tmp_path / "again", "cpu")
    assert same_weights(load(whole.out / "last.pt"), load(again.out / "last.pt"))
    assert again.test == whole.test
    assert not (again.out / "pretraining").exists()


def test_runs_that_train_together_begin_from_it_too(data, whole, tmp_path):
    given = whole.out / "pretraining" / "last.pt"
    configs = [config_of(data, pretrained=str(given), seed=seed, save_every=4) for seed in (0, 1)]
    outcomes = loop.train_together(configs, [tmp_path / "0", tmp_path / "1"], "cpu")
    first, last = zip(*(map(load, trajectory(outcome.out)) for outcome in outcomes), strict=True)
    assert all(same_weights(load(given), begun) for begun in first)
    assert not same_weights(*last)


def test_runs_that_pre_train_together_are_kept_as_alone_and_go_on(data, whole, tmp_path):
    configs = [config_of(data, seed=seed).pretraining for seed in (0, 1)]
    outs = [tmp_path / "0", tmp_path / "1"]
    loop.train_together([c.model_copy(update={"epochs": 1}) for c in configs], outs, "cpu")
    loop.train_together(configs, outs, "cpu", resume=True)
    ours, alone = load(outs[0] / "last.pt"), load(whole.out / "pretraining" / "last.pt")
    assert (ours.epoch, ours.extra.keys()) == (alone.epoch, alone.extra.keys())
    logs = [losses_logged(folder) for folder in (outs[0], whole.out / "pretraining")]
    assert len(logs[0]) == 2
    for together, single in zip(*logs, strict=True):
        assert together["losses"] == pytest.approx(single["losses"], rel=1e-4)


def test_fine_tuning_is_sasrecs_training_from_other_weights(data, tmp_path):
    """The same users, negatives and dropout: from SASRec's own first weights it is SASRec, bit for bit."""
    plain = loop.train(small(data, epochs=2, save_every=2), tmp_path / "plain", "cpu")
    start = str(trajectory(plain.out)[0])
    tuned = loop.train(config_of(data, epochs=2, pretrained=start), tmp_path / "tuned", "cpu")
    assert same_weights(load(plain.out / "last.pt"), load(tuned.out / "last.pt"))


@pytest.fixture(scope="module")
def pretrained(data_file, tmp_path_factory):
    """A pre-training without attributes."""
    config = small(data_file, method="s3rec-pretraining", epochs=1)
    with pytest.warns(UserWarning, match="no attributes file next to"):
        return loop.train(config, tmp_path_factory.mktemp("pretrained") / "run", "cpu").out / "last.pt"


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
        loop.train(config_of(data_file, **{"pretrained": str(pretrained), **settings}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_fraction": 0.5}, r"is pre-trained with train_fraction 1\.0, not 0\.5, so on other interact"),
        ({"noise": 0.2}, r"is pre-trained with noise 0\.0, not 0\.2, so on other interactions"),
        ({"noise": 0.2, "seed": 1}, r"with seed 0, not 1 and noise 0\.0, not 0\.2, so on other"),
    ],
)
def test_a_pre_training_on_other_interactions_is_told(data, whole, tmp_path, settings, message):
    """A share of the users or noise is a claim about what a run has seen, which a pre-training must share."""
    given = str(whole.out / "pretraining" / "last.pt")
    with pytest.warns(UserWarning, match=message):
        loop.train(config_of(data, pretrained=given, epochs=1, **settings), tmp_path / "run", "cpu")


@pytest.mark.parametrize("step", [2, STEPS + 1])
def test_a_pre_training_that_was_stopped_is_told(data, tmp_path, monkeypatch, step):
    out = tmp_path / "pretraining"
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        loop.train(config_of(data).pretraining, out, "cpu")
    monkeypatch.undo()
    config = config_of(data, pretrained=str(out / "last.pt"), epochs=1)
    with pytest.warns(
        UserWarning, match=f"was stopped in epoch {-(-step // STEPS)} of 2; train it to its end"
    ):
        loop.train(config, tmp_path / "run", "cpu")


def test_what_is_pre_trained_on_other_data_is_refused(pretrained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("1 1 2 3 4 5\n2 3 4 5 6\n")
    with pytest.raises(InputError, match=r"other\.txt is not the data of the checkpoint"):
        loop.train(config_of(other, pretrained=str(pretrained)), tmp_path / "run", "cpu")


@pytest.mark.parametrize("method", ["gru4rec", "bert4rec"])
def test_another_kind_of_model_is_no_pre_training(data_file, tmp_path, method):
    other = loop.train(small(data_file, method=method, epochs=2), tmp_path / "other", "cpu").out / "last.pt"
    with pytest.raises(InputError, match=method) as caught:
        loop.train(config_of(data_file, pretrained=str(other)), tmp_path / "run", "cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_where_no_attributes_are_known_a_warning_says_so(data_file, tmp_path):
    with pytest.warns(
        UserWarning, match=r"no attributes file next to .*synthetic\.txt.*--attributes"
    ) as warned:
        outcome = loop.train(config_of(data_file, epochs=2), tmp_path / "run", "cpu")
    assert len(warned) == 1
    (line, _) = losses_logged(outcome.out / "pretraining")
    assert line["losses"].keys() == {"masked item", "segment"}
    assert load(outcome.out / "pretraining" / "last.pt").config.attributes is None


def test_attributes_are_named_or_those_beside_the_data(data, tmp_path):
    path = tmp_path / "others.json"
    path.write_text('{"1": [7, 9]}')
    extra = [
        load(loop.train(config, tmp_path / name, "cpu").out / "last.pt").extra
        for name, config in {
            "beside": config_of(data).pretraining,
            "named": config_of(data, attributes=str(path)).pretraining,
        }.items()
    ]
    assert [len(e["attributes.embedding"]) for e in extra] == [5, 2]
    with pytest.raises(InputError, match="cannot read JSON file of attributes"):
        loop.train(config_of(data, attributes="no/such.json"), tmp_path / "none", "cpu")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("change", ["other", "fewer", "none"])
def test_a_pre_training_goes_on_with_its_own_attributes_alone(data, tmp_path, monkeypatch, change):
    """Whatever the size of another file, also where it had none."""
    config, out = config_of(data).pretraining, tmp_path / "run"
    loop.train(config.model_copy(update={"epochs": 1}), out, "cpu")
    known = json.loads(data.with_name("world_item2attributes.json").read_text())
    known = {
        "other": {item: [(kind + 1) % 5 for kind in kinds] for item, kinds in known.items()},
        "fewer": {"1": [7, 9]},
        "none": known,
    }[change]
    (tmp_path / "named.json").write_text(json.dumps(known))
    named = config.model_copy(update={"attributes": str(tmp_path / "named.json")})
    if change == "none":  # of a run that had none, which are given now
        alone = shutil.copy(data, tmp_path / "alone.txt")
        config = config.model_copy(update={"data": str(alone), "epochs": 1})
        with pytest.warns(UserWarning, match="no attributes file"):
            loop.train(config, tmp_path / "without", "cpu")
        named, out = named.model_copy(update={"data": str(alone)}), tmp_path / "without"
    before = (out / "last.pt").read_bytes()
    had = "without attributes" if change == "none" else "with other attributes"
    with pytest.raises(InputError, match=f"last.pt was trained {had}; give --attributes as in its training$"):
        loop.train(named, out, "cpu", resume=True)
    assert (out / "last.pt").read_bytes() == before


@pytest.mark.parametrize("keeps", [True, False])
def test_attributes_may_lie_elsewhere_and_older_runs_kept_none(data, whole, tmp_path, keeps):
    config, out = config_of(data).pretraining, tmp_path / "run"
    loop.train(config.model_copy(update={"epochs": 1}), out, "cpu")
    if not keeps:
        content = torch.load(out / "last.pt")
        del content["extra"]["attributes.of_item"]
        torch.save(content, out / "last.pt")
    moved = shutil.copy(data.with_name("world_item2attributes.json"), tmp_path / "moved.json")
    loop.train(config.model_copy(update={"attributes": str(moved)}), out, "cpu", resume=True)
    assert same_learned(load(whole.out / "pretraining" / "last.pt"), load(out / "last.pt"))


@pytest.mark.parametrize("name", ["attributes", "pretrained"])
def test_a_file_that_a_fine_tuning_no_longer_reads_is_told(data, whole, tmp_path, name):
    out, other = tmp_path / "run", str(tmp_path / "other")
    config = config_of(data, epochs=1, pretrained=str(whole.out / "pretraining" / "last.pt"))
    if name == "attributes":
        config = config_of(data, epochs=1, pretrain_epochs=1)
    loop.train(config, out, "cpu")
    with pytest.warns(UserWarning, match=f"is past its pre-training, with {name} .*'{other}' has no effect"):
        loop.train(config.model_copy(update={name: other, "epochs": 2}), out, "cpu", resume=True)


@pytest.mark.parametrize("step", [2, STEPS, STEPS + 3, 2 * STEPS + 1, 2 * STEPS + 6])
def test_a_stopped_run_goes_on_bit_for_bit(data, whole, tmp_path, monkeypatch, step):
    """Inside of pre-training, between two of its epochs, and inside of fine-tuning."""
    out = tmp_path / "run"
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        loop.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    within, at = ("", step - 2 * STEPS) if step > 2 * STEPS else ("pretraining", step)
    last = load(out / within / "last.pt")
    assert (last.epoch, len(last.sums)) == divmod(at, STEPS)
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        loop.train(config_of(data), out, "cpu")
    loop.train(config_of(data), out, "cpu", resume=True)
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
        loop.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    answer("train", "--out", out, "--resume", "--device", "cpu")
    assert same_weights(load(whole.out / "last.pt"), load(out / "last.pt"))


def test_a_signal_in_the_last_step_of_pre_training_stops_the_run(data, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    at_step(2 * STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Stopped):
        loop.train(config_of(data), out, "cpu")
    monkeypatch.undo()
    assert not (out / "last.pt").exists()
    loop.train(config_of(data), out, "cpu", resume=True)
    assert same_weights(load(whole.out / "last.pt"), load(out / "last.pt"))

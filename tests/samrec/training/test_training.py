import json

import numpy as np
import pytest
import torch

from landscape import InputError
from landscape.tasks import TaskOptions
from samrec import methods
from samrec.checkpoint import load, trajectory
from samrec.config import Config, configure, read_settings
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.data.synthetic import markov, write_sequences
from samrec.evaluation import evaluate, metrics
from samrec.losses import bce
from samrec.methods import batches_of, initial_learner, initial_model
from samrec.task import objective, ranking
from samrec.training import loop
from samrec.training import run as run_of
from samrec.training.engines.solo import Solo
from samrec.training.log import read_log

SMALL = {"dim": 8, "max_length": 8, "batch_size": 16, "eval_every": 2, "patience": 50, "dropout": 0.3}


def small(data_file, **settings):
    return Config(data=str(data_file), **{**SMALL, "epochs": 6, **settings})


def same_weights(a, b):
    return all(torch.equal(t, b.weights[name]) for name, t in a.weights.items())


def at_step(number, happens, monkeypatch, engine=Solo):
    """Let `happens` be called, or be raised, when this step is about to be taken."""
    steps, step = [], engine.step

    def counted(*arguments):
        steps.append(1)
        if len(steps) == number:
            if isinstance(happens, type):
                raise happens
            happens()
        return step(*arguments)

    monkeypatch.setattr(engine, "step", counted)


def test_a_run_leaves_what_it_says(data_file, tmp_path):
    config = small(data_file)
    outcome = loop.train(config, tmp_path / "run", "cpu")
    files = {"best.pt", "best.safetensors", "last.pt", "metrics.jsonl", "config.toml"}
    assert {p.name for p in outcome.out.iterdir()} == files
    assert configure(read_settings(outcome.out / "config.toml")) == config
    lines = read_log(outcome.out / "metrics.jsonl")
    assert [line["epoch"] for line in lines[:-1]] == [1, 2, 3, 4, 5, 6]
    assert ["valid" in line for line in lines[:-1]] == [False, True] * 3
    assert lines[-1] == {"epoch": outcome.best_epoch, "test": outcome.test}
    best = load(outcome.out / "best.pt")
    assert best.epoch == outcome.best_epoch
    assert best.valid["ndcg@10"] == max(line["valid"]["ndcg@10"] for line in lines if "valid" in line)
    assert metrics(ranking(outcome.out / "best.pt", "test").ranks) == outcome.test
    assert load(outcome.out / "last.pt").epoch == 6


@pytest.mark.parametrize("method", ["sasrec", "samrec"])
def test_an_interrupted_run_equals_an_unbroken_one(data_file, tmp_path, method):
    config = small(data_file, method=method)
    whole = loop.train(config, tmp_path / "whole", "cpu")
    loop.train(config.model_copy(update={"epochs": 4}), tmp_path / "parts", "cpu")
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 5, "loss": 9, "seco')  # as a kill in the middle of a line leaves it
    parts = loop.train(config, tmp_path / "parts", "cpu", resume=True)
    for name in ("best.pt", "last.pt"):
        a, b = load(whole.out / name), load(parts.out / name)
        assert same_weights(a, b)
        assert (a.epoch, a.best, a.valid) == (b.epoch, b.best, b.valid)
    assert parts.test == whole.test
    logs = [read_log(o.out / "metrics.jsonl") for o in (whole, parts)]
    assert [[line["epoch"], line.get("loss")] for line in logs[0]] == [
        [line["epoch"], line.get("loss")] for line in logs[1]
    ]


def test_a_run_interrupted_inside_an_epoch_loses_that_epoch_alone(data_file, tmp_path, monkeypatch):
    config = small(data_file)
    whole = loop.train(config, tmp_path / "whole", "cpu")
    at_step(14, KeyboardInterrupt, monkeypatch)  # of four an epoch
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "run", "cpu")
    assert load(tmp_path / "run" / "last.pt").epoch == 3
    monkeypatch.undo()
    loop.train(config, tmp_path / "run", "cpu", resume=True)
    assert same_weights(load(whole.out / "last.pt"), load(tmp_path / "run" / "last.pt"))


@pytest.mark.parametrize(
    ("settings", "seen"),
    [({"loss": "ce"}, range(8)), ({"method": "samrec", "micro_batches": 2, "every": 3}, (0, 3, 6))],
)
def test_the_loss_of_an_epoch_is_the_mean_over_the_positions_of_the_steps_that_saw_it_at_w(
    data_file, tmp_path, settings, seen
):
    """Of four steps an epoch, the last of which has fewer users; the rate is too small to move anything."""
    config = small(data_file, epochs=2, dropout=0.0, lr=1e-12, **settings)
    split = leave_one_out(read(data_file))
    learner = initial_learner(config, split)
    out = loop.train(config, tmp_path / "run", "cpu").out
    lines = [line for line in read_log(out / "metrics.jsonl") if "loss" in line]
    for epoch, line in enumerate(lines):
        parts = batches_of(config, split, torch.device("cpu")).epoch(
            16 // config.micro_batches, (0, epoch + 1)
        )
        total, positions = 0.0, 0.0
        for number, part in enumerate(parts):
            if 4 * epoch + number // config.micro_batches in seen:
                total += float(learner(part).sum().detach())
                positions += float(part.used.sum())
        assert line["loss"] == pytest.approx(total / positions, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "ends", "best", "validated"),
    [
        ({"epochs": 20, "patience": 6}, 10, 4, [2, 4, 6, 8, 10]),
        ({"epochs": 20, "patience": 5}, 9, 4, [2, 4, 6, 8]),
        ({"epochs": 20, "patience": 9}, 20, 12, [*range(2, 21, 2)]),
        ({"epochs": 7, "patience": 7}, 7, 4, [2, 4, 6, 7]),  # the last epoch is always validated
    ],
)
def test_the_first_of_the_best_validations_is_kept_and_patience_counts_from_it(
    data_file, tmp_path, monkeypatch, settings, ends, best, validated
):
    script = dict(zip(range(2, 22, 2), [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, 0.4, 0.4, 0.1, 0.3], strict=True))
    script[7] = 0.3
    asked = iter(script[epoch] for epoch in validated)
    parts = []

    def scripted(model, split, part, among):
        parts.append(part)
        return dict.fromkeys(metrics(np.arange(1)), next(asked) if part == "valid" else 0.7)

    monkeypatch.setattr(run_of, "evaluate", scripted)
    outcome = loop.train(small(data_file, dim=2, batch_size=64, **settings), tmp_path / "run", "cpu")
    assert (outcome.epochs, outcome.best_epoch) == (ends, best)
    assert (outcome.valid["ndcg@10"], outcome.test["ndcg@10"]) == (script[best], 0.7)
    assert parts == ["valid"] * len(validated) + ["test"]
    lines = read_log(outcome.out / "metrics.jsonl")
    assert [line["epoch"] for line in lines if "valid" in line] == validated


def test_training_leaves_the_callers_random_numbers_alone(data_file, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loop.train(small(data_file, epochs=2), tmp_path / "run", "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_sam_without_a_radius_is_sasrec(data_file, tmp_path):
    a = loop.train(small(data_file, epochs=2), tmp_path / "a", "cpu")
    b = loop.train(small(data_file, epochs=2, method="samrec", rho=0.0), tmp_path / "b", "cpu")
    c = loop.train(small(data_file, epochs=2, method="samrec"), tmp_path / "c", "cpu")
    assert same_weights(load(a.out / "last.pt"), load(b.out / "last.pt"))
    assert not same_weights(load(a.out / "last.pt"), load(c.out / "last.pt"))


def test_micro_batches_are_the_batch(data_file, tmp_path):
    """The same users and negatives, and gradients that add up; m-sharpness climbs by each alone."""
    runs = {
        name: load(
            loop.train(small(data_file, epochs=2, dropout=0.0, **s), tmp_path / name, "cpu").out / "last.pt"
        )
        for name, s in {
            "whole": {"method": "samrec"},
            "parts": {"method": "samrec", "micro_batches": 4},
            "each": {"method": "samrec", "micro_batches": 4, "ascent": "micro-batch"},
        }.items()
    }
    whole, parts, each = (runs[name].weights["item.weight"] for name in ("whole", "parts", "each"))
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-4)
    assert float((each - whole).norm()) > 10 * float((parts - whole).norm())


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16", "loss": "ce"},
        {"precision": "bf16", "method": "samrec", "clip": 1.0, "micro_batches": 2},
        {"loss": "sampled", "negatives": 8, "lr_schedule": "cosine", "warmup": 1},
        {"loss": "gbce", "negatives": 8, "calibration": 1.0, "weight_decay": 1e-4},
        {"preset": "sasrec-bert", "method": "samrec", "adaptive": True, "rho": 1.0, "rho_schedule": "linear"},
        {
            "preset": "sasrec-original",
            "method": "samrec",
            "every": 2,
            "perturb": "norm-only",
            "rho_warmup": 1,
        },
    ],
)
def test_settings_combine_and_the_loss_falls(data_file, tmp_path, settings):
    out = loop.train(small(data_file, lr=5e-3, **settings), tmp_path / "run", "cpu").out
    losses = [line["loss"] for line in read_log(out / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0]
    assert load(out / "last.pt").weights["item.weight"].dtype == torch.float32


def test_an_epoch_without_a_loss_at_w_has_null_in_its_log_as_json_has_no_nan(data_file, tmp_path):
    """Four steps per epoch, of which SAM's first passes are steps 0, 6 and 12: none in the third epoch."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    out = tmp_path / "run"
    config = small(data_file, method="samrec", every=6, epochs=3)
    for _ in range(2):  # a log that is truncated and continued is JSON, too
        outcome = loop.train(config, out, "cpu", resume=True)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        *epochs, _ = [json.loads(line, parse_constant=refuse) for line in lines]
        assert [line["loss"] is None for line in epochs] == [False, False, True]
        assert np.isnan(outcome.losses["recommendation"])


def test_a_share_of_the_users_is_trained_on_and_everyone_is_tested(data_file, tmp_path):
    config = small(data_file, train_fraction=0.5)
    split = leave_one_out(read(data_file))
    half, quarter = split.fraction(0.5, 3), split.fraction(0.25, 3)
    assert len(half.trained) == round(len(split.trained) / 2)
    assert set(quarter.trained) < set(half.trained) < set(split.trained)
    assert set(half.trained) != set(split.fraction(0.5, 4).trained)
    assert np.array_equal(half.evaluated("test"), split.evaluated("test"))
    assert np.array_equal(split.fraction(1.0, 3).trained, split.trained)
    out = loop.train(config, tmp_path / "run", "cpu").out
    frozen = objective(out / "best.pt", TaskOptions(device="cpu"))
    assert frozen.provenance["users"] == str(len(half.trained))
    assert sum(len(batch.inputs.last) for batch in frozen.batches) == len(half.trained)


@pytest.mark.parametrize(
    "settings", [{"lr_schedule": "cosine"}, {"method": "samrec", "rho_schedule": "linear"}]
)
def test_a_schedule_knows_its_end(data_file, tmp_path, settings):
    config = small(data_file, epochs=2, **settings)
    loop.train(config, tmp_path / "run", "cpu")
    with pytest.raises(InputError, match="other settings: epochs 2, not 4"):
        loop.train(config.model_copy(update={"epochs": 4}), tmp_path / "run", "cpu", resume=True)


def test_it_stops_when_validation_no_longer_improves(data_file, tmp_path):
    outcome = loop.train(small(data_file, epochs=500, lr=0.05, patience=6), tmp_path / "run", "cpu")
    assert outcome.epochs == outcome.best_epoch + 6 < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "loss"),
    [("samrec", "bce"), ("sasrec", "ce"), pytest.param("sasrec", "bce", marks=pytest.mark.soak)],
)
def test_a_known_structure_is_learned(tmp_path, method, loss):
    """Far above chance, 10 / 100, and not above an ideal ranker but by luck."""
    world = markov(users=600, items=100, mean_length=12, seed=0)
    write_sequences(world.interactions, tmp_path / "data.txt")
    config = small(
        tmp_path / "data.txt",
        method=method,
        loss=loss,
        epochs=40,
        dim=32,
        dropout=0.1,
        lr=5e-3,
        batch_size=64,
    )
    found = loop.train(config, tmp_path / "run", "cpu").test["hr@10"]
    assert 0.7 * world.ideal_hr10 < found < world.ideal_hr10 + 3 * 0.5 / 600**0.5


def test_a_trajectory_runs_from_the_initial_weights_to_the_last_epoch(data_file, tmp_path):
    """And keeping it changes nothing that is computed."""
    config = small(data_file, save_every=4)
    out = loop.train(config, tmp_path / "run", "cpu").out
    paths = trajectory(out)
    assert [p.name for p in paths] == ["epoch-0000.pt", "epoch-0004.pt", "epoch-0006.pt"]
    points, last = [load(path) for path in paths], load(out / "last.pt")
    assert [(point.epoch, point.optimizer, len(point.sums)) for point in points] == [
        (epoch, {}, 0) for epoch in (0, 4, 6)
    ]
    drawn = initial_model(config, last.num_items).state_dict()
    assert all(torch.equal(t, points[0].weights[name]) for name, t in drawn.items())
    assert same_weights(points[-1], last)
    assert [objective(path, TaskOptions(device="cpu")).provenance["epoch"] for path in paths] == [*"046"]
    without = loop.train(small(data_file), tmp_path / "without", "cpu")
    assert same_weights(load(without.out / "last.pt"), last)
    with pytest.raises(InputError, match="without keeps no trajectory; train with --save-every N"):
        trajectory(without.out)


def test_a_trajectory_ends_where_patience_does_and_sorts_by_name(data_file, tmp_path):
    config = small(data_file, epochs=10_000, lr=0.05, patience=3, save_every=7)
    outcome = loop.train(config, tmp_path / "run", "cpu")
    names = [p.name for p in trajectory(outcome.out)]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("epoch-00000.pt", f"epoch-{outcome.epochs:05d}.pt")


def test_runs_that_train_together_keep_their_own_trajectories(data_file, tmp_path):
    configs = [small(data_file, epochs=3, save_every=2, seed=seed) for seed in (0, 1)]
    for outcome, config in zip(
        loop.train_together(configs, [tmp_path / "a", tmp_path / "b"], "cpu"), configs, strict=True
    ):
        first, second, third = map(load, trajectory(outcome.out))
        drawn = initial_model(config, first.num_items).state_dict()
        assert all(torch.equal(t, first.weights[name]) for name, t in drawn.items())
        assert (first.epoch, second.epoch, third.epoch) == (0, 2, 3)
        assert same_weights(third, load(outcome.out / "last.pt"))


def test_a_folder_that_holds_a_run_is_not_overwritten(data_file, tmp_path):
    loop.train(small(data_file, epochs=2), tmp_path / "run", "cpu")
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        loop.train(small(data_file, epochs=2), tmp_path / "run", "cpu")
    with pytest.raises(InputError, match="other settings: dim 8, not 16"):
        loop.train(small(data_file, epochs=2, dim=16), tmp_path / "run", "cpu", resume=True)
    other = tmp_path / "other.txt"
    other.write_text("1 1 2 3 4 5\n2 3 4 5 6\n")
    with pytest.raises(InputError, match="is not the data of the checkpoint"):
        loop.train(small(other, epochs=2), tmp_path / "run", "cpu", resume=True)


@pytest.mark.parametrize("save_every", [None, 1])
def test_a_first_epoch_that_diverges_leaves_nothing(data_file, tmp_path, save_every):
    with pytest.raises(InputError, match=r"loss is (nan|inf) in epoch 1, step \d+; try a smaller lr"):
        loop.train(small(data_file, lr=1e30, save_every=save_every), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_divergence_later_leaves_the_last_good_epoch(data_file, tmp_path, monkeypatch):
    steps = []

    def failing(model, batch):
        steps.append(1)
        total, weight = bce(model, batch)
        return total * (float("nan") if len(steps) == 14 else 1), weight

    monkeypatch.setattr(methods, "loss_of", lambda *_, **__: failing)
    with pytest.raises(InputError, match="loss is nan in epoch 4, step 2"):
        loop.train(small(data_file), tmp_path / "run", "cpu")
    last = load(tmp_path / "run" / "last.pt")
    assert last.epoch == 3
    assert all(t.isfinite().all() for t in last.weights.values())


def test_histories_too_short_to_train_on_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 1 2 3\n2 1 2 3\n")
    with pytest.raises(InputError, match="no user has two items to train on"):
        loop.train(small(tmp_path / "a.txt"), tmp_path / "run", "cpu")


def test_a_checkpoint_ranks_as_the_model_it_was(data_file, tmp_path):
    out = loop.train(small(data_file, epochs=2), tmp_path / "run", "cpu").out
    split = leave_one_out(read(data_file))
    assert evaluate(load(out / "best.pt").model(), split, "valid") == load(out / "best.pt").valid
    assert (
        json.loads((out / "metrics.jsonl").read_text().splitlines()[1])["valid"]
        == load(out / "best.pt").valid
    )

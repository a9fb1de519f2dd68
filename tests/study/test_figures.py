"""The study: its plan, what it stores, and that its figures are drawn from that alone."""

import importlib
import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from figures import measure
from figures import run as runner
from figures.__main__ import FIGURES, FOLDER, main, render
from figures.ablation import ablation
from figures.measure import Bench, Measurement, _step
from figures.plan import (
    CHOSEN_SEEDS,
    DATA,
    LIMITS,
    STAGES,
    Training,
    bert_run,
    chosen,
    ranked,
    rival,
    shared,
    trainings,
    trials,
)
from figures.records import LARGEST, Record, read_ranks, read_records, write_record
from figures.stopping import Rule, stopped
from figures.style import PAIR
from landscape import InputError
from samrec.checkpoint import kept
from samrec.config import Config
from samrec.evaluation import metrics
from samrec.methods import initial_model
from samrec.training.loop import train

RESULTS = FOLDER / "results"


def recorded(run: Training, valid: float = 0.03, **changes) -> Record:
    """A record as a run might leave it: the validation rises to `valid` and falls."""
    config = run.config(Path())
    rise = [valid * (1 - abs(i - 6) / 20) for i in range(12)]
    log = [{"epoch": config.eval_every * (i + 1), "ndcg@10": v, "ndcg@20": v} for i, v in enumerate(rise)]
    values = {
        "name": run.name,
        "command": run.command,
        "data": run.data,
        "digest": "",
        "settings": {key: value for key, value in config.settings.items() if key != "data"},
        "where": {},
        "epochs": 12 * config.eval_every,
        "best_epoch": 7 * config.eval_every,
        "log": log,
        "valid": {"ndcg@10": valid},
        "test": {"hr@10": 0.05, "ndcg@10": 0.02},
    }
    return Record(**values | changes)


def of_trials(data: str, best: dict[str, int]) -> dict[str, Record]:
    """Records of all trials on a data set, the one at a place of each method being the best on validation."""
    runs = {method: trials(data, method) for method in best}
    return {
        run.name: recorded(run, 0.04 if place == best[method] else 0.03)
        for method, own in runs.items()
        for place, run in enumerate(own)
    }


def test_every_run_has_a_name_of_its_own_that_is_a_file():
    records = {
        name: record for data in DATA for name, record in of_trials(data, dict.fromkeys(LIMITS, 3)).items()
    }
    runs = [run for stage in STAGES.values() for run in stage(records)]
    by_name = {run.name: run for run in runs}
    assert all(re.fullmatch(r"[\w.+-]+", name) and len(name) < 100 for name in by_name)
    by_settings = {json.dumps([run.config(Path()).model_dump(), run.before]) for run in runs}
    assert len(by_settings) == len(by_name)  # stages share runs that are the same, and no others
    assert not {run.name for run in ablation()} & by_name.keys()


@pytest.mark.parametrize("data", DATA)
def test_methods_have_sam_alone_between_them_and_equal_work(data):
    sasrec, samrec = (ranked(data, method, 3).config(Path()).model_dump() for method in LIMITS)
    assert {key for key in sasrec if sasrec[key] != samrec[key]} == {"method", "epochs", "patience"}
    assert (sasrec["epochs"], sasrec["patience"]) == (2 * samrec["epochs"], 2 * samrec["patience"])
    assert ranked(data, "sasrec", 0).rules == (ranked(data, "samrec", 0).rule,)


def test_a_share_of_the_users_has_as_many_steps():
    share = shared("Beauty", "sasrec", 0, 0.2)
    assert share.rule == Rule(3000, 400)
    assert share.rules == (Rule(1500, 200),)
    assert share.config(Path()).eval_every == 25  # as many validations, of as many steps


def test_main_runs_are_all_seeds_of_all_data_sets_one_seed_first():
    names = list(trainings(["main"], {}))
    assert len(names) == 2 * 4 * 5
    assert {name.rsplit("-", 1)[1] for name in names[:8]} == {"0"}


def test_both_methods_have_as_many_trials_of_the_same_length_as_the_main_runs():
    for data in DATA:
        own = {method: trials(data, method) for method in LIMITS}
        assert {len(runs) for runs in own.values()} == {7}
        for method, runs in own.items():
            assert runs[0].name == ranked(data, method, 0).name
            assert {run.rule for run in runs} == {ranked(data, method, 1).rule}


def test_the_choice_waits_for_all_trials_and_knows_the_validation_alone():
    records = of_trials("Beauty", {"sasrec": 2, "samrec": 5})
    assert chosen(records, "Beauty", "samrec").settings["rho"] == 0.2
    assert chosen(records, "Beauty", "sasrec").settings["dropout"] == 0.3
    for run in trials("Beauty", "samrec"):
        rest = {name: record for name, record in records.items() if name != run.name}
        assert chosen(rest, "Beauty", "samrec") is None
    shown = {name: r.model_copy(update={"test": {"ndcg@10": np.nan}}) for name, r in records.items()}
    assert chosen(shown, "Beauty", "samrec") == chosen(records, "Beauty", "samrec")
    runs = trainings(["tuned"], records)
    assert {run.settings["seed"] for run in runs.values()} == set(CHOSEN_SEEDS)
    assert not set(CHOSEN_SEEDS) & {
        run.settings["seed"] for run in trainings(["tuning", "main"], {}).values()
    }
    assert len(runs) == 2 * 3


def test_a_trial_is_judged_by_its_late_checkpoints_and_not_by_one():
    records = of_trials("Beauty", {"samrec": 1})
    lucky = trials("Beauty", "samrec")[4].name
    log = [dict(line) for line in records[lucky].log]
    log[2]["ndcg@10"] = 0.05
    records[lucky] = records[lucky].model_copy(update={"log": log, "valid": {"ndcg@10": 0.05}})
    assert chosen(records, "Beauty", "samrec").settings["dropout"] == 0.2


def test_a_pretraining_has_the_steps_of_its_authors():
    run = rival("Beauty", "s3rec", 1)
    steps = -(-DATA["Beauty"][0] // run.before["batch_size"])
    assert run.before["epochs"] * steps == pytest.approx(150 * 1538, rel=0.01)
    assert run.before["seed"] == 1
    assert run.command.count("landscape train") == 2
    assert "pretrained" in run.command


def test_estimates_are_those_of_the_measured_constants():
    """An epoch of SASRec on Beauty takes 1.45 s, SAM's 1.9 times that; each fifth has 1.4 s of validation."""
    seconds = {method: ranked("Beauty", method, 0).core_seconds for method in LIMITS}
    assert seconds["sasrec"] == pytest.approx(270 * (1.45 + 1.4 / 5) + 11 * 1.4 + 60, rel=0.03)
    assert seconds["samrec"] == pytest.approx(180 * (1.9 * 1.45 + 1.4 / 5) + 6 * 1.4 + 60, rel=0.03)
    assert bert_run("Beauty", "sasrec", 0).core_seconds > 140 * (1.45 + 1.4)
    assert shared("Beauty", "samrec", 0, 0.2).core_seconds == pytest.approx(seconds["samrec"], rel=0.25)


def test_ranks_in_a_byte_keep_every_metric_at_twenty(tmp_path):
    rng = np.random.default_rng(0)
    ranks = {epoch: rng.geometric(0.01, 500) - 1 for epoch in (20, 5, 35)}
    record = recorded(ranked("Beauty", "sasrec", 0))
    write_record(record, ranks, tmp_path)
    assert read_records(tmp_path) == {record.name: record}
    kept = read_ranks(record, tmp_path, (5, 20))
    for found, epoch in zip(kept, (5, 20), strict=True):
        assert (found == np.minimum(ranks[epoch], LARGEST)).all()
        assert {k: v for k, v in metrics(found).items() if "mrr" not in k} == {
            k: v for k, v in metrics(ranks[epoch]).items() if "mrr" not in k
        }
    assert (read_ranks(record, tmp_path) == np.minimum(ranks[35], LARGEST)).all()  # its best epoch
    with pytest.raises(InputError, match="no ranks of epoch 6"):
        read_ranks(record, tmp_path, (6,))


def test_a_file_that_is_no_record_is_said_to_be_none(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text('{"name": 1}')
    with pytest.raises(InputError, match="no record"):
        read_records(tmp_path)


def test_a_copy_of_a_record_does_not_take_its_place(tmp_path):
    record = recorded(ranked("Beauty", "sasrec", 0))
    write_record(record, {35: np.zeros(3, int)}, tmp_path)
    shutil.copy(tmp_path / "runs" / f"{record.name}.json", tmp_path / "runs" / "copy.json")
    with pytest.raises(InputError, match=r"copy\.json is the record of beauty"):
        read_records(tmp_path)


@pytest.fixture
def bench(data_file, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "Beauty.txt").write_bytes(data_file.read_bytes())
    return Bench(tmp_path / "runs", folder, tmp_path / "results", "cpu")


SMALL = {"epochs": 4, "patience": 4, "dim": 8, "eval_every": 1, "save_every": 1}
SHORT = Rule(2, 2)


@pytest.fixture
def ended(bench):
    """A run that has been trained, and is not yet recorded."""
    run = Training("Beauty", SMALL, rules=(SHORT,))
    train(run.config(bench.data), bench.work / run.name, "cpu")
    return run


def test_a_run_is_recorded_and_measured_once(ended, bench, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "sweep", lambda *_: pytest.fail("trained again"))
    monkeypatch.setitem(STAGES, "main", lambda records: iter([ended]))
    runner.train([ended], bench, "cpu")
    (record,) = read_records(bench.results).values()
    assert [line["epoch"] for line in record.log] == [1, 2, 3, 4]
    assert {"ndcg@10", "ndcg@20", "hr@10", "loss", "seconds"} <= record.log[0].keys()
    assert record.where["commit"]
    for rule in (ended.rule, SHORT):  # what the statistics need is there under each rule
        end = stopped(record.log, rule)
        assert len(read_ranks(record, bench.results, end.late)) == len(end.late)
        assert len(read_ranks(record, bench.results, (end.best,))) == 1
    kept = metrics(read_ranks(record, bench.results)[0])
    assert {k: v for k, v in kept.items() if "mrr" not in k} == {
        k: v for k, v in record.test.items() if "mrr" not in k
    }
    found = json.loads((bench.results / "minima" / f"{ended.name}.json").read_text())
    assert found["run"] == ended.name
    assert len(found["eigenvalues"]) == 5
    assert found["eigenvalues"][0] == found["lambda_max"] > 0
    assert found["measures"]["asam"]["value"] > 0
    assert str(tmp_path) not in json.dumps(found) + record.model_dump_json()
    assert (bench.work / ended.name / "best.pt").exists()
    assert not (bench.work / ended.name / "epochs").exists()
    assert not runner.missing(["main"], bench)


@pytest.mark.parametrize(("best", "trained_again"), [(300, True), (265, True), (260, False)])
def test_a_run_that_a_shorter_limit_cut_off_is_trained_again(best, trained_again, bench):
    """Its limit was 300 epochs; patience 40 ends a run of best epoch 260, no later one."""
    run = ranked("Yelp", "samrec", 0)
    log = [{"epoch": e, "ndcg@10": 1 - abs(e - best) / 600} for e in range(5, 301, 5)]
    shorter = {**run.config(Path("data")).settings, "epochs": 300}
    record = recorded(run, 0.1).model_copy(update={"log": log, "epochs": 300, "settings": shorter})
    write_record(record, {best: np.zeros(3, np.int64)}, bench.results)
    wanted = [run.name for run in runner.missing(["main"], bench, ["yelp.bce.samrec.seed-0"])]
    assert wanted == ([run.name] if trained_again else [])


def test_the_ranks_of_each_epoch_are_of_its_checkpoint(ended, bench, monkeypatch):
    """Against the validations that training logged: here the validation part is ranked instead."""
    rank = runner.ranking
    monkeypatch.setattr(runner, "ranking", lambda path, part, *rest: rank(path, "valid", *rest))
    monkeypatch.setattr(runner, "minimum_of", lambda record: pytest.fail("measured"))
    runner.train([replace(ended, measured=False)], bench, "cpu")
    (record,) = read_records(bench.results).values()
    for line in record.log:
        (ranks,) = read_ranks(record, bench.results, (line["epoch"],))
        assert metrics(ranks)["ndcg@10"] == pytest.approx(line["ndcg@10"], abs=1e-6)


def test_a_run_whose_measurement_was_killed_is_measured_by_the_next_call(ended, bench, monkeypatch):
    def killed(bench, name):
        raise KeyboardInterrupt

    def measured(bench, name):
        bench.write({}, name)

    for make in (killed, measured):
        monkeypatch.setattr(
            runner, "minimum_of", lambda record, make=make: Measurement("minima/a", "json", (record,), make)
        )
        with pytest.raises(KeyboardInterrupt) if make is killed else nullcontext():
            runner.train([ended], bench, "cpu")
        assert bool(read_records(bench.results)) == (make is measured)
    assert (bench.results / "minima" / "a.json").exists()


def test_a_minimum_that_an_earlier_training_left_is_measured_anew(ended, bench, monkeypatch):
    def measured(bench, name):
        bench.write({"of": "this training"}, name)

    left = bench.results / "minima" / "a.json"
    left.parent.mkdir(parents=True)
    left.write_text('{"of": "an earlier one"}')
    monkeypatch.setattr(
        runner, "minimum_of", lambda record: Measurement("minima/a", "json", (record,), measured)
    )
    runner.train([ended], bench, "cpu")
    assert json.loads(left.read_text())["of"] == "this training"


def test_a_folder_that_holds_another_run_is_not_recorded_as_this_one(ended, bench):
    other = Training("Beauty", SMALL | {"dropout": 0.1})
    (bench.work / ended.name).rename(bench.work / other.name)
    with pytest.raises(InputError, match="other settings: dropout; move it away"):
        runner.train([other], bench, "cpu")
    assert not read_records(bench.results)


def test_a_run_is_not_recorded_without_the_ranks_that_the_statistics_need(ended, bench):
    kept(bench.work / ended.name)[2].unlink()
    with pytest.raises(InputError, match="no checkpoint of epoch 2"):
        runner.train([ended], bench, "cpu")
    assert not read_records(bench.results)


@pytest.mark.slow
def test_what_begins_from_a_pretraining_is_pretrained(bench, tmp_path):
    before = {"method": "s3rec-pretraining", "epochs": 2, "batch_size": 32, "dim": 8}
    run = Training("Beauty", SMALL | {"method": "s3rec"}, before=before, measured=False)
    with pytest.warns(UserWarning, match="no attributes"):
        runner.train([run], bench, "cpu")
    record = read_records(bench.results)[run.name]
    assert (bench.work / f"{run.name}.pretraining" / "last.pt").exists()
    assert not (bench.work / run.name / "pretraining").exists()
    assert "pretrained" not in record.settings
    assert str(tmp_path) not in record.model_dump_json()


def test_the_list_says_what_is_missing_and_how_long_it_takes(tmp_path, capsys):
    runner.main(["--data", str(tmp_path), "--results", str(tmp_path), "--device", "cpu", "--list"])
    said = capsys.readouterr().out
    assert "0 runs are recorded" in said
    assert "beauty.bce.samrec.rho-0.5.seed-0" in said
    assert said.count("beauty.bce.sasrec.seed-0\n") == 1
    assert re.search(r"[\d.]+ h +main, 40 runs", said)
    assert re.search(r"[\d.]+ h +in all", said)
    arguments = ["--data", str(tmp_path), "--results", str(tmp_path), "--device", "cpu", "--list"]
    runner.main([*arguments, "--stage", "init", "samrec"])
    said = capsys.readouterr().out
    assert "2 runs" in said
    assert "bert" not in said


def test_landscapes_wait_for_the_runs_they_are_of(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"beauty\.bce\.sasrec\.seed-0 is not recorded"):
        runner.main(["--data", str(tmp_path), "--results", str(tmp_path), "--device", "cpu", "--landscapes"])


def test_landscapes_are_measured_where_the_figures_look_for_them(ended, bench, monkeypatch):
    pair = [
        Training("Beauty", SMALL | {"seed": 0} | ({"method": m} if m != "sasrec" else {})) for m in LIMITS
    ]
    pair = [replace(run, settings=run.settings | {"seed": seed}) for run in pair for seed in (0, 1)]
    monkeypatch.setattr(runner, "_pair", lambda seeds: [run for run in pair if run.settings["seed"] in seeds])
    epochs = kept(bench.work / ended.name)
    for epoch, run in enumerate(pair, start=1):
        (bench.work / run.name).mkdir(exist_ok=True)
        shutil.copy(epochs[epoch], bench.work / run.name / "best.pt")
        write_record(recorded(run), {7: np.zeros(3, int)}, bench.results)
    todo = runner.pictured(bench)
    known = {path.name for path in (RESULTS / PAIR).iterdir()}
    assert {m.name.split("/")[1] for m in todo} | {"trajectories"} == known
    assert len({m.name for m in todo}) == len(todo)
    for kind in ("lines", "barriers"):
        measurement = next(m for m in todo if m.name.split("/")[1] == kind)
        measurement.make(bench, measurement.name)
        assert measurement.path(bench.results).exists()
    assert len(runner.pictured(bench)) == len(todo) - 2


def test_a_step_of_sam_is_measured_on_the_batches_of_a_training(split, monkeypatch):
    """For a small ρ, what is measured is what the Hessian foretells."""
    monkeypatch.setattr(measure, "RHO", 1e-3)
    config = Config(data="", dim=8, max_length=8, batch_size=8, dropout=0.2)
    found = _step(initial_model(config, split.num_items), config, split)
    assert found["loss"]["mean"] == pytest.approx(2 * np.log(2), rel=0.01)
    assert found["saturated_targets"]["mean"] == found["saturated_negatives"]["mean"] == 0
    for key in ("longer", "angle"):
        assert found[key]["mean"] == pytest.approx(found[f"{key}_to_first_order"]["mean"], rel=0.1)
    assert 10 < found["angle_of_batches"]["mean"] < 120


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_with_nothing_stored(name, tmp_path):
    written = render([name], tmp_path / "none", tmp_path)
    assert tmp_path / f"{name}.json" in written


@pytest.mark.slow
def test_the_gallery_is_what_the_stored_results_show(tmp_path):
    main(["--gallery", str(tmp_path)])
    made = {path.name: path for path in tmp_path.iterdir()}
    shown = {path.name: path for path in (FOLDER / "gallery").iterdir()}
    for name, path in made.items():
        if path.suffix in (".json", ".md"):
            assert path.read_bytes() == shown[name].read_bytes(), name
        if path.suffix == ".png":
            assert name in shown


@pytest.mark.parametrize("name", ["barriers", "sharpness"])
def test_a_legend_of_all_panels_covers_none(name):
    drawn = importlib.import_module(f"figures.{name}")
    for figure in drawn.draw(drawn.data(RESULTS)).values():
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(axes.get_legend() for axes in figure.axes)

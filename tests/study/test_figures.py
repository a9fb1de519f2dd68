"""The study: what it stores, and that its figures are drawn from that alone."""

import importlib
import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from figures import measure, trials
from figures import run as runner
from figures.__main__ import FIGURES, FOLDER, main, render
from figures.datasets import described, read_groups
from figures.measure import Bench, Measurement, _step
from figures.plan import (
    LIMITS,
    SEEDS,
    STAGES,
    Training,
    chosen,
    ranked,
)
from figures.records import read_ranks, read_records, write_record
from figures.stopping import Rule, stopped
from figures.style import PAIR
from landscape import InputError
from samrec.checkpoint import kept
from samrec.config import Config
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import groups, metrics
from samrec.methods import initial_model
from samrec.methods.baselines import evaluated
from samrec.training.loop import train
from tests.records import recorded
from tests.study.conftest import look

RESULTS = FOLDER / "results"


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


def test_trials_are_shown_of_the_data_sets_that_have_them(whole, tmp_path):
    records = read_records(whole)
    found = trials.data(whole)
    assert [len(panel["trials"]) for panel in found["panels"].values()] == [14] * 4
    for data, panel in found["panels"].items():
        best = {method: chosen(records, data, method).name for method in LIMITS}
        assert panel["chosen"] == [*best.values()]
        for method, name in best.items():
            rows = {row["run"]: row for row in panel["trials"] if row["method"] == method}
            assert rows[name]["valid"] == max(row["valid"] for row in rows.values())
            of_default = [look(records[ranked(data, method, seed).name])["lambda_max"] for seed in SEEDS]
            assert panel["seeds"][method]["lambda_max"] == [
                pytest.approx(np.mean(of_default)),
                pytest.approx(np.std(of_default, ddof=1)),
            ]
    figure = trials.draw(found)[""]
    for axes in figure.axes[:4]:  # SAMRec over ρ; the second line is SASRec's mean, across
        (line,) = (line for line in axes.lines if line.get_label() == "SAMRec")
        assert line.get_xdata().tolist() == [0.02, 0.05, 0.1, 0.2, 0.5]
    for folder in ("runs", "ranks", "minima"):
        shutil.copytree(whole / folder, tmp_path / folder)
    for path in tmp_path.rglob("*"):
        if path.stem.startswith(("toys", "yelp")) and ("rho-" in path.name or "dropout-" in path.name):
            path.unlink()
    for path in tmp_path.rglob("toys*weight-decay*"):
        path.unlink()
    assert [*trials.data(tmp_path)["panels"]] == ["Beauty", "Sports_and_Outdoors", "Yelp"]


def test_a_data_set_is_described_once_by_counts_and_groups(bench, monkeypatch):
    monkeypatch.setattr(runner, "DATA", ("Beauty",))
    arguments = ["--data", str(bench.data), "--results", str(bench.results), "--device", "cpu", "--counts"]
    runner.main(arguments)
    split = leave_one_out(read(bench.data / "Beauty.txt"))
    found = described("Beauty", bench.results)
    assert found["digest"] == split.interactions.digest
    assert found["baselines"] == dict(evaluated(split, "test"))
    kept = read_groups("Beauty", bench.results)
    for name, members in groups(split, "test").items():
        assert np.array_equal(kept[name], members)
    start, length, target = split.history("test")
    before = [split.interactions.items[a : a + n] for a, n in zip(start, length, strict=True)]
    again = [item in items for item, items in zip(target, before, strict=True)]
    assert kept["repeated"].tolist() == again == (~kept["new"]).tolist()
    lost = found["baselines"]["markov"]["hr@10"] - found["missed"]["markov"]["hr@10"]
    assert 0 <= lost <= kept["repeated"].mean()
    monkeypatch.setattr(runner, "describe", lambda *_: pytest.fail("described again"))
    runner.main(arguments)


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

"""The study: its plan, what it stores, and that its figures are drawn from that alone."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from figures import plan as study
from figures import run as runner
from figures.__main__ import FIGURES, FOLDER, main, render
from figures.measure import Bench, measurements
from figures.plan import (
    EPOCHS,
    PUBLISHED,
    SCALES,
    THIRD,
    TUNED,
    Training,
    chosen,
    finalists,
    full_runs,
    trainings,
    tuned_runs,
    tuning,
)
from figures.records import ANY, LARGEST, Record, read_ranks, read_records, select, write_record
from landscape import InputError, Slice, load
from samrec.evaluation import metrics

RESULTS = FOLDER / "results"


def recorded(run: Training, valid: float = 0.03, **changes) -> Record:
    """A record as a run might leave it."""
    config = run.config(Path())
    values = {
        "name": run.name,
        "command": run.command,
        "data": run.data,
        "digest": "",
        "settings": {key: value for key, value in config.settings.items() if key != "data"},
        "where": {},
        "epochs": config.epochs,
        "best_epoch": config.epochs,
        "log": [],
        "valid": {"ndcg@10": valid},
        "test": {"hr@10": 0.05, "ndcg@10": 0.02},
    }
    return Record(**values | changes)


def of_tuning(best: dict[str, str]) -> dict[str, Record]:
    """Records of all trials on Beauty under BCE; the named one of each method is the best on validation."""
    found = {}
    for run in tuning(SCALES["cpu"]):
        method = run.settings.get("method", "sasrec")
        found[run.name] = recorded(run, valid=0.04 if re.search(best[method], run.name) else 0.03)
    return found


def tuned(best: dict[str, str]) -> dict[str, Record]:
    """Records of the trials and of the finalists, of which the better trial stays the better."""
    found = of_tuning(best)
    for method in best:
        first, second = finalists(found, "Beauty", "bce", method)
        found |= {first.name: recorded(first, 0.04), second.name: recorded(second, 0.05)}
    return found


BEST = {"sasrec": r"dropout-0\.4\.seed", "samrec": r"rho-0\.2\.seed"}


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_has_a_name_of_its_own_that_is_a_file(scale):
    runs = trainings(SCALES[scale], tuned(BEST))
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.+-]+", name) and len(name) < 100 for name in names)
    assert len({json.dumps(run.config(Path()).model_dump()) for run in runs}) == len(runs)


@pytest.mark.parametrize("scale", SCALES)
def test_both_methods_have_as_many_trials(scale):
    for data, loss in product(SCALES[scale].studied, SCALES[scale].losses):
        trials = [r for r in tuning(SCALES[scale]) if (r.data, r.settings["loss"]) == (data, loss)]
        sam = [run for run in trials if run.settings.get("method") == "samrec"]
        assert 2 * len(sam) == len(trials) > 0
        assert {run.settings["epochs"] for run in trials} == {THIRD[loss]}


def test_two_trials_go_on_and_the_better_is_chosen_when_all_is_recorded():
    trials = of_tuning(BEST)
    for method, best in BEST.items():
        assert chosen(trials, "Beauty", "bce", method) is None
        first, second = finalists(trials, "Beauty", "bce", method)
        assert first.settings["epochs"] == EPOCHS["bce"]
        assert re.search(best, second.name)
        for better, settings in ((first, first.settings), (second, second.settings)):
            both = {run.name: recorded(run, 0.05 if run is better else 0.04) for run in (first, second)}
            found = chosen(trials | both, "Beauty", "bce", method)
            assert found == {key: settings[key] for key in ("method", *TUNED) if key in settings}
            for name in (*trials, *both):
                rest = {key: value for key, value in (trials | both).items() if key != name}
                if (trials | both)[name].method == method:
                    assert chosen(rest, "Beauty", "bce", method) is None
    assert chosen({}, "Beauty", "bce", "sasrec") is None


def test_the_choice_knows_the_validation_alone():
    records = tuned(BEST)
    shown = {name: r.model_copy(update={"test": {"ndcg@10": np.nan}}) for name, r in records.items()}
    for method in ("sasrec", "samrec"):
        assert chosen(shown, "Beauty", "bce", method) == chosen(records, "Beauty", "bce", method)


def test_methods_start_with_sam_alone_between_them():
    sasrec, samrec = (Training("Beauty", PUBLISHED[m]).config(Path()) for m in ("sasrec", "samrec"))
    apart = {k for k, v in sasrec.model_dump().items() if samrec.model_dump()[k] != v}
    assert apart == {"method", "rho"}
    for method in ("sasrec", "samrec"):
        first = next(t for t in tuning(SCALES["cpu"]) if t.settings.get("method", "sasrec") == method)
        assert PUBLISHED[method].items() <= first.settings.items()


def test_main_runs_are_found_again_by_seed():
    records = tuned(BEST)
    for run in study.main_runs(SCALES["cpu"], records):
        records.setdefault(run.name, recorded(run))
    for find in (full_runs, tuned_runs):
        found = find(records, "Beauty", "bce")
        assert {method: [run.seed for run in runs] for method, runs in found.items()} == {
            "sasrec": [0, 1, 2],
            "samrec": [0, 1, 2],
        }
    assert tuned_runs(records, "Beauty", "bce")["samrec"][0].settings["rho"] == 0.2
    assert [run.seed for run in full_runs(records, "Yelp", "ce")["samrec"]] == [0]
    assert not tuned_runs(records, "Yelp", "ce")


def test_select_asks_for_all_settings_but_those_that_change_no_result():
    run = Training("Beauty", {"loss": "bce", "epochs": 9, "method": "samrec", "rho": 0.2, "save_every": 3})
    records = {"a": recorded(run)}
    wanted = {"loss": "bce", "epochs": 9, "method": "samrec", "rho": 0.2}
    assert select(records, "Beauty", **wanted) == [records["a"]]
    assert select(records, "Beauty", **wanted | {"rho": ANY}) == [records["a"]]
    for other in ({"rho": 0.1}, {"epochs": 8}, {"dropout": 0.2}, {"every": 5}, {"loss": "ce"}):
        assert not select(records, "Beauty", **wanted | other)
    assert not select(records, "Yelp", **wanted)


def test_a_run_is_unfinished_if_it_was_stopped_or_ended_while_it_was_rising():
    run = recorded(Training("Beauty", {"epochs": 200, "patience": 100}))
    assert run.unfinished
    for epochs, best, unfinished in ((150, 100, True), (150, 50, False), (200, 190, True), (200, 100, False)):
        assert run.model_copy(update={"epochs": epochs, "best_epoch": best}).unfinished == unfinished


def test_ranks_in_a_byte_keep_every_metric_at_twenty(tmp_path):
    ranks = np.random.default_rng(0).geometric(0.01, 500) - 1
    record = recorded(Training("Beauty", {}))
    write_record(record, ranks, tmp_path)
    assert read_records(tmp_path) == {record.name: record}
    kept = read_ranks(record.name, tmp_path)
    assert (kept == np.minimum(ranks, LARGEST)).all()
    assert ranks.max() > LARGEST
    assert {k: v for k, v in metrics(kept).items() if k != "mrr"} == {
        k: v for k, v in metrics(ranks).items() if k != "mrr"
    }


def test_a_file_that_is_no_record_is_said_to_be_none(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text('{"name": 1}')
    with pytest.raises(InputError, match="no record"):
        read_records(tmp_path)


def test_a_run_is_trained_recorded_and_measured_once(data_file, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "Beauty.txt").write_bytes(data_file.read_bytes())
    bench = Bench(tmp_path / "runs", folder, tmp_path / "results", "cpu")
    small = {"epochs": 2, "dim": 8, "eval_every": 1}
    runs = [Training("Beauty", small | extra) for extra in ({}, {"method": "samrec", "rho": 0.2})]
    runner.train(runs, bench, "cpu")
    records = read_records(bench.results)
    assert records.keys() == {run.name for run in runs}
    for record in records.values():
        assert [line["epoch"] for line in record.log] == [1, 2]
        assert record.test == metrics(read_ranks(record.name, bench.results))
        assert str(tmp_path) not in record.model_dump_json()
    monkeypatch.setattr(runner, "sweep", lambda *_: pytest.fail("trained again"))
    runner.train(runs, bench, "cpu")

    wanted = list(measurements(SCALES["cpu"], records))
    assert [m.name for m in wanted] == [f"minima/{name}" for name in records]
    wanted[1].make(bench, wanted[1].name)
    found = json.loads(wanted[1].path(bench.results).read_text())
    assert found["run"] == wanted[1].runs[0].name
    assert found["lambda_max"] > 0
    assert found["measures"]["asam"]["value"] > 0
    assert str(tmp_path) not in json.dumps(found)


def test_the_list_says_what_is_missing_and_how_long_it_takes(tmp_path, capsys):
    runner.main(["--data", str(tmp_path), "--results", str(tmp_path), "--device", "cpu", "--list"])
    said = capsys.readouterr().out
    assert "0 runs are recorded" in said
    assert "beauty.bce.samrec.epochs-67.rho-0.5.seed-0" in said
    assert re.search(r"[\d.]+ min in all", said)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_with_nothing_stored(name, tmp_path):
    written = render([name], tmp_path / "none", tmp_path)
    assert tmp_path / f"{name}.json" in written


def test_the_gallery_is_what_the_stored_results_show(tmp_path):
    main(["--gallery", str(tmp_path)])
    made = {path.name: path for path in tmp_path.iterdir()}
    shown = {path.name: path for path in (FOLDER / "gallery").iterdir()}
    for name, path in made.items():
        if path.suffix in (".json", ".md"):
            assert path.read_bytes() == shown[name].read_bytes(), name
        if path.suffix == ".png":
            assert name in shown


def test_stored_results_are_small_and_name_no_machine():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    for path in files:
        text = path.read_text("utf-8") if path.suffix == ".json" else ""
        if path.suffix == ".npz" and path.parent.name != "ranks":
            text = json.dumps(dict(load(path).provenance))
        assert "/tmp/" not in text, path
        assert "/work/" not in text, path


def test_stored_planes_are_certified():
    planes = [load(path) for path in (RESULTS / "planes").glob("*.npz")]
    assert planes
    for plane in planes:
        assert isinstance(plane, Slice)
        assert plane.certificate["max_error"] <= plane.settings["tol"]


def test_records_are_what_their_names_say():
    records = read_records(RESULTS)
    known = {run.name: run for run in trainings(SCALES["cpu"], records)}
    assert records.keys() <= known.keys() | {run.name for run in trainings(SCALES["cuda"], records)}
    for name, record in records.items():
        assert read_ranks(name, RESULTS).size > 10_000
        if name in known:
            free = {"precision": ANY, "rho": ANY}
            assert select({name: record}, known[name].data, **dict(known[name].settings) | free)
        kept = metrics(read_ranks(name, RESULTS))
        assert {k: kept[k] for k in ("hr@10", "ndcg@10")} == {k: record.test[k] for k in ("hr@10", "ndcg@10")}

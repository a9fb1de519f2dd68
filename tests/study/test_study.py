"""The study's figures of nothing, of one run, and of a made-up study."""

import functools
import importlib
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from figures.__main__ import render
from figures.datasets import read_groups
from figures.gains import holm
from figures.levels import MISSED
from figures.plan import DATA, LIMITS, SEEDS, ranked
from figures.questions import PRIMARY
from figures.records import read_ranks, read_records, write_record
from figures.style import rounded
from tests.study.conftest import USERS, look, made_up, write

NAMES = ("training", "minima", "ranking", "groups", "start")


@functools.lru_cache
def drawn(name: str, results: Path) -> dict:
    """Draw a figure of what JSON keeps of its data, as it is saved; return its panels."""
    module = importlib.import_module(f"figures.{name}")
    text = json.dumps(rounded(module.data(results)), allow_nan=False)
    found = json.loads(text)
    figures = module.draw(found).values() if hasattr(module, "draw") else ()
    for figure in figures:
        figure.draw_without_rendering()
    axes = [axes for figure in figures for axes in figure.axes]
    return {"found": found, "axes": axes, "said": [text.get_text() for a in axes for text in a.texts]}


@pytest.mark.parametrize("name", ["training", "minima"])
def test_nothing_stored_is_drawn_as_missing(name, tmp_path):
    assert all("yet" in text or "few" in text for text in drawn(name, tmp_path)["said"])
    assert drawn(name, tmp_path)["said"]
    assert not drawn(name, tmp_path)["found"]["panels"]


def test_one_run_has_nothing_to_be_compared_with(tmp_path):
    run = ranked("Beauty", "sasrec", 0)
    record, ranks = made_up(run)
    write_record(record, ranks, tmp_path)
    write({"run": run.name, **look(record)}, tmp_path / "minima" / f"{run.name}.json")
    assert not drawn("minima", tmp_path)["found"]["panels"]
    assert not drawn("ranking", tmp_path)["found"]["questions"]


def test_one_pair_has_a_gain_and_no_interval(tmp_path):
    for method in LIMITS:
        write_record(*made_up(ranked("Beauty", method, 0)), tmp_path)
    found = drawn("ranking", tmp_path)["found"]
    (row,) = found["questions"][PRIMARY]
    assert row["ndcg@10"]["late"]["p"] is None
    assert row["decision"] == "unfinished"
    render(["ranking"], tmp_path, tmp_path)
    assert "| 1 of 5 |" in (tmp_path / "ranking.md").read_text()


def test_the_gain_of_a_group_is_of_its_users_alone(tmp_path, whole):
    """SAMRec finds the item of each user of one group at once, and of nobody else."""
    members = read_groups("Toys_and_Games", whole)
    for method, seed in itertools.product(LIMITS, (0, 1)):
        record, ranks = made_up(ranked("Toys_and_Games", method, seed))
        if method == "samrec":
            ranks = {epoch: np.where(members["head"], 0, other) for epoch, other in ranks.items()}
        write_record(record, ranks, tmp_path)
    shutil.copytree(whole / "data", tmp_path / "data")
    for rows in drawn("groups", tmp_path)["found"]["questions"].values():
        by_group = {row["group"]: row for row in rows}
        assert by_group.keys() == {"head", "tail", "cold", "warm"}  # everyone's item is new there
        assert by_group["head"]["ours"] == 1
        assert by_group["head"]["share"] == 0.25
        assert by_group["head"]["gain"] > 3
        assert abs(by_group["tail"]["gain"]) < 0.1
        assert 0 < by_group["cold"]["gain"] < by_group["head"]["gain"]
        of_all = [
            sum(by_group[name]["share"] * by_group[name]["theirs"] for name in pair)
            for pair in (("head", "tail"), ("cold", "warm"))  # everyone is in one of each pair
        ]
        assert of_all[0] == pytest.approx(of_all[1], rel=1e-4)  # six digits are kept


@pytest.mark.parametrize("name", ["groups", "generalization"])
def test_p_is_adjusted_over_all_that_is_looked_at_together(name, whole, monkeypatch):
    """Over the groups of all data sets; over the measures of one setting and outcome."""
    module = importlib.import_module(f"figures.{name}")

    def families():
        if name == "groups":
            return [[row["p"] for row in rows] for rows in module.data(whole)["questions"].values()]
        settings = module.data(whole)["settings"].values()
        return [[cell["p"] for cell in own[of].values()] for own in settings for of in module.OUTCOMES]

    adjusted = families()
    monkeypatch.setattr(module, "holm", np.array)
    for found, raw in zip(adjusted, families(), strict=True):
        assert found == pytest.approx(holm(raw).tolist())
        assert found != raw


def test_each_bad_start_is_drawn_beside_the_good_one_of_its_seed(whole):
    lines = drawn("start", whole)["found"]["lines"]
    assert len(lines) == 8  # two starts, two methods, two seeds
    records = read_records(whole)
    for one, other in zip(lines[::2], lines[1::2], strict=True):
        good, bad = records[one["run"]].settings, records[other["run"]].settings
        assert {key for key in good if good[key] != bad[key]} == {"init"}


def test_the_levels_are_means_over_the_seeds_of_each_method_once(whole):
    rows = {row["method"]: row["reached"] for row in drawn("levels", whole)["found"]["rows"]}
    records = read_records(whole)
    for method, name in (("samrec", "SAMRec"), ("sasrec", "SASRec")):
        runs = [records[ranked("Yelp", method, seed).name] for seed in SEEDS]
        reached = [run.test["ndcg@10"] for run in runs]
        assert rows[name]["Yelp"]["ndcg@10"] == pytest.approx(
            [np.mean(reached), np.std(reached, ddof=1)], rel=1e-5
        )
        assert rows[name]["Yelp"]["seeds"] == 5
        new = [np.mean(read_ranks(run, whole)[0][USERS // 10 :] < 10) * 0.9 for run in runs]
        assert rows[name][MISSED]["hr@10"][0] == pytest.approx(np.mean(new), rel=1e-5)
    assert {"CL4SRec", "S3Rec", "SASRec, weight decay", "SAMRec, tuned", "Markov chain"} <= rows.keys()
    assert "SASRec, equal epochs" not in rows  # the same runs as at equal work
    assert rows["item-kNN"]["Toys_and_Games"]["hr@10"] == [0.02, None]
    assert (rows["item-kNN"]["Yelp"]["hr@10"], rows["item-kNN"][MISSED]["hr@10"]) == (
        [0.04, None],
        [0.02, None],
    )


def test_each_run_of_the_plan_is_of_one_stage_and_costs_something(whole, tmp_path):
    full, none = (drawn("stages", results)["found"] for results in (whole, tmp_path))
    known = read_records(whole)
    assert sum(stage["recorded"] for stage in full.values()) == len(known)
    assert sum(stage["taken"] for stage in full.values()) == pytest.approx(
        sum(record.log[-1]["seconds"] for record in known.values()) / 3600, rel=1e-4
    )
    for name, stage in none.items():
        assert full[name]["runs"] == stage["runs"], name
        assert (full[name]["left"], stage["taken"], stage["recorded"]) == (0, 0, 0)
        assert stage["left"] > 0


def test_a_run_that_was_cut_off_is_still_to_do(tmp_path):
    record, ranks = made_up(ranked("Yelp", "samrec", 0))
    short = {"log": record.log[:3], "epochs": 15, "settings": record.settings | {"epochs": 15}}
    write_record(record.model_copy(update=short), ranks, tmp_path)
    assert drawn("stages", tmp_path)["found"]["main"]["recorded"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_draws_a_study_without_labels_that_overlap(name, whole):
    found = drawn(name, whole)
    assert found["axes"]
    for axes in found["axes"]:
        shown = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes)), axes.get_title()
        rows = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
        rows.sort(key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(rows)), axes.get_title()
    titles = [(axes.figure, axes.title.get_window_extent()) for axes in found["axes"] if axes.get_title()]
    pairs = itertools.combinations(titles, 2)
    assert not any(one is other and a.overlaps(b) for (one, a), (other, b) in pairs)


def test_ratios_of_minima_are_of_runs_that_share_a_seed_and_their_mean_has_students_interval(tmp_path):
    trained = {("sasrec", s): (2.0, 1.0, 4.0)[s] for s in (0, 1, 2)} | {("samrec", s): 1.0 for s in (1, 2)}
    for (method, seed), trace in trained.items():
        record, ranks = made_up(ranked("Beauty", method, seed))
        write_record(record, ranks, tmp_path)
        write(look(record) | {"trace": trace}, tmp_path / "minima" / f"{record.name}.json")
    panel = drawn("minima", tmp_path)["found"]["panels"]["Beauty, BCE"]
    assert panel["seeds"] == [1, 2]
    row = panel["rows"]["trace"]
    assert row["ratios"] == [1, 0.25]
    far = 12.7062 * np.log(2)  # t of one degree of freedom; the two logarithms are ln 2 from their mean
    assert [row["mean"], row["low"], row["high"]] == pytest.approx(
        [0.5, 0.5 * np.exp(-far), 0.5 * np.exp(far)], rel=1e-4
    )


def test_an_estimate_below_zero_has_no_ratio_and_leaves_no_mean(tmp_path):
    for method, seed in itertools.product(LIMITS, (0, 1)):
        record, ranks = made_up(ranked("Beauty", method, seed))
        write_record(record, ranks, tmp_path)
        found = look(record)
        if (method, seed) == ("sasrec", 1):
            found["measures"]["average"]["value"] = -1e-5
        write(found, tmp_path / "minima" / f"{record.name}.json")
    row = drawn("minima", tmp_path)["found"]["panels"]["Beauty, BCE"]["rows"]["average"]
    assert row["ratios"][0] > 0
    assert [row["ratios"][1], row["mean"], row["low"], row["high"]] == [None] * 4
    render(["minima"], tmp_path, tmp_path)
    assert re.search(r"\| average \| [\d.]+ \| – \| – \|", (tmp_path / "minima.md").read_text())


def test_ratios_of_all_pairs_are_compared_with_those_of_their_epochs(tmp_path):
    """Of four pairs, the longer SAMRec trains beside SASRec, the smaller is its trace."""
    for seed, (epochs, trace) in enumerate([(20, 3.0), (40, 2.0), (60, 0.9), (80, 0.5)]):
        for method in LIMITS:
            record, ranks = made_up(ranked("Beauty", method, seed))
            best = epochs if method == "samrec" else 40
            write_record(record.model_copy(update={"best_epoch": best}), ranks, tmp_path)
            found = look(record) | {"trace": trace if method == "samrec" else 1.0}
            write(found, tmp_path / "minima" / f"{record.name}.json")
    row = drawn("minima", tmp_path)["found"]["together"]["trace"]
    assert row == {"pairs": 4, "below": 2, "low": 0.5, "high": 3, "epochs": -1}


def test_the_main_runs_minima_are_all_in_their_table(whole):
    panels = drawn("minima", whole)["found"]["panels"]
    assert len(panels) == len(DATA)
    assert all(panel["seeds"] == list(SEEDS) for panel in panels.values())


def test_sharpness_is_correlated_among_runs_that_differ_in_one_setting(whole):
    """Made up: SAM's minima have 0.4 of the sharpness, and the gap grows with it."""
    found = drawn("generalization", whole)["found"]["settings"]
    assert found.keys() == {"SAM", "radius", "dropout"}
    sam = found["SAM"]["gap"]["trace"]
    assert sam["pairs"] == len(DATA) * len(SEEDS)
    assert sam["tau"] > 0.7
    assert sam["p"] < 0.01
    assert (
        found["SAM"]["ndcg@10"]["trace"]["tau"] < -0.5
    )  # what is tested: the validation is made the contrary
    assert found["radius"]["gap"]["trace"]["pairs"] == len(DATA) * 10  # five radii
    sets = [set(sam["by_stratum"]), set(found["dropout"]["gap"]["trace"]["by_stratum"])]
    assert [len(names) for names in sets] == [20, 8]
    assert all(
        read_records(whole)[name].settings["weight_decay"] == 0
        for setting in found.values()
        for name in setting["runs"]
    )

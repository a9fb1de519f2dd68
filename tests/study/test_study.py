"""The study's questions and decisions, and its figures of nothing, of one run, and of a made-up study."""

import functools
import importlib
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from figures.__main__ import render
from figures.datasets import read_groups
from figures.gains import holm, smallest
from figures.levels import MISSED
from figures.plan import DATA, LIMITS, SEEDS, STAGES, Training, ranked, trainings
from figures.questions import PRIMARY, QUESTIONS, answers, overall
from figures.records import LARGEST, Record, read_ranks, read_records, write_record
from figures.stopping import Rule, stopped
from figures.style import PAIR, rounded
from landscape import InputError
from samrec.evaluation import metrics
from samrec.methods.baselines import BASELINES

NAMES = ("training", "minima", "ranking", "groups", "start")
FLATNESS = ("sam", "asam", "average", "average-adaptive", "fisher-rao", "relative-flatness-embedding")
GAIN = {"Beauty": 0.3, "Toys_and_Games": 0.0, "Sports_and_Outdoors": 0.3, "Yelp": 0.3}
PEAK = 12  # validations up to the best one, of which some rules see none
USERS = 2000


def made_up(run: Training) -> tuple[Record, dict[int, np.ndarray]]:
    """Make up a run as it may be recorded: SAM gains what `GAIN` says, on users who are easy for all."""
    config = run.config(Path("data"))
    rng = np.random.default_rng(sum(map(ord, run.name)))
    easy = np.random.default_rng(0).random(USERS)
    gain = GAIN[run.data] if config.method == "samrec" else 0.0
    count = min(PEAK + config.patience // config.eval_every, config.epochs // config.eval_every)
    epochs = [config.eval_every * (i + 1) for i in range(count)]
    level = [0.25 * (1 - ((i - PEAK + 1) / (2 * count)) ** 2) for i in range(count)]
    log = [
        {"epoch": e, "seconds": 4.0 * e, "loss": 1.0 - v, "ndcg@10": v / 2, "ndcg@20": v / 2, "hr@10": v}
        for e, v in zip(epochs, level, strict=True)
    ]
    ends = [stopped(log, rule) for rule in (run.rule, *run.rules)]
    ranks = {}
    for epoch in {epoch for end in ends for epoch in (end.best, *end.late)}:
        hit = level[epochs.index(epoch)] * (1 + gain) * rng.normal(1, 0.01)
        luck = np.where(rng.random(USERS) < 0.2, rng.random(USERS), easy)
        ranks[epoch] = np.where(luck < hit, rng.integers(0, 10, USERS), LARGEST)
    best = ends[0].best
    reached = metrics(ranks[best])
    record = Record(
        name=run.name,
        command=run.command,
        data=run.data,
        digest="0" * 64,
        settings={key: value for key, value in config.settings.items() if key != "data"},
        where={"cpu": "none"},
        epochs=min(config.epochs, best + config.patience),
        best_epoch=best,
        log=log,
        valid={name: 1 - value for name, value in reached.items()},
        test=reached,
    )
    return record, ranks


def look(record: Record, epoch: float = 1.0) -> dict:
    """Make up what `figures.measure` finds of a checkpoint."""
    rng = np.random.default_rng(sum(map(ord, record.name)))
    flat = (0.4 if record.method == "samrec" else 1.0) * rng.lognormal(0, 0.2) * (1 + 2 * epoch)
    loss = 0.25 + 0.2 * rng.random()
    return {
        "users": 512,
        "loss": loss,
        "valid_loss": loss + 0.5 + 0.05 * flat + 0.02 * rng.random(),
        "weight_norm": 140.0,
        "gradient_norm": 0.1 * flat,
        "lambda_max": 3.4 * flat,
        "trace": 900 * flat,
        "trace_se": 60.0,
        "measures": {key: {"value": 0.05 * flat * rng.lognormal(0, 0.1), "se": None} for key in FLATNESS},
    }


def write(found: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every run of the plan, made up, and what the figures read of their measurements."""
    results = tmp_path_factory.mktemp("whole")
    records: dict[str, Record] = {}
    while new := [run for name, run in trainings(STAGES, records).items() if name not in records]:
        for run in new:  # those that wait for these come next
            write_record(*made_up(run), results)
        records = read_records(results)
    for record in records.values():
        write({"run": record.name, **look(record)}, results / "minima" / f"{record.name}.json")
    for method in LIMITS:
        run = records[ranked("Beauty", method, 0).name]
        looks = [{"epoch": e, **look(run, e / 200)} for e in range(20, 201, 20)]
        path = results / PAIR / "trajectories" / f"Beauty-bce.{method}.json"
        write({"run": run.name, "epochs": looks}, path)
    for number, data in enumerate(DATA):
        counted = {name: {"hr@10": 0.01 * (number + 1), "ndcg@10": 0.005} for name in BASELINES}
        missed = {name: {key: value / 2 for key, value in own.items()} for name, own in counted.items()}
        write({"digest": "0" * 64, "baselines": counted, "missed": missed}, results / "data" / f"{data}.json")
        head, cold = np.arange(USERS) < USERS // 4, np.arange(USERS) % 2 == 0
        repeated = (np.arange(USERS) < USERS // 10) & (data == "Yelp")
        members = {"head": head, "tail": ~head, "cold": cold, "warm": ~cold, "new": ~repeated}
        members["repeated"] = repeated
        np.savez_compressed(results / "data" / f"{data}.npz", **members)
    return results


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


def test_each_question_finds_all_its_runs(whole):
    records = read_records(whole)
    for question in QUESTIONS.values():
        rows = answers(question, records, whole)
        assert [row["data"] for row in rows] == list(question.data)
        for row in rows:
            assert row["seeds"] == list(question.seeds)
            assert not any(row["unfinished"])
            assert row["decision"] != "unfinished"
            assert all(ours != theirs for ours, theirs in row["runs"])


def test_a_gain_that_was_made_up_is_found_where_it_is(whole):
    rows = {row["data"]: row for row in answers(QUESTIONS[PRIMARY], read_records(whole), whole)}
    for data, gain in GAIN.items():
        found = rows[data]["ndcg@10"]["late"]
        assert found["low"] < gain < found["high"]
        assert rows[data]["decision"] == ("helps" if gain else "open")
        assert found["seen"] > 0
    assert overall(list(rows.values())) == "SAM helps"


def test_gains_are_of_the_checkpoints_that_a_rule_chooses(whole):
    """By hand: HR@10 of one data set, from the stored ranks."""
    records = read_records(whole)
    for name in ("equal work", "equal epochs", "sasrec-bert, stopped as S3Rec"):
        question = QUESTIONS[name]
        (row,) = (row for row in answers(question, records, whole) if row["data"] == "Beauty")
        for which in ("late", "best"):
            means = []
            for method in question.methods:
                hits = []
                for seed in question.seeds:
                    run = question.run(records, "Beauty", method, seed)
                    end = stopped(records[run.name].log, question.rule(run))
                    epochs = end.late if which == "late" else (end.best,)
                    hits.append((read_ranks(records[run.name], whole, epochs) < 10).mean())
                means.append(np.mean(hits))
            assert row["hr@10"][which]["gain"] == pytest.approx(means[0] / means[1] - 1)
            assert [row["hr@10"][which][side] for side in ("ours", "theirs")] == pytest.approx(means)


def test_each_question_looks_at_its_runs_under_the_rule_that_it_says():
    sasrec, of_authors, xavier = (
        QUESTIONS[name].run({}, "Yelp", "sasrec", 0)
        for name in ("equal epochs", "sasrec-bert, stopped as S3Rec", "Xavier's start")
    )
    for name, run, rule in (
        (PRIMARY, sasrec, Rule(1200, 80)),
        ("equal epochs", sasrec, Rule(600, 40)),
        ("sasrec-bert", of_authors, Rule(300, 40)),
        ("sasrec-bert, stopped as S3Rec", of_authors, Rule(300, 10, "ndcg@20")),
        ("Xavier's start", xavier, Rule(1200, 80)),
    ):
        assert QUESTIONS[name].rule(run) == rule


def test_one_unfinished_run_leaves_its_data_set_unfinished(whole):
    records = {name: r for name, r in read_records(whole).items() if r.data == "Beauty"}
    name = ranked("Beauty", "samrec", 2).name
    records[name] = records[name].model_copy(update={"log": records[name].log[:-1], "epochs": 95})
    (row,) = answers(QUESTIONS[PRIMARY], records, whole)
    assert row["unfinished"] == [True, False]
    assert row["decision"] == "unfinished"


def test_the_gain_that_could_have_been_seen_is_of_the_pairs_there_are_in_a_family_of_data_sets(whole):
    """Its standard error is that of the interval."""
    late = [ranked("Beauty", method, seed).name for method in LIMITS for seed in (3, 4)]
    records = {name: r for name, r in read_records(whole).items() if name not in late}
    for name, pairs, family in ((PRIMARY, 3, 4), ("gBCE", 3, 2)):
        row = answers(QUESTIONS[name], records, whole)[0]
        assert (row["data"], len(row["seeds"])) == ("Beauty", pairs)
        for found in (row["ndcg@10"]["late"], row["hr@10"]["best"]):
            error = (np.log1p(found["high"]) - np.log1p(found["gain"])) / t.ppf(0.975, pairs - 1)
            assert found["seen"] == pytest.approx(smallest(error, pairs, 0.05 / family))


def test_p_is_adjusted_for_data_sets_that_are_still_to_come(whole, monkeypatch):
    records = {name: r for name, r in read_records(whole).items() if r.data == "Toys_and_Games"}
    (adjusted,) = answers(QUESTIONS[PRIMARY], records, whole)
    (of_two,) = answers(QUESTIONS["gBCE"], records, whole)
    monkeypatch.setattr("figures.questions.holm", np.array)
    for name, found, family in ((PRIMARY, adjusted, 4), ("gBCE", of_two, 2)):
        (raw,) = answers(QUESTIONS[name], records, whole)
        p = raw["hr@10"]["best"]["p"]
        assert found["hr@10"]["best"]["p"] == pytest.approx(min(1, family * p))


def test_runs_on_different_data_of_one_name_are_not_compared(whole):
    records = read_records(whole)
    name = ranked("Beauty", "samrec", 1).name
    records[name] = records[name].model_copy(update={"digest": "1" * 64})
    with pytest.raises(InputError, match=rf"{name} were trained on different data"):
        answers(QUESTIONS[PRIMARY], records, whole)


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

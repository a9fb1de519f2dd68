"""What the study trains, and how what is chosen is chosen."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from figures.ablation import ablation
from figures.plan import (
    CHOSEN_SEEDS,
    DATA,
    LIMITS,
    STAGES,
    bert_run,
    chosen,
    chosen_run,
    cut_off,
    ranked,
    rival,
    shared,
    trainings,
    trials,
)
from figures.stopping import Rule
from tests.records import of_trials, recorded


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
    assert ranked(data, "samrec", 0).rule == Rule(600 if data == "Yelp" else 300, 40)


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


@pytest.mark.parametrize("place", range(7))
def test_what_is_chosen_is_trained_with_all_of_its_trials_settings(place):
    records = of_trials("Yelp", dict.fromkeys(LIMITS, place))
    for method in LIMITS:
        trial, run = trials("Yelp", method)[place], chosen_run(records, "Yelp", method, 6)
        assert run.settings == {**trial.settings, "seed": 6}


def test_a_run_may_have_more_epochs_only_where_its_limit_cut_it_off():
    run = ranked("Yelp", "samrec", 0)
    record = recorded(run)  # its best validation is the seventh of twelve: 25 of 40 epochs of patience
    shorter = {"settings": record.settings | {"epochs": 60}}
    assert cut_off(record.model_copy(update=shorter), run)
    assert not cut_off(record, run)
    assert not cut_off(record.model_copy(update={**shorter, "epochs": 75}), run)  # its patience ended it


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

"""The study's questions: which runs answer each, under which rule, and what is decided of a made-up study."""

import numpy as np
import pytest
from scipy.stats import t

from figures.gains import smallest
from figures.plan import LIMITS, ranked
from figures.questions import PRIMARY, QUESTIONS, answers, overall
from figures.records import read_ranks, read_records
from figures.stopping import Rule, stopped
from landscape import InputError
from tests.study.conftest import GAIN


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

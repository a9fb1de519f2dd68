"""The rule by which each data set is decided, and all of them together."""

import pytest

from figures.questions import decision, overall


def cell(gain, low, high, p):
    return {"gain": gain, "low": low, "high": high, "p": p}


@pytest.mark.parametrize(
    ("late", "best", "decided"),
    [
        (cell(0.1, 0.05, 0.15, 0.01), 0.02, "helps"),
        (cell(0.1, 0.05, 0.15, 0.01), -0.02, "open"),  # the best checkpoints say the contrary
        (cell(-0.1, -0.15, -0.05, 0.01), -0.02, "hurts"),
        (cell(0.1, 0.05, 0.15, 0.06), 0.1, "open"),  # not after Holm
        (cell(0.1, 0.05, 0.15, 0.05), 0.1, "open"),  # p has to be below 5%
        (cell(-0.01, -0.031, 0.02, 0.4), 0.1, "open"),
        (cell(0.0, -0.03, 0.02, 0.4), 0.1, "open"),
        (cell(0.01, -0.02, 0.029, 0.4), 0.1, "no more than 3%"),
        (cell(0.01, -0.02, 0.031, 0.4), 0.1, "open"),
        (cell(0.1, None, None, None), 0.1, "unfinished"),
    ],
)
def test_the_rule_of_decision(late, best, decided):
    row = {"seeds": [0, 1], "planned": 2, "unfinished": [False, False], "ndcg@10": {"late": late}}
    row["ndcg@10"]["best"] = cell(best, None, None, None)
    assert decision(row) == decided
    assert decision(row | {"planned": 3}) == "unfinished"
    assert decision(row | {"unfinished": [True, False]}) == "unfinished"


@pytest.mark.parametrize(
    ("decisions", "decided"),
    [
        (["helps"] * 3 + ["open"], "SAM helps"),
        (["helps"] * 3 + ["hurts"], "it depends on the data"),
        (["helps"] * 2 + ["open"] * 2, "it depends on the data"),
        (["hurts"] * 4, "SAM hurts"),
        (["hurts"] * 3 + ["helps"], "it depends on the data"),
        (["hurts"] * 2 + ["open"] * 2, "it depends on the data"),
        (["open"] * 3 + ["no more than 3%"], "no effect was seen"),
        (["helps"] * 3 + ["unfinished"], "unfinished"),
        (["helps"] * 3, "unfinished"),
    ],
)
def test_the_rule_over_all_data_sets(decisions, decided):
    assert overall([{"decision": one} for one in decisions]) == decided

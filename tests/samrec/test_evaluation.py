import re

import numpy as np
import pytest
import torch

from landscape import InputError
from landscape.statistics import interval, mean
from samrec import chunks
from samrec.cli.evaluate import _tables
from samrec.data.interactions import Interactions
from samrec.data.split import leave_one_out
from samrec.evaluation import RANKED, evaluate, gain, groups, intervals, metrics, ranks
from samrec.facts import difference
from samrec.model import SASRec
from tests.conftest import small_sasrec
from tests.histories import in_rows


@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_ranks_are_those_of_a_loop_over_users(split, part, noise):
    model = small_sasrec(split).eval()
    split = split.disturbed(part, noise, 0)
    data = split.interactions
    expected = []
    for sequence in np.split(data.items, data.offsets[1:-1]):
        *history, target = sequence.tolist() if part == "test" else sequence.tolist()[:-1]
        alone = in_rows(history[-6:])  # the model's max_length
        scores = (model(alone).flatten(0, 1)[alone.last] @ model.item.weight.T)[0].tolist()
        candidates = set(range(data.num_items)) - set(history) - {target}
        expected.append(sum(scores[item] >= scores[target] for item in candidates))
    assert ranks(model, split, part, batch_size=7).tolist() == expected


def fixed_scores(num_items, scores, histories):
    """A model whose expectation is always (1, 0, …), so that an item's first coordinate is its score."""
    split = leave_one_out(Interactions.from_histories(histories, "here"))
    model = SASRec(num_items, dim=2, max_length=5, layers=1, heads=1)
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.copy_(torch.tensor([1.0, 0.0]))
        model.item.weight[:, 0] = torch.tensor(scores)
    return model, split


def test_the_history_is_no_candidate_even_below_zero():
    # ids 1..4; history 1, 2 (test); scores of history higher than the target's, all negative
    model, split = fixed_scores(4, [-1.0, -1.0, -3.0, -4.0], [[1, 2, 3], [1, 2, 4]])
    assert ranks(model, split, "test").tolist() == [0, 1]


def test_a_repeated_target_is_still_a_candidate():
    model, split = fixed_scores(3, [5.0, 1.0, 2.0], [[1, 2, 1], [1, 2, 3]])
    assert ranks(model, split, "test").tolist() == [0, 0]


def test_ties_count_against_the_target():
    model, split = fixed_scores(5, [0.0] * 5, [[1, 2, 3], [3, 4, 5]])
    assert ranks(model, split, "test").tolist() == [2, 2]


def test_scores_that_are_not_finite_are_an_error():
    model, split = fixed_scores(4, [0.0, 1.0, 2.0, float("nan")], [[1, 2, 3], [2, 3, 4]])
    with pytest.raises(InputError, match="not finite"):
        ranks(model, split, "test")


def test_an_expectation_that_is_not_finite_is_an_error():
    model, split = fixed_scores(4, [0.0, 1.0, 2.0, 3.0], [[1, 2, 3], [2, 3, 4]])
    model.norm.bias.data[1] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        ranks(model, split, "test")


def test_ranks_of_a_model_in_half_precision_are_counted_beyond_256():
    model, split = fixed_scores(600, [0.0] * 600, [list(range(first, first + 3)) for first in range(1, 599)])
    assert set(ranks(model.bfloat16(), split, "test").tolist()) == {597}


def test_what_has_no_rank_adds_no_number():
    assert all(gain(torch.tensor([float("nan")]), name).isnan() for name in (*RANKED, "map@5", "precision@5"))


def test_metrics_by_hand():
    found = metrics(np.array([0, 4, 9, 10, 100]))
    assert found["hr@5"] == pytest.approx(2 / 5)
    assert found["hr@10"] == pytest.approx(3 / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(6) + 1 / np.log2(11)) / 5)
    assert found["mrr@5"] == pytest.approx((1 + 1 / 5) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 5 + 1 / 10 + 1 / 11 + 1 / 101) / 5)


def test_metrics_of_nobody_are_missing():
    assert all(np.isnan(value) for value in metrics(np.empty(0, np.int64)).values())


def test_groups_by_hand():
    # Training parts: 1 2 3 | 3 | 2 | 4 5. Items 2 and 3 occur twice, 1, 4 and 5 once, 6 never.
    histories = [[1, 2, 3, 4, 5], [3, 1, 2], [2, 6, 3], [4, 5, 6, 1]]
    split = leave_one_out(Interactions.from_histories(histories, "here"))

    def members(part, **settings):
        return {name: np.flatnonzero(who).tolist() for name, who in groups(split, part, **settings).items()}

    found = members("test", cold=2, head=0.5)  # the head: 2, 3 and, of the equals, 1
    assert found == {"cold": [1, 2], "warm": [0, 3], "tail": [0], "head": [1, 2, 3]}
    assert members("test", cold=4, head=1 / 6) == {
        "cold": [0, 1, 2, 3],
        "warm": [],
        "tail": [0, 2, 3],
        "head": [1],  # of 2 and 3, the lower row
    }
    assert members("test", head=0.3)["head"] == [1, 2]  # 1.8 items of six are two: 2 and 3
    assert members("valid", cold=2, head=0.5) == {
        "cold": [1, 2, 3],
        "warm": [0],
        "tail": [0, 2, 3],
        "head": [1],
    }


@pytest.mark.parametrize("part", ["valid", "test"])
def test_everyone_is_in_one_group_of_each_pair(split, part):
    half = split.fraction(0.5, 0)
    for cold, head in ((0, 0.0), (5, 0.2), (100, 1.0)):
        found = groups(half, part, cold, head)
        for one, other in (("cold", "warm"), ("head", "tail"), ("trained", "untrained")):
            assert np.array_equal(found.pop(one), ~found.pop(other))
        assert not found
    assert np.array_equal(split.evaluated(part)[groups(half, part)["trained"]], half.trained)


def test_groups_do_not_depend_on_what_is_trained_on(split):
    """Models trained on less, or on noise, are compared on the same groups."""
    all_of = groups(split, "test")
    assert all_of.keys() == {"cold", "warm", "tail", "head"}
    found = groups(split.fraction(0.3, 0).noisy(0.9, 0), "test")
    assert all(np.array_equal(found[name], who) for name, who in all_of.items())


@pytest.mark.parametrize("head", [-0.1, 1.5, float("nan")])
def test_the_head_is_a_share_of_the_items(split, head):
    with pytest.raises(InputError, match="the share of head items must be from 0 to 1"):
        groups(split, "test", head=head)


def test_intervals_are_those_of_a_binomial_and_hold_the_metric():
    """HR is a share of users: its bootstrap has a known standard deviation."""
    ranks = np.concatenate([np.zeros(300, np.int64), np.full(1700, 500)])
    low, high = intervals(ranks)["hr@10"]
    deviation = (0.15 * 0.85 / 2000) ** 0.5
    assert (low, high) == pytest.approx((0.15 - 1.96 * deviation, 0.15 + 1.96 * deviation), abs=deviation / 5)
    for name, (low, high) in intervals(ranks, level=0.5, seed=1).items():
        assert low < metrics(ranks)[name] < high
    assert intervals(ranks, seed=1) == intervals(ranks, seed=1) != intervals(ranks, seed=2)


def test_evaluation_leaves_the_mode_as_it_was(split):
    model = small_sasrec(split)
    assert model.training
    first = evaluate(model, split, "valid")
    assert model.training
    assert evaluate(model, split, "valid") == first  # dropout was off


def test_ranks_do_not_depend_on_the_chunks(split, monkeypatch):
    model = small_sasrec(split)
    whole = ranks(model, split, "test")
    monkeypatch.setitem(chunks.SCORES, "cpu", 3 * split.num_items)
    for batch_size in (7, 1000):
        assert np.array_equal(ranks(model, split, "test", batch_size), whole)


def test_an_interval_that_is_written_holds_the_interval():
    gains = np.random.default_rng(0).random((40, 2, 50))
    for before, after in gains:
        low, high = interval(*mean(after - before), len(after))
        written = re.search(r"\[(.*), (.*)\]", difference("a", "b", before, after))
        assert float(written[1]) <= low
        assert float(written[2]) >= high
    for low, high in np.sort(gains[:, 0, :2]):
        summary = {
            "mrr": low,
            "intervals": {"mrr": (low, high)},
            "groups": {},
            "noise": 0,
            "without_target": 0,
        }
        (table,) = _tables(summary | {"path": "", "part": "", "users": 1, "cold": 5, "head": 0.2}, ["mrr"])
        written = dict(table.rows)
        assert float(written["  95% from"]) <= low
        assert float(written["  95% to"]) >= high

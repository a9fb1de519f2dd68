"""Metrics at any K, repeated items as misses, and the catalogue: each by a loop that knows the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape import InputError
from samrec.catalogue import catalogue_metrics, separated
from samrec.data.interactions import Interactions
from samrec.data.split import leave_one_out
from samrec.evaluation import MISSED, metrics, missing_repeats, ranks
from samrec.task import ranking
from tests.conftest import small_sasrec

RANKS = st.lists(st.one_of(st.integers(0, 60), st.just(MISSED)), min_size=1, max_size=20)


def by_list(rank, k):
    """Whether each place of a list of k items holds the one relevant item."""
    return [place == rank for place in range(k)]


def average_precision(hits):
    found, total = 0, 0.0
    for place, hit in enumerate(hits, start=1):
        found += hit
        total += hit * found / place
    return total  # divided by the number of relevant items, one


@given(RANKS, st.integers(1, 70))
def test_metrics_at_k_are_those_of_a_list(of_users, k):
    lists = [by_list(rank, k) for rank in of_users]
    expected = {
        "hr": np.mean([any(hits) for hits in lists]),
        "recall": np.mean([sum(hits) / 1 for hits in lists]),
        "precision": np.mean([sum(hits) / k for hits in lists]),
        "map": np.mean([average_precision(hits) for hits in lists]),
        "mrr": np.mean(
            [max((hit / place for place, hit in enumerate(hits, 1)), default=0) for hits in lists]
        ),
        "ndcg": np.mean(
            [sum(hit / math.log2(place + 1) for place, hit in enumerate(hits, 1)) for hits in lists]
        ),
    }
    found = metrics(np.array(of_users), [f"{name}@{k}" for name in expected])
    assert found == pytest.approx({f"{name}@{k}": value for name, value in expected.items()}, abs=1e-12)


def test_what_is_never_found_adds_nothing():
    assert set(metrics(np.array([MISSED, MISSED])).values()) == {0.0}


@pytest.mark.parametrize(
    "name", ["hr@0", "hr@", "hr@-1", "hr@1.5", "hr@²", "auc@5", "coverage", "coverage@0", "hr"]
)
def test_a_metric_that_is_not_one_is_refused(name):
    with pytest.raises(InputError, match=r"no metric matches .*; metrics: hr@K") as caught:
        separated(["mrr", name])
    assert "popularity@K" in str(caught.value)


def test_metrics_are_separated():
    found = ["hr@7", "mrr"], ["coverage@3", "novelty@12"]
    assert separated(["coverage@3", "hr@7", "mrr", "novelty@12"]) == found
    assert separated(["Coverage@3", "HR@7", "MRR", "novelty@12"]) == found  # as tables write them


def test_repeated_targets_are_misses_where_asked():
    histories = [[1, 2, 1], [1, 2, 3], [2, 3, 1, 2, 2]]
    split = leave_one_out(Interactions.from_histories(histories, "here"))
    model = small_sasrec(split)
    for part, repeated in (("test", [True, False, True]), ("valid", [False, False, True])):
        of_users = ranks(model, split, part)
        found = missing_repeats(of_users, split, part)
        assert (found == MISSED).tolist() == repeated
        assert np.array_equal(found[found != MISSED], of_users[found != MISSED])


@pytest.mark.parametrize("k", [1, 5, 400])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_the_catalogue_is_that_of_a_loop_over_users(split, part, k):
    """The lists of the oracle are read off the ranks: an item's is what it gets when it is held out."""
    model, data = small_sasrec(split).eval(), split.interactions
    histories = [h.tolist() for h in np.split(data.items, data.offsets[1:-1])]
    lists = lists_of(model, split, part, histories, k)
    training = [h[:n] for h, n in zip(histories, split.train_lengths, strict=True)]
    count = [sum(own.count(item) for own in training) for item in range(split.num_items)]
    users = [sum(item in own for own in training) for item in range(split.num_items)]
    bits = [-math.log2(max(n, 1) / len(histories)) for n in users]
    expected = {
        f"coverage@{k}": len(set().union(*lists)) / split.num_items,
        f"popularity@{k}": np.mean([np.mean([count[item] for item in own]) for own in lists]),
        f"novelty@{k}": np.mean([np.mean([bits[item] for item in own]) for own in lists]),
    }
    assert catalogue_metrics(model, split, part, list(expected)) == pytest.approx(expected)


def test_several_cutoffs_at_once_are_each_by_itself(split):
    model = small_sasrec(split).eval()
    names = [f"{name}@{k}" for name in ("coverage", "popularity", "novelty") for k in (1, 2, 5)]
    alone = {name: catalogue_metrics(model, split, "test", [name])[name] for name in names}
    assert catalogue_metrics(model, split, "test", names) == alone


def lists_of(model, split, part, histories, k):
    """The first k items of each user who is evaluated: those that rank below k when they are held out."""
    held = 2 if part == "valid" else 1
    asked, who = [], []
    for user in split.evaluated("test"):
        history = histories[user][:-held]
        for item in sorted(set(range(split.num_items)) - set(history)):
            asked.append([*history, item] if part == "test" else [*history, item, 0])
            who.append(user)
    data = split.interactions
    offsets = np.cumsum([0, *map(len, asked)])
    every = leave_one_out(Interactions(np.concatenate(asked), offsets, data.item_ids, "here"))
    of_item = ranks(model, every, part)
    found = {user: set() for user in split.evaluated("test")}
    for history, user, rank in zip(asked, who, of_item, strict=True):
        if rank < k:
            found[user].add(history[-held])
    return [found[user] for user in split.evaluated("test")]


def test_users_who_have_had_every_item_have_no_list():
    full = leave_one_out(Interactions.from_histories([[1, 2, 3, 1, 1], [1, 2, 3, 1]], "here"))
    with pytest.raises(InputError, match="every user has had every item"):
        catalogue_metrics(small_sasrec(full).eval(), full, "test", ["coverage@5"])
    some = leave_one_out(Interactions.from_histories([[1, 2, 3, 3, 1, 1], [1, 2, 2, 1]], "here"))
    asked = ["coverage@5", "popularity@5", "novelty@5"]
    found = catalogue_metrics(small_sasrec(some).eval(), some, "test", asked)
    # Item 3 for the second user: twice in the training part of one of two users.
    assert found == {"coverage@5": 1 / 3, "popularity@5": 2.0, "novelty@5": 1.0}


# The command


def test_evaluate_takes_metrics_of_any_k(runs, answer, landscape, monkeypatch):
    best = runs / "sasrec" / "best.pt"
    chosen = ["hr@7", "map@7", "coverage@3", "popularity@3"]
    options = [part for name in chosen for part in ("--metric", name)]
    found = answer("evaluate", "--ckpt", best, "--device", "cpu", *options)
    of_users = ranking(best, "test", device="cpu").ranks
    assert (found["hr@7"], found["map@7"]) == (np.mean(of_users < 7), metrics(of_users, ["mrr@7"])["mrr@7"])
    assert found["ndcg@10"] == metrics(of_users)["ndcg@10"]
    assert 0 < found["coverage@3"] <= 1 < found["popularity@3"]
    assert set(found["intervals"]) >= {"hr@7", "map@7", "mrr"}
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = landscape("evaluate", "--ckpt", best, "--device", "cpu", *options)
    assert code == 0
    assert all(name in out for name in ("HR@7", "MAP@7", "coverage@3", "popularity@3"))
    assert "NDCG@10" not in out


def test_evaluate_takes_repeats_as_misses(answer, tmp_path):
    data = tmp_path / "repeats.txt"
    lines = [
        f"{u} {u % 5 + 1} {(u + 1) % 5 + 6} {u % 5 + 1}" if u % 2 else f"{u} 1 2 3 4" for u in range(1, 31)
    ]
    data.write_text("\n".join(lines))
    run = tmp_path / "run"
    answer(
        "train", "--data", data, "--out", run, "--dim", 4, "--epochs", 1, "--eval-every", 1, "--device", "cpu"
    )
    either, never = (
        answer(
            "evaluate", "--ckpt", run / "best.pt", "--repeats", how, "--metric", "hr@100", "--device", "cpu"
        )
        for how in ("candidate", "miss")
    )
    assert (either["hr@100"], never["hr@100"]) == (1.0, 0.5)
    assert (either["repeats"], never["repeats"]) == ("candidate", "miss")


def test_a_metric_that_evaluate_does_not_know_is_one_line(runs, landscape):
    code, out, err = landscape("evaluate", "--ckpt", runs / "sasrec" / "best.pt", "--metric", "auc")
    assert (code, out) == (2, "")
    assert "no metric matches 'auc'" in err

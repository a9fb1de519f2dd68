import warnings
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samrec import chunks
from samrec.data.interactions import Interactions
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.data.synthetic import markov as markov_data
from samrec.evaluation import metrics
from samrec.methods.baselines import BASELINES, item_knn, markov, popularity, rank_baseline

PARTS = ["valid", "test"]


def split_of(histories):
    with warnings.catch_warnings(action="ignore"):  # of users who are too short to be evaluated
        return leave_one_out(Interactions.from_histories(histories, "here"))


# In plain Python, from the definitions: a training part is a list, and `score(history, item)` a number.


def training_of(split):
    """What is counted: the training part of each trained user, as training sees it."""
    starts = split.interactions.offsets
    return [split.train_items[starts[u] : starts[u] + split.train_lengths[u]].tolist() for u in split.trained]


def popularity_by_hand(training, items):
    return lambda history, item: sum(each.count(item) for each in training)


def markov_by_hand(training, items):
    pairs = [pair for each in training for pair in pairwise(each)]
    return lambda history, item: pairs.count((history[-1], item))


def knn_by_hand(training, items, neighbours=100, half_life=None):
    users = [{u for u, each in enumerate(training) if item in each} for item in range(items)]

    @cache
    def cosine(a, b):
        """To the multiple of 2^-32 that makes sums exact."""
        common = len(users[a] & users[b]) if a != b else 0
        return round(common / sqrt(len(users[a]) * len(users[b])) * 2**32) / 2**32 if common else 0.0

    @cache
    def least(a):
        return sorted((cosine(a, b) for b in range(items)), reverse=True)[:neighbours][-1]

    def score(history, item):
        total = 0.0
        for age, each in enumerate(reversed(history)):
            if cosine(each, item) >= least(each):
                total += cosine(each, item) * (1 if half_life is None else 0.5 ** (age / half_life))
        return total

    return score


def ranks_by_hand(oracle, split, part):
    training, items = training_of(split), split.num_items
    score, count = oracle(training, items), cache(partial(popularity_by_hand(training, items), None))
    found = []
    for user in split.evaluated("test"):
        start, stop = split.interactions.offsets[user : user + 2]
        sequence = split.interactions.items[start:stop].tolist()
        *history, target = sequence if part == "test" else sequence[:-1]
        keys = [(score(history, item), count(item)) for item in range(items)]
        rivals = set(range(items)) - set(history) - {target}
        found.append(sum(keys[item] >= keys[target] for item in rivals))
    return found


ORACLES = {
    "popularity": popularity_by_hand,
    "markov": markov_by_hand,
    "item-knn": knn_by_hand,
    "recent-knn": partial(knn_by_hand, half_life=1),
}

HISTORIES = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=7), min_size=1, max_size=8).filter(
    lambda histories: any(len(h) >= 3 for h in histories)
)
"""Few items, so that ties, repeats, unseen items and last items without a successor are common."""


@settings(max_examples=60)
@given(HISTORIES)
def test_every_baseline_ranks_as_its_definition_does(histories):
    split = split_of(histories)
    assert ORACLES.keys() == BASELINES.keys()
    for name, build in BASELINES.items():
        for part in PARTS:
            expected = ranks_by_hand(ORACLES[name], split, part)
            assert rank_baseline(build(split), split, part).tolist() == expected


@settings(max_examples=60)
@given(HISTORIES, st.integers(1, 3), st.sampled_from([None, 0.5, 1.0]))
def test_neighbours_and_half_life_are_what_they_say(histories, neighbours, half_life):
    split = split_of(histories)
    by_hand = partial(knn_by_hand, neighbours=neighbours, half_life=half_life)
    found = rank_baseline(item_knn(split, neighbours, half_life), split, "test")
    assert found.tolist() == ranks_by_hand(by_hand, split, "test")


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_same_on_longer_histories_of_more_items(split, name, noise):
    part = split.fraction(0.5, seed=1).noisy(noise, seed=2)
    found = rank_baseline(BASELINES[name](part), part, "test")
    assert found.tolist() == ranks_by_hand(ORACLES[name], part, "test")


@pytest.mark.parametrize("name", BASELINES)
def test_ranks_do_not_depend_on_the_chunks(split, name, monkeypatch):
    whole = rank_baseline(BASELINES[name](split), split, "test")
    for rows in (1, 7):
        monkeypatch.setitem(chunks.SCORES, "cpu", rows * split.num_items)
        assert np.array_equal(rank_baseline(BASELINES[name](split), split, "test"), whole)


@pytest.mark.parametrize("name", BASELINES)
def test_numbering_the_items_otherwise_changes_nothing(split, name):
    other = np.random.default_rng(0).permutation(split.num_items)
    renumbered = leave_one_out(replace(split.interactions, items=other[split.interactions.items]))
    found = [rank_baseline(BASELINES[name](one), one, "test") for one in (split, renumbered)]
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_held_out_is_not_counted(split, name):
    """Other validation and test items change the question, not what is known."""
    items = split.interactions.items.copy()
    ends = split.interactions.offsets[1:][split.evaluated("test")]
    rng = np.random.default_rng(0)
    for back in (1, 2):
        items[ends - back] = rng.integers(split.num_items, size=len(ends))
    other = leave_one_out(replace(split.interactions, items=items))
    assert np.array_equal(
        rank_baseline(BASELINES[name](other), split, "test"),
        rank_baseline(BASELINES[name](split), split, "test"),
    )


def test_an_item_nobody_was_trained_on_ranks_last():
    # 9 is held out of the first user alone; everything else was seen in training.
    split = split_of([[1, 2, 3, 4, 9], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    for build in BASELINES.values():
        (rank, *_) = rank_baseline(build(split), split, "test")
        assert rank == split.num_items - 4 - 1  # all but the history and itself


def test_without_a_transition_popularity_decides():
    # Nothing follows 7 in training. Of what is no history, 2 is more popular than 1, and 1 than 5.
    split = split_of([[3, 4, 7, 1], [2, 1, 2, 5, 5], [1, 2, 2, 6, 6]])
    assert rank_baseline(markov(split), split, "test")[0] == 1
    assert rank_baseline(popularity(split), split, "test")[0] == 1


def test_a_repeated_target_is_a_candidate():
    split = split_of([[1, 2, 1], [1, 2, 1, 3, 3], [1, 2, 1, 4, 4]])
    assert rank_baseline(popularity(split), split, "test")[0] == 0


def test_a_chain_is_learned_by_the_chain():
    """On synthetic data that are a Markov chain, the chain is far above popularity, and above kNN."""
    drawn = markov_data(users=2000, items=100, mean_length=12, seed=0)
    split = leave_one_out(drawn.interactions)
    found = {
        n: metrics(rank_baseline(build(split), split, "test"))["hr@10"] for n, build in BASELINES.items()
    }
    assert 2 * found["popularity"] < found["markov"] <= drawn.ideal_hr10 + 0.03
    assert found["markov"] > 0.8 * drawn.ideal_hr10
    assert found["markov"] > found["recent-knn"] > found["item-knn"]


def test_the_command_prints_what_is_ranked(answer, data_file):
    found = answer("baselines", "--data", data_file, "--part", "valid", "--train-fraction", 0.5, "--seed", 3)
    split = leave_one_out(read(data_file)).fraction(0.5, 3)
    assert list(found) == ["path", "part", "split", "users", "baselines"]
    assert (found["path"], found["part"], found["users"]) == (
        str(data_file),
        "valid",
        len(split.evaluated("test")),
    )
    assert found["baselines"] == {
        name: metrics(rank_baseline(build(split), split, "valid")) for name, build in BASELINES.items()
    }


def test_the_command_takes_the_noise_that_training_takes(answer, data_file):
    found = answer("baselines", "--data", data_file, "--noise", 0.3, "--seed", 1)["baselines"]
    split = leave_one_out(read(data_file)).noisy(0.3, 1)
    assert found["markov"] == metrics(rank_baseline(markov(split), split, "test"))


def test_the_command_prints_a_row_a_baseline(landscape, data_file):
    code, out, _ = landscape("baselines", "--data", data_file)
    assert code == 0
    for name in BASELINES:
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train-fraction", 0], "setting train_fraction: must be greater than 0, not 0"),
        (["--noise", 2], "setting noise: must be less than or equal to 1, not 2"),
        (["--core", 1000], "use a smaller core"),
        (["--format", "pairs"], "expected 'user item'"),
    ],
)
def test_bad_settings_are_one_line(landscape, data_file, arguments, message):
    code, out, err = landscape("baselines", "--data", data_file, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_is_one_line(landscape, tmp_path):
    code, _, err = landscape("baselines", "--data", tmp_path / "none.txt")
    assert code == 2
    assert "No such file" in err

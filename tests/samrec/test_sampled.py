"""Ranks among sampled items: what is drawn, and what the ranks are, each time and on average."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from landscape import InputError
from samrec import sampled
from samrec.data.interactions import Interactions
from samrec.data.ragged import slices
from samrec.data.split import leave_one_out
from samrec.evaluation import metrics, ranks
from samrec.recommendation import best
from samrec.sampled import KINDS, negatives, sampled_ranks
from samrec.task import ranking
from tests.conftest import small_sasrec

SEQUENCES = st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=14), min_size=1, max_size=8)


def of(*sequences):
    return leave_one_out(Interactions.from_histories(sequences, "here"))


def sequences_of(split):
    data = split.interactions
    return [own.tolist() for own in np.split(data.items, data.offsets[1:-1])]


def weights_of(split, kind):
    """By a loop: how likely each item is drawn, before the user's own are left out."""
    counts = [0] * split.num_items
    for own, length in zip(sequences_of(split), split.train_lengths, strict=True):
        for item in own[:length]:
            counts[item] += 1
    return np.array(counts if kind == "pop100" else [1] * split.num_items)


def scores_of(model, split, part):
    """Each evaluated user's score of every item: the recommendations of a top as long as the catalogue."""
    start, length, _ = split.history(part)
    shown = slices(split.interactions.items, start, length)
    owner, item, score = best(model, shown, split.num_items, exclude_seen=False)
    table = np.empty((len(length), split.num_items))
    table[owner, item] = score
    return table


@pytest.mark.parametrize("kind", KINDS)
@given(sequences=SEQUENCES, seed=st.integers(0, 99), part=st.sampled_from(["valid", "test"]))
def test_nothing_of_the_user_is_drawn_and_all_else_may_be(kind, sequences, seed, part):
    split = of(*sequences, [13, 14, 15, 16])
    weights = weights_of(split, kind)
    drawn = negatives(split, part, kind, seed)
    assert drawn.shape == (len(split.evaluated(part)), 100)
    for user, row in zip(split.evaluated(part), drawn, strict=True):
        possible = set(np.flatnonzero(weights).tolist()) - set(sequences_of(split)[user])
        assert set(row.tolist()) <= (possible or {-1})


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_drawn_as_often_as_they_weigh(kind):
    split = of([1, 2, 3, 4], [5, 5, 5, 6, 7, 8], [9, 5, 6, 9, 1], [2, 9, 9, 9, 3, 7, 8])
    weights = weights_of(split, kind)
    drawn = np.concatenate([negatives(split, "test", kind, seed) for seed in range(300)], axis=1)
    for user, row in enumerate(drawn):
        free = weights.copy()
        free[sequences_of(split)[user]] = 0
        chance = free / free.sum()
        counts = np.bincount(row, minlength=split.num_items)
        assert (abs(counts - 30_000 * chance) <= 5 * np.sqrt(30_000 * chance * (1 - chance))).all()


def test_the_two_kinds_are_drawn_apart_where_they_weigh_the_same():
    split = of([1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 1, 2])
    assert set(weights_of(split, "pop100")) == {1}
    uniform, popular = (negatives(split, "test", kind) for kind in KINDS)
    assert not np.array_equal(uniform, popular)


@pytest.mark.parametrize("noise", [0.0, 0.6])
@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_those_of_a_loop(split, kind, part, noise, monkeypatch):
    monkeypatch.setattr(sampled, "BATCH", 7)
    model = small_sasrec(split).eval()
    shown = split.disturbed(part, noise, 0)
    table, drawn = scores_of(model, shown, part), negatives(split, part, kind, 3, shown)
    _, _, targets = split.history(part)
    expected = [
        sum(scores[item] >= scores[target] for item in row)
        for scores, target, row in zip(table, targets.tolist(), drawn.tolist(), strict=True)
    ]
    found = sampled_ranks(model, split, part, kind, 3, shown)
    assert found.tolist() == expected
    own = [set(sequence) for sequence in sequences_of(shown)]
    assert all(own[user].isdisjoint(row) for user, row in zip(split.evaluated(part), drawn, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_over_draws_is_the_binomial_one(split, kind):
    """Each of 100 items is above the target with one chance, so the rank is binomial."""
    model, part = small_sasrec(split).eval(), "test"
    table, weights, sequences = scores_of(model, split, part), weights_of(split, kind), sequences_of(split)
    _, _, targets = split.history(part)
    above = []
    for user, scores, target in zip(split.evaluated(part), table, targets, strict=True):
        free = weights.copy()
        free[sequences[user]] = 0
        above.append(free[scores >= scores[target]].sum() / free.sum())
    draws = [sampled_ranks(model, split, part, kind, seed) for seed in range(30)]
    for k in (5, 20):
        chance = binom.cdf(k - 1, 100, above)
        error = np.sqrt((chance * (1 - chance)).sum() / len(draws)) / len(chance)
        found = np.mean([metrics(of_users, [f"hr@{k}"])[f"hr@{k}"] for of_users in draws])
        assert abs(found - chance.mean()) < 5 * error


def test_equal_scores_count_against_the_target_and_no_candidates_do_not():
    split = of([1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [6, 7, 8])
    model = small_sasrec(split).eval()
    model.item.weight.data[:] = 1.0
    assert sampled_ranks(model, split, "test", "uni100").tolist() == [100, 100, 100]
    full = of([1, 2, 3], [3, 1, 2])
    for kind in KINDS:
        assert sampled_ranks(small_sasrec(full).eval(), full, "test", kind).tolist() == [0, 0]
        assert ranks(small_sasrec(full), full, "test").tolist() == [0, 0]


def test_weights_that_are_not_finite_are_refused(split):
    model = small_sasrec(split).eval()
    model.item.weight.data[3] = np.nan
    with pytest.raises(InputError, match="scores are not finite"):
        sampled_ranks(model, split, "test", "uni100")


# The command


def test_evaluate_labels_what_is_sampled(runs, answer, landscape):
    checkpoint = runs / "sasrec" / "best.pt"
    command = ["evaluate", "--ckpt", checkpoint, "--device", "cpu"]
    plain = answer(*command)
    found = answer(*command, "--sampled", "uni100", "--sampled", "pop100", "--seed", 4)
    for kind in KINDS:
        of_users = ranking(checkpoint, "test", seed=4, sampled=[kind]).sampled[kind]
        for name, value in metrics(of_users).items():
            assert found["sampled"].pop(f"{name} ({kind})") == value
    assert (found["sampled"], plain["sampled"]) == ({}, {})
    assert all(found[name] == plain[name] for name in ("hr@10", "ndcg@10", "mrr"))  # the full ones stay
    again = answer(*command, "--sampled", "uni100", "--seed", 5)["sampled"]
    assert again != answer(*command, "--sampled", "uni100", "--seed", 4)["sampled"]
    code, out, err = landscape(*command, "--sampled", "pop100", "--metric", "hr@10")
    assert code == 0, err
    assert "HR@10 (pop100)" in out
    assert "not comparable with the full ranking" in " ".join(out.split())
    assert "uni100" not in out
    code, out, err = landscape(*command, "--sampled", "uni10")
    assert (code, out) == (2, "")
    assert "'uni100', 'pop100'" in err


def test_repeats_as_misses_hold_for_samples_too(answer, tmp_path):
    data = tmp_path / "repeats.txt"
    data.write_text(
        "\n".join(f"{u} {u % 9 + 1} {(u + 3) % 9 + 1} {(u + 4) % 9 + 1} {u % 9 + 1}" for u in range(1, 31))
    )
    run = ["--dim", 4, "--epochs", 1, "--eval-every", 1, "--device", "cpu"]
    answer("train", "--data", data, "--out", tmp_path / "run", *run)
    command = ["evaluate", "--ckpt", tmp_path / "run" / "best.pt", "--sampled", "uni100", "--device", "cpu"]
    assert answer(*command)["sampled"]["mrr (uni100)"] > 0
    assert answer(*command, "--repeats", "miss")["sampled"]["mrr (uni100)"] == 0

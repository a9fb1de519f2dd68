"""Noise in training, noise in what is shown at the test, and who is ranked apart."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape import InputError
from samrec.data.interactions import Interactions
from samrec.data.noise import insertions
from samrec.data.packing import TrainingBatches
from samrec.data.split import leave_one_out
from samrec.evaluation import ranks
from tests.conftest import RUN, small_sasrec

CPU = torch.device("cpu")
SEQUENCES = st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=14), min_size=1, max_size=8)
SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 2**32)


def of(sequences):
    return leave_one_out(Interactions.from_histories(sequences, "here"))


def sequences_of(interactions):
    return [h.tolist() for h in np.split(interactions.items, interactions.offsets[1:-1])]


def training_places(split):
    """Where the training interactions of the users that are trained on stand."""
    offsets = split.interactions.offsets
    return {
        place
        for user in split.trained
        for place in range(offsets[user], offsets[user] + split.train_lengths[user])
    }


def refuses(split, message, share):
    for noise in (split.noisy, lambda *a: split.disturbed("test", *a)):
        with pytest.raises(InputError, match=message) as caught:
            noise(share, 0)
        assert "\n" not in str(caught.value)


# Noise in training


@given(SEQUENCES, SHARES, SEEDS, st.sampled_from([0.3, 1.0]))
def test_noise_replaces_exactly_its_share_of_what_is_trained_on(sequences, share, seed, fraction):
    sequences = [*sequences, [1, 2, 3, 4]]  # more than one item, and someone to train on
    split = of(sequences).fraction(fraction, seed)
    clean, noisy = split.interactions.items, split.noisy(share, seed).train_items
    places = training_places(split)
    changed = set(np.flatnonzero(noisy != clean).tolist())
    assert len(changed) == round(share * len(places))
    assert changed <= places
    assert 0 <= noisy.min() <= noisy.max() < split.num_items


@given(SEQUENCES, SHARES, SHARES, SEEDS)
def test_shares_of_noise_are_nested_and_depend_on_the_seed_alone(sequences, a, b, seed):
    split = of([*sequences, [1, 2, 3, 4]])
    clean = split.interactions.items
    less, more = (split.noisy(share, seed).train_items for share in sorted((a, b)))
    kept = less != clean
    assert np.array_equal(less[kept], more[kept])
    assert np.array_equal(split.noisy(max(a, b), seed).train_items, more)


def test_another_seed_is_other_noise(split):
    assert not np.array_equal(split.noisy(0.5, 0).train_items, split.noisy(0.5, 1).train_items)


def test_what_is_replaced_and_by_what_is_uniform():
    split = of([[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]])
    draws, share = 3000, 1 / 3  # three of nine places
    noisy = np.stack([split.noisy(share, seed).train_items[:9] for seed in range(draws)])
    clean = split.interactions.items[:9]
    changed = (noisy != clean).sum(0)
    assert abs(changed - draws / 3).max() < 5 * (draws * 2 / 9) ** 0.5
    for item in range(4):
        counts = np.bincount(noisy[:, clean == item].ravel(), minlength=4)
        others = np.delete(counts, item)
        assert abs(others - others.mean()).max() < 5 * others.mean() ** 0.5


@pytest.mark.parametrize("part", ["valid", "test"])
def test_evaluation_stays_clean(split, part):
    noisy = split.noisy(0.8, 0)
    for clean, same in zip(split.history(part), noisy.history(part), strict=True):
        assert np.array_equal(clean, same)
    assert noisy.interactions is split.interactions
    model = small_sasrec(split)
    assert np.array_equal(ranks(model, noisy, part), ranks(model, split, part))


def test_training_shows_the_noise_and_draws_outside_of_it(split):
    noisy = split.fraction(0.5, 1).noisy(0.6, 0)
    batches = TrainingBatches(noisy, 50, CPU, negatives=200)
    offsets, lengths = split.interactions.offsets, split.train_lengths
    order = noisy.trained
    (batch,) = batches.of_users(order, len(order), (0,))
    for number, user in enumerate(order, start=1):
        seen = noisy.train_items[offsets[user] : offsets[user] + lengths[user]].tolist()
        slots = batch.inputs.segments == number
        inputs, targets = batch.inputs.items[slots].tolist(), batch.targets[slots].tolist()
        assert list(zip(inputs, targets, strict=True)) == list(pairwise(seen))
        negatives = set(batch.negatives[:, slots].flatten().tolist())
        assert negatives == set(range(split.num_items)) - set(seen)


def test_the_validation_loss_asks_about_clean_histories(split):
    assert np.array_equal(split.noisy(0.5, 0).with_validation().train_items, split.interactions.items)


def test_noise_of_nothing_is_nothing(split):
    assert np.array_equal(split.noisy(0.0, 0).train_items, split.interactions.items)
    shown = split.disturbed("test", 0.0, 0)
    assert shown.interactions.digest == split.interactions.digest
    model = small_sasrec(split)
    assert np.array_equal(ranks(model, shown, "test"), ranks(model, split, "test"))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_is_from_0_to_1(split, share):
    refuses(split, "the share of noise must be from 0 to 1; it is", share)


def test_one_item_leaves_nothing_to_draw():
    alone = of([[5, 5, 5, 5], [5, 5, 5]])
    refuses(alone, "noise must be 0", 0.5)
    assert alone.noisy(0.0, 0).train_items.tolist() == [0] * 7
    assert sequences_of(alone.disturbed("test", 0.0, 0).interactions) == [[0] * 4, [0] * 3]


# Noise in what is shown at the test


@given(SEQUENCES, SHARES, SEEDS, st.sampled_from(["valid", "test"]))
def test_what_is_inserted_is_foreign_and_the_rest_stays(sequences, share, seed, part):
    sequences = [*sequences, [13, 14, 15, 16]]  # nobody has had everything
    split = of(sequences)
    shown = split.disturbed(part, share, seed)
    held = 2 if part == "valid" else 1
    total = sum(len(sequence) - held for sequence in sequences)
    assert len(shown.interactions.items) - len(split.interactions.items) == round(share * total)
    assert np.array_equal(shown.evaluated("test"), split.evaluated("test"))
    assert np.array_equal(shown.history(part)[2], split.history(part)[2])
    for user, (before, after) in enumerate(
        zip(*map(sequences_of, (split.interactions, shown.interactions)), strict=True)
    ):
        # What is foreign to the whole sequence told apart, the original is left, in its order.
        assert [item for item in after if item in before] == before
        assert after[-held:] == before[-held:]
        trains, longer = split.train_lengths[user], shown.train_lengths[user]
        assert [item for item in after[:longer] if item in before] == before[:trains]
        assert after[longer] == before[trains]  # gaps up to the end of training are of the training part
    assert np.array_equal(shown.train_items, shown.interactions.items)


def test_a_disturbed_split_depends_on_the_seed_and_keeps_the_noise_of_training(split):
    noisy = split.noisy(0.5, 0)
    shown, again, other = (noisy.disturbed("test", 0.3, seed) for seed in (0, 0, 1))
    assert np.array_equal(shown.interactions.items, again.interactions.items)
    assert not np.array_equal(shown.interactions.items, other.interactions.items)
    assert (shown.train_items != shown.interactions.items).sum() == (
        noisy.train_items != split.interactions.items
    ).sum()


def test_users_that_are_not_evaluated_are_left_alone():
    with pytest.warns(UserWarning, match="1 of 2 users"):
        split = of([[1, 2], [3, 4, 5, 6]])
    shown = split.disturbed("test", 1.0, 0)
    assert sequences_of(shown.interactions)[0] == [0, 1]
    assert shown.interactions.lengths.tolist() == [2, 7]


def test_who_has_had_everything_gets_nothing_and_the_others_all():
    split = of([[1, 2, 3, 4], [1, 2, 1, 2, 3]])
    shown = split.disturbed("test", 1.0, 0)
    assert sequences_of(shown.interactions)[0] == [0, 1, 2, 3]
    assert Counter(sequences_of(shown.interactions)[1]) == Counter([0, 1, 0, 1, 2] + 7 * [3])
    full = of([[1, 2, 3], [3, 2, 1]])
    with pytest.raises(InputError, match="every user has interacted with every item"):
        full.disturbed("test", 0.5, 0)


def drawn(split, share, seed):
    _, length, _ = split.history("test")
    return np.stack(insertions(split.interactions, split.evaluated("test"), length, share, seed))


@given(SEQUENCES, SHARES, SHARES, SEEDS)
def test_shares_of_insertions_are_nested(sequences, a, b, seed):
    split = of([*sequences, [13, 14, 15]])
    less, more = (drawn(split, share, seed) for share in sorted((a, b)))
    assert np.array_equal(less, more[:, : less.shape[1]])


def test_gaps_and_foreign_items_are_equally_likely():
    split = of([[1, 2, 3], [4, 5, 6, 7, 8]])  # gaps 0..2 and 3..7 of interactions.items
    user, place, item = np.concatenate([drawn(split, 1.0, seed) for seed in range(1500)], axis=1)
    assert np.array_equal(user, (place >= 3).astype(int))
    counts = np.bincount(place, minlength=8)
    assert len(counts) == 8
    assert abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5
    for number, own in enumerate(({0, 1, 2}, {3, 4, 5, 6, 7})):
        counts = np.bincount(item[user == number], minlength=8)
        foreign = counts[sorted(set(range(8)) - own)]
        assert counts.sum() == foreign.sum()
        assert abs(foreign - foreign.mean()).max() < 5 * foreign.mean() ** 0.5


# The command


@pytest.fixture(scope="module")
def best(runs):
    return ["evaluate", "--ckpt", runs / "sasrec" / "best.pt", "--device", "cpu"]


def test_evaluate_by_group(answer, best):
    found = answer(*best, "--cold", 6)
    assert list(found["groups"]) == ["cold", "warm", "head", "tail"]
    assert found["noise"] == 0
    for pair in (("cold", "warm"), ("head", "tail")):
        entries = [found["groups"][name] for name in pair]
        assert sum(entry["users"] for entry in entries) == found["users"] == 60
        assert min(entry["users"] for entry in entries) > 0
        for metric in found["intervals"]:
            total = sum(entry["users"] * entry[metric] for entry in entries)
            assert total / 60 == pytest.approx(found[metric])


def test_evaluate_with_noise(answer, best):
    clean, first, again, other = (
        answer(*best, *noise)
        for noise in ([], ["--noise", 0.5], ["--noise", 0.5], ["--noise", 0.5, "--seed", 1])
    )
    assert first == again
    assert first["noise"] == 0.5
    assert len({result["mrr"] for result in (clean, first, other)}) == 3
    users = [{name: of["users"] for name, of in found["groups"].items()} for found in (clean, first)]
    assert users[0] == users[1]  # groups are those of the clean data


def test_evaluate_tells_who_was_trained_on(answer, data_file, tmp_path):
    run = ["--data", data_file, "--train-fraction", 0.4, "--seed", 3, "--out", tmp_path / "run"]
    answer("train", *run, *RUN)
    found = answer("evaluate", "--ckpt", tmp_path / "run" / "best.pt", "--device", "cpu")
    assert list(found["groups"])[4:] == ["trained", "untrained"]
    trained = found["groups"]["trained"]["users"]
    assert trained + found["groups"]["untrained"]["users"] == 60
    assert abs(trained - 0.4 * 60) <= 1


def test_a_group_of_nobody_is_missing(answer, landscape, best, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = answer(*best, "--cold", 0, "--head", 0)["groups"]
    for name in ("cold", "head"):
        assert found[name].pop("users") == 0
        assert set(found[name].values()) == {None}
    code, out, err = landscape(*best, "--cold", 0, "--head", 0, "--noise", 0.25)
    assert code == 0, err
    assert "60 users, 25% random items inserted" in " ".join(out.split())
    assert [line.split()[1:] for line in out.splitlines() if "–" in line] == [7 * ["–"]] * 2
    assert "cold: 0 users" in out
    assert "warm: 60" in out


@pytest.mark.parametrize("option", ["--noise=1.5", "--noise=-0.1", "--cold=-1", "--head=2"])
def test_options_of_evaluate_have_ranges(landscape, best, option):
    code, out, err = landscape(*best, option)
    assert (code, out) == (2, "")
    assert option.partition("=")[0] in err


def test_the_table_of_evaluate_fits(landscape, best, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = landscape(*best, "--head", 0.125)
    assert code == 0, err
    table = out[out.index("HR@5") :].replace("95% ", "")
    lines = [line.split() for line in table.splitlines() if line.strip()]
    labels = ["all", "from", "to", "cold", "warm", "head", "tail"]
    assert [line[0] for line in lines[2:]][:9] == [*labels, "cold:", "head:"]
    assert {len(line) for line in lines[2:9]} == {1 + 7}
    assert "with 5 items or fewer in the history; warm: " in out
    assert "whose item is among the 12.5% most popular; tail: " in out


@pytest.mark.parametrize("other", [["--train-fraction", 0.5], ["--noise", 0.25], ["--max-length", 4]])
def test_losses_of_other_users_noise_or_lengths_are_not_compared(
    answer, landscape, both, data_file, tmp_path, other
):
    run = tmp_path / "run"
    answer("train", "--data", data_file, "--out", run, *RUN, "--epochs", 2, *other)
    frozen = ["--users", 32, "--device", "cpu"]
    alone = answer("sharpness", "--ckpt", run / "best.pt", *frozen, "--measure", "gradient-norm")
    assert alone["checkpoints"][0]["loss"] > 0
    code, out, err = landscape("sharpness", *both[:2], "--ckpt", run / "best.pt", *frozen)
    assert (code, out) == (2, "")
    assert "have different batches (other users or examples, noise" in err

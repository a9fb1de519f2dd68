import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import InputError
from samrec.data.interactions import Interactions
from samrec.data.labels import rows_of
from samrec.data.packing import Negatives, TrainingBatches, first_fit_decreasing, in_numpy, pack
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.data.synthetic import SUCCESSORS, markov, write_sequences

CPU = torch.device("cpu")


def written(tmp_path, text):
    path = tmp_path / "data.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def histories(interactions):
    ids = interactions.item_ids[interactions.items]
    return [h.tolist() for h in np.split(ids, interactions.offsets[1:-1])]


def test_sequence_lines(tmp_path):
    data = read(written(tmp_path, "7 10 20 30\n\n8\t20 5  \n"))
    assert histories(data) == [[10, 20, 30], [20, 5]]
    assert data.item_ids.tolist() == [5, 10, 20, 30]  # no row for an id that never occurs
    assert data.items.max() == data.num_items - 1


def test_pairs_are_gathered_by_user_in_file_order(tmp_path):
    data = read(written(tmp_path, "1 9\n2 8\n1 7\n2 9\n1 8\n"))
    assert histories(data) == [[9, 7, 8], [8, 9]]


def test_a_file_of_short_sequences_can_be_told_from_pairs(tmp_path):
    path = written(tmp_path, "1 9\n2 8\n")
    assert histories(read(path, "sequences")) == histories(read(path, "pairs")) == [[9], [8]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "holds no interactions"),
        ("1 2 3\n2 x 4\n", "line 2: expected whole numbers"),
        ("1 2 3\n2 1.5\n", "line 2: expected whole numbers"),
        ("1 2 3\n2 1_0 10\n", "line 2: 1_0 would be taken for 10"),
        ("1 7 007\n", "line 1: 007 would be taken for 7; write whole numbers plainly, or give a table"),
        ("7 3\n+7 4\n", r"line 2: \+7 would be taken for 7"),
        ("0 3 10 105\n-01 4\n", "line 2: -01 would be taken for -1"),
        ("0 3 10 105\n-0 4\n", "line 2: -0 would be taken for 0"),
        (b"\xff\xfe\x00\n", "line 1: expected whole numbers"),
        ("1 2 0\n", "line 1: item id 0"),
        ("1 2\n1 -3\n", "line 2: item id -3"),
        ("1 2 3\n\n7\n", "line 3: user 7 has no items"),
        ("1 2 3\n1 4 5\n", "line 2: user 1 already has a line"),
        (f"1 {2**63} 3\n", "line 1: item id 9223372036854775808 does not fit"),
    ],
)
def test_lines_that_cannot_be_used_are_named_by_number(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("users", [(2**63, -1, 2**63 + 1), (2**64, 1), (-(2**63), 2**63 - 1)])
def test_ids_of_users_stay_apart_whatever_their_size(tmp_path, users):
    found = read(written(tmp_path, "".join(f"{user} 1 2 3\n" for user in users)))
    assert rows_of(found.user_ids, users, "user").tolist() == list(range(len(users)))


def test_sequences_are_no_pairs(tmp_path):
    with pytest.raises(InputError, match="line 2: expected 'user item', found 3 fields"):
        read(written(tmp_path, "1 2\n1 2 3\n"), "pairs")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_what_is_written_is_read(interactions, data_file):
    back = read(data_file)
    assert back.digest == interactions.digest
    assert histories(back) == histories(interactions)


def test_the_digest_sees_content_not_format(tmp_path):
    a = read(written(tmp_path, "1 4 5\n2 5 6\n"), "sequences").digest
    assert a == read(written(tmp_path, "1 4\n2 5\n1 5\n2 6\n")).digest
    assert a != read(written(tmp_path, "1 5 4\n2 5 6\n"), "sequences").digest


def of(*sequences):
    return Interactions.from_histories(sequences, "here")


def test_leave_one_out_keeps_the_last_two_items_apart():
    split = leave_one_out(of([1, 2, 3, 4], [4, 3, 2]))
    assert split.train_lengths.tolist() == [2, 1]
    for part, lengths, targets in (("valid", [2, 1], [2, 2]), ("test", [3, 2], [3, 1])):
        start, length, target = split.history(part)
        assert start.tolist() == [0, 4]
        assert length.tolist() == lengths
        assert target.tolist() == targets


def test_short_users_are_trained_on_not_evaluated_and_counted():
    with pytest.warns(UserWarning, match="1 of 2 users have fewer than three items"):
        split = leave_one_out(of([1, 2], [1, 2, 3, 4]))
    assert split.evaluated("test").tolist() == [1]
    assert split.trained.tolist() == [0, 1]
    assert split.train_lengths.tolist() == [2, 2]


def test_a_file_without_three_items_for_anyone_is_refused():
    with pytest.raises(InputError, match="no user has three items"):
        leave_one_out(of([1, 2], [3]))


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 20), st.integers(0, 9))
def test_a_share_of_the_users_is_rounded_nested_and_never_nobody(users, a, b, seed):
    split = leave_one_out(of(*[[1, 2, 3, 4]] * users))
    less, more = (split.fraction(k / 20, seed).trained.tolist() for k in sorted((a, b)))
    assert len(more) == max(1, round(max(a, b) / 20 * users))
    assert more == sorted(set(more))
    assert set(less) <= set(more) <= set(range(users))


def test_who_is_in_a_share_is_uniform():
    split = leave_one_out(of(*[[1, 2, 3, 4]] * 8))
    counts = np.bincount(np.concatenate([split.fraction(0.25, seed).trained for seed in range(1000)]))
    assert abs(counts - 250).max() < 5 * 250**0.5


def test_generators_drawn_from_one_are_all_different():
    generator = torch.Generator().manual_seed(0)
    assert len({in_numpy(generator).integers(2**62) for _ in range(3000)}) == 3000


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60))
def test_packing_puts_every_history_in_one_row_without_overlap(lengths):
    row, column, rows = first_fit_decreasing(np.array(lengths), 12)
    taken = np.zeros((rows, 12), int)
    for r, c, n in zip(row, column, lengths, strict=True):
        assert c + n <= 12
        taken[r, c : c + n] += 1
    assert taken.max() == 1
    assert rows <= 2 * sum(lengths) / 12 + 1  # any two rows together hold more than one full row
    free = []  # longest first, each into the fullest row that takes it
    for n in sorted(lengths, reverse=True):
        room = min((room for room in free if room >= n), default=12)
        if room in free:
            free.remove(room)
        free.append(room - n)
    assert sorted(12 - taken.sum(1)) == sorted(free)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=20))
def test_packed_slots_hold_their_histories(lengths):
    lengths = np.array(lengths)
    starts = np.cumsum(lengths) - lengths
    items = torch.arange(100, 100 + int(lengths.sum()))
    packed, slots, source = pack(items, starts, lengths, 6)
    assert torch.equal(packed.items.flatten()[slots], items[source])
    for k, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        mine = packed.segments == k + 1
        assert packed.items[mine].tolist() == list(range(100 + start, 100 + start + length))
        assert packed.positions[mine].tolist() == list(range(length))
        assert packed.items.flatten()[packed.last[k]] == 100 + start + length - 1


def test_an_epoch_visits_every_user_once_and_predicts_the_next_item(split):
    batches = TrainingBatches(split, 50, CPU)
    seen = 0
    data = split.interactions
    follows = {pair for h in np.split(data.items, data.offsets[1:-1]) for pair in pairwise(h[:-2].tolist())}
    for batch in batches.epoch(16, (0, 1)):
        used = batch.inputs.segments > 0
        assert torch.equal(batch.used, used.float())
        inputs = batch.inputs.items[used].tolist()
        assert set(zip(inputs, batch.targets[used].tolist(), strict=True)) <= follows
        seen += len(inputs)
    assert seen == int((split.train_lengths - 1).sum())
    assert batches.steps(16) == 4


def test_long_histories_keep_their_last_items():
    split = leave_one_out(of(list(range(1, 11)), [1, 2, 3]))
    (batch,) = TrainingBatches(split, 3, CPU).epoch(8, (0,))
    assert batch.inputs.items.tolist() == [[4, 5, 6]]
    assert batch.targets.tolist() == [[5, 6, 7]]


def test_an_epoch_depends_on_its_seed_alone(split):
    batches = TrainingBatches(split, 10, CPU)

    def drawn(*seed):
        return torch.cat(
            [torch.cat([b.targets[None], b.negatives]).flatten() for b in batches.epoch(16, seed)]
        )

    assert torch.equal(drawn(0, 3), drawn(0, 3))
    assert not torch.equal(drawn(0, 3), drawn(0, 4))


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(1, 8), min_size=3, max_size=14), min_size=1, max_size=5))
def test_negatives_are_uniform_over_what_the_training_history_lacks(sequences):
    split = leave_one_out(of(*sequences))
    negatives = Negatives(split, CPU)
    data = split.interactions
    users = torch.arange(data.num_users).repeat_interleave(3000)
    drawn = negatives.draw(users, torch.Generator().manual_seed(0)).view(-1, 3000)
    for user, items in enumerate(drawn):
        begin = data.offsets[user]
        had = set(data.items[begin : begin + split.train_lengths[user]].tolist())
        allowed = sorted(set(range(data.num_items)) - had) or list(range(data.num_items))
        counts = torch.bincount(items, minlength=data.num_items)
        assert set(counts.nonzero().flatten().tolist()) == set(allowed)  # held-out items are not left out
        expected = 3000 / len(allowed)
        assert (counts[allowed] - expected).abs().max() < 6 * expected**0.5


def test_synthetic_histories_follow_the_chain_they_claim():
    made = markov(users=300, items=40, mean_length=10, noise=0.1, seed=1)
    assert all(len(set(h)) == len(h) for h in histories(made.interactions))
    assert 1 - 0.1 - 0.01 < SUCCESSORS.sum() <= 1 + 1e-12
    assert 0.7 < made.ideal_hr10 < 1
    assert markov(users=300, items=40, mean_length=10, noise=1.0, seed=1).ideal_hr10 < made.ideal_hr10
    assert markov(users=5, seed=2).interactions.digest == markov(users=5, seed=2).interactions.digest


@pytest.mark.parametrize("lag", [1, 2])
def test_an_ideal_ranker_reaches_what_is_said(lag):
    """The law of the next item is known only inside the generator: count its hits through the last draws."""
    made = [markov(users=400, items=60, mean_length=8, seed=s, lag=lag) for s in range(4)]
    hits, total = 0, 0
    for world in made:
        rng = np.random.default_rng(made.index(world))
        popularity = rng.permutation(1 / np.arange(1, 61) ** 0.8)
        popularity /= popularity.sum()
        chain = np.tile(0.2 * popularity, (60, 1))
        for i in range(60):
            chain[i, rng.choice(60, len(SUCCESSORS), replace=False)] += 0.8 * SUCCESSORS
        for *history, last in histories(world.interactions):
            law = chain[history[-lag] - 1].copy()
            law[np.array(history) - 1] = 0
            hits += last - 1 in np.argsort(law)[-10:]
            total += 1
    ideal = np.mean([world.ideal_hr10 for world in made])
    assert abs(hits / total - ideal) < 3 * (ideal * (1 - ideal) / total) ** 0.5


def test_synthetic_sizes_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="synthetic data need"):
        markov(items=5)


def test_write_sequences_numbers_users_from_one(tmp_path):
    write_sequences(of([5, 6], [6, 7, 8]), tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "1 5 6\n2 6 7 8\n"


def test_reading_warns_of_nothing(data_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leave_one_out(read(data_file))

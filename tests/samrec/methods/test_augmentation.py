"""Crop, mask and reorder: what they may do to a history, how often, and whose views are whose."""

from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samrec.data.ragged import Ragged
from samrec.methods.cl4srec import Augmentation, crop, mask, reorder
from tests.histories import (
    LENGTHS,
    SEEDS,
    TOKEN,
    TWENTIETHS,
    drawn,
    likely,
    of_lengths,
    operators_of,
    sequences,
    some,
    unrelated,
)

# The operators


@some
@given(LENGTHS, TWENTIETHS, SEEDS)
@example([1, 20], 0, 0)
@example([1, 20], 20, 0)
def test_crop_keeps_a_run_of_its_share_and_at_least_one_item(lengths, k, seed):
    histories = of_lengths(lengths)
    for own, kept in zip(sequences(histories), sequences(crop(histories, k / 20, drawn(seed))), strict=True):
        assert len(kept) == max(1, k * len(own) // 20)
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        assert set(kept) <= set(own)


@some
@given(LENGTHS, TWENTIETHS, SEEDS)
@example([1, 20], 0, 0)
@example([1, 20], 20, 0)
def test_mask_hides_exactly_its_share_and_leaves_the_rest(lengths, k, seed):
    histories = of_lengths(lengths)
    for own, shown in zip(
        sequences(histories), sequences(mask(histories, k / 20, TOKEN, drawn(seed))), strict=True
    ):
        assert len(shown) == len(own)
        assert shown.count(TOKEN) == k * len(own) // 20
        assert all(new in (old, TOKEN) for old, new in zip(own, shown, strict=True))


@some
@given(LENGTHS, TWENTIETHS, SEEDS)
@example([1, 20], 0, 0)
@example([1, 20], 20, 0)
def test_reorder_keeps_all_items_and_moves_them_within_one_window(lengths, k, seed):
    histories = of_lengths(lengths)
    for own, shuffled in zip(
        sequences(histories), sequences(reorder(histories, k / 20, drawn(seed))), strict=True
    ):
        assert sorted(shuffled) == own
        moved = [place for place, (old, new) in enumerate(zip(own, shuffled, strict=True)) if old != new]
        assert not moved or moved[-1] - moved[0] < k * len(own) // 20


@pytest.mark.parametrize("n", [25, 50, 100])
def test_a_share_is_rounded_down_as_decimals_are(n):
    """0.58 · 50 is 28.999… in binary."""
    for hundredths in range(101):
        hidden = mask(of_lengths([n]), hundredths / 100, TOKEN, drawn()).values == TOKEN
        assert hidden.sum() == hundredths * n // 100


@some
@given(LENGTHS, SEEDS)
def test_operators_leave_what_they_are_given_alone(lengths, seed):
    histories = of_lengths(lengths)
    Augmentation(0.5, 0.5, 0.5).views(histories, TOKEN, drawn(seed))
    assert np.array_equal(histories.values, np.arange(sum(lengths)))
    assert np.array_equal(histories.lengths, lengths)


def test_where_a_crop_begins_is_uniform():
    begins = crop(of_lengths([10] * 5000), 0.6, drawn()).values[::6] % 10
    assert likely(np.bincount(begins, minlength=5))


def test_which_items_are_hidden_is_uniform_over_all_sets_of_them():
    hidden = mask(of_lengths([6] * 10_000), 0.5, TOKEN, drawn()).values.reshape(-1, 6) == TOKEN
    found = Counter(map(tuple, hidden.tolist()))
    assert len(found) == 20  # 6 over 3
    assert likely(list(found.values()))


def test_what_is_shuffled_is_uniform_over_windows_and_orders():
    """Of 5 items a window of 3: three places and six orders, some of which come to the same."""
    possible = Counter()
    for first, order in product(range(3), permutations(range(3))):
        moved = list(range(5))
        moved[first : first + 3] = [first + place for place in order]
        possible[tuple(moved)] += 1
    shuffled = reorder(of_lengths([5] * 10_000), 0.6, drawn()).values.reshape(-1, 5) % 5
    found = Counter(map(tuple, shuffled.tolist()))
    assert found.keys() == possible.keys()
    assert likely([found[key] for key in possible], list(possible.values()))


# Two views of a history


@some
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=7),
    st.tuples(TWENTIETHS, TWENTIETHS, TWENTIETHS),
    SEEDS,
)
@example([[3]], (0, 0, 0), 0)
@example([[3], [3, 4]], (20, 20, 20), 0)
def test_views_are_two_a_history_by_two_operators(given, shares, seed):
    """So of its own items and the token alone, and in its own place."""
    histories = Ragged(np.concatenate(given), np.array([len(own) for own in given]))
    augmentation = Augmentation(*(k / 20 for k in shares))
    views = sequences(augmentation.views(histories, TOKEN, drawn(seed)))
    assert len(views) == 2 * len(given)
    for history, first, second in zip(given, views[::2], views[1::2], strict=True):
        made = product(*(operators_of(history, view, shares) for view in (first, second)))
        assert any(a != b for a, b in made)
    assert views == sequences(augmentation.views(histories, TOKEN, drawn(seed)))


@pytest.fixture(scope="module")
def many():
    """Of 12 000 histories of 20 items: the operator of each view, 0, 1, 2, and how it came out.

    That is where a crop begins, how many of the first ten items are hidden, and where the first moved one is.
    """
    histories = of_lengths([20] * 12_000)
    views = Augmentation(0.5, 0.3, 0.6).views(histories, TOKEN, drawn())
    operators, outcomes = [], []
    for k, view in enumerate(sequences(views)):
        begin = 20 * (k // 2)
        if len(view) == 10:
            operators.append(0)
            outcomes.append(view[0] - begin)
        elif TOKEN in view:
            operators.append(1)
            outcomes.append(view[:10].count(TOKEN))
        else:
            operators.append(2)
            outcomes.append(next(place for place, item in enumerate(view) if item != begin + place))
    return np.array(operators).reshape(-1, 2), np.array(outcomes).reshape(-1, 2)


def test_all_six_ordered_pairs_of_operators_are_equally_likely(many):
    operators, _ = many
    pairs = np.bincount(operators @ [3, 1], minlength=9).reshape(3, 3)
    assert not pairs.diagonal().any()
    assert likely(pairs[~np.eye(3, dtype=bool)])
    assert unrelated(operators[::2] @ [3, 1], operators[1::2] @ [3, 1])


def test_views_of_one_history_are_drawn_independently(many):
    operators, outcomes = many
    for pair in permutations(range(3), 2):
        own = (operators == pair).all(1)
        assert own.sum() > 1500
        assert unrelated(*outcomes[own].T), pair


@pytest.mark.parametrize("operator", range(3))
def test_views_of_neighbours_are_drawn_independently(many, operator):
    operators, outcomes = many
    first, second = (
        np.where(half == operator, outcome, -1).max(1)
        for half, outcome in ((operators[::2], outcomes[::2]), (operators[1::2], outcomes[1::2]))
    )
    both = (first >= 0) & (second >= 0)
    assert unrelated(first[both], second[both])

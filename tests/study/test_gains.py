"""Gains, their intervals and their adjustment, by simulation and by hand."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import t

from figures.gains import Gain, compared, holm, smallest, values

DRAWS = 1000


def users(rng, count=5000):
    """Draw how likely each user is a hit, 6% on average: few are easy, most are nearly hopeless."""
    return rng.beta(0.1, 1.5, count).astype(np.float32)


def checkpoints(rng, easy, luck):
    """Draw which users are hits of runs whose luck is given, shape (runs, users)."""
    chance = rng.random((len(luck), len(easy)), dtype=np.float32)
    return (chance < easy * np.exp(luck, dtype=np.float32)[:, None]) * 1.0


def graded(rng, hit):
    """Turn hits into NDCG@10: each at one of ten ranks."""
    found = np.zeros(hit.shape)
    places = hit.nonzero()
    found[places] = 1 / np.log2(rng.integers(0, 10, len(places[0])) + 2)
    return found


def rejected(draw):
    """Return how often a difference is found among draws of two."""
    return np.mean([compared(*draw()).p < 0.05 for _ in range(DRAWS)])


# One checkpoint's standard deviation is 2.9% in HR@10 and 4.0% in NDCG@10 (Sports, epochs 160 to 200).
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("metric", "sd"), [("hr", 0.029), ("ndcg", 0.04)])
def test_methods_that_are_the_same_differ_in_one_of_twenty_studies(seeds, metric, sd):
    rng = np.random.default_rng(0)
    easy = users(rng)

    def draw():
        for _ in range(2):
            hit = checkpoints(rng, easy, rng.normal(0, sd, seeds))
            yield graded(rng, hit) if metric == "ndcg" else hit

    assert 0.03 <= rejected(draw) <= 0.07


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_method_against_itself_at_another_epoch_is_not_significant(seeds):
    """By users alone it once was, by 8.8% with p = .001: each run's luck is drawn anew between two epochs."""
    rng = np.random.default_rng(1)
    easy = users(rng)

    def draw():
        start = rng.normal(0, 0.03, seeds)  # what the seed's start gives to both
        for _ in range(2):
            yield checkpoints(rng, easy, start + rng.normal(0, 0.04, seeds))

    assert 0.03 <= rejected(draw) <= 0.07
    alone = compared(*(checkpoints(rng, easy, np.zeros(1)) for _ in range(2)))
    assert alone.p is alone.low is alone.high is alone.error is None


def test_a_bootstrap_over_users_alone_would_not_do():
    """What was withdrawn: with the luck that checkpoints have it finds far more than one of twenty."""
    rng = np.random.default_rng(2)
    easy, far = users(rng, 20_000), 0
    for _ in range(200):
        ours, theirs = (checkpoints(rng, easy, rng.normal(0, 0.04, 1))[0] for _ in range(2))
        z = ours / ours.mean() - theirs / theirs.mean()
        far += abs(np.log(ours.mean() / theirs.mean())) > 1.96 * z.std() / len(easy) ** 0.5
    assert far / 200 > 0.15


def test_intervals_cover_a_gain_over_other_users_too():
    """Users whom one method suits: the gain of all users is not that of those who were drawn."""
    rng = np.random.default_rng(3)

    def covered():
        easy = users(rng, 3000)
        suits = np.exp(rng.normal(0, 0.7, (2, 3000)) - 0.7**2 / 2)
        luck = rng.normal(0, 0.03, (2, 5)) + np.log([[1.1], [1.0]])
        found = compared(*(checkpoints(rng, easy * own, of) for own, of in zip(suits, luck, strict=True)))
        return found.low <= 0.1 <= found.high

    assert np.mean([covered() for _ in range(300)]) >= 0.93


def test_with_many_seeds_the_interval_is_that_of_a_bootstrap_over_users_and_seeds():
    """Owen 2007's, where the noise of users within seeds, which it counts three times, is small."""
    rng = np.random.default_rng(4)
    seeds, count = 40, 2000
    taste = [np.exp(rng.normal(0, 0.5, count)) for _ in range(2)]
    ours, theirs = (own * np.exp(rng.normal(0, 0.05, (seeds, 1))) for own in taste)
    drawn = []
    for _ in range(2000):
        at_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds))
        at_users = rng.multinomial(count, np.full(count, 1 / count))
        drawn.append((at_seeds @ ours @ at_users) / (at_seeds @ theirs @ at_users) - 1)
    found = compared(ours, theirs)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_without_users_of_their_own_it_is_the_paired_t_test():
    ours, theirs = np.array([[1.0], [1.2], [1.1]]).repeat(50, 1), np.ones((3, 50))
    found = compared(ours, theirs)
    z = ours[:, 0] / 1.1 - 1
    error = z.std(ddof=1) / 3**0.5
    assert found.gain == pytest.approx(0.1)
    assert found.error == pytest.approx(error)
    assert found.p == pytest.approx(2 * t.sf(np.log(1.1) / error, 2))
    assert np.log1p(found.high) == pytest.approx(np.log(1.1) + t.ppf(0.975, 2) * error)


def test_the_error_is_that_of_seeds_and_of_what_users_have_in_common_between_seeds():
    """By loops: σ_u² is the mean product of a user's influences in two different seeds, if that is clear."""
    rng, clear = np.random.default_rng(8), []
    for _ in range(40):
        seeds, count = int(rng.integers(2, 5)), int(rng.integers(4, 9))
        taste = rng.uniform(0.5, 1.5, (2, 1, count))
        luck = rng.uniform(0.8, 1.2, (2, seeds, 1))
        ours, theirs = taste * luck * rng.uniform(0.5, 1.5, (2, seeds, count)) * [[[3]], [[1]]]
        found = compared(ours, theirs)
        z = ours / (ours.sum() / ours.size) - theirs / (theirs.sum() / theirs.size)
        of_seeds = [sum(row) / count for row in z]
        mean = sum(of_seeds) / seeds
        variance = sum((own - mean) ** 2 for own in of_seeds) / (seeds - 1) / seeds
        pairs = list(permutations(range(seeds), 2))
        each = [
            sum((z[a, u] - of_seeds[a]) * (z[b, u] - of_seeds[b]) for a, b in pairs) / len(pairs)
            for u in range(count)
        ]
        of_users = sum(each) / count / count
        deviation = (sum((own - sum(each) / count) ** 2 for own in each) / (count - 1)) ** 0.5
        clear.append(of_users / (deviation / count**0.5 / count))
        assert found.error == pytest.approx((variance + of_users * (clear[-1] > 2)) ** 0.5)
    assert all(any(low < one < high for one in clear) for low, high in ((-9, 0), (1.5, 2), (2, 2.5)))


def test_one_ratio_in_all_seeds_and_users_is_no_chance():
    theirs = np.random.default_rng(9).random((3, 20))
    found = compared(2 * theirs, theirs)
    assert (found.gain, found.low, found.high, found.p, found.error) == (1, 1, 1, 0, 0)


def test_equal_values_gain_nothing_and_turning_them_around_turns_the_gain():
    rng = np.random.default_rng(5)
    easy = users(rng, 500)
    ours, theirs = (checkpoints(rng, easy, rng.normal(0, 0.1, 4)) for _ in range(2))
    assert compared(ours, ours) == Gain(0, 0, 0, 1, 0, 4)
    there, back = compared(ours, theirs), compared(theirs, ours)
    assert 1 + back.gain == pytest.approx(1 / (1 + there.gain))
    assert 1 + back.low == pytest.approx(1 / (1 + there.high))
    assert back.p == pytest.approx(there.p)


def test_a_method_without_a_hit_has_no_gain():
    found = compared(np.ones((3, 5)), np.zeros((3, 5)))
    assert np.isnan(found.gain)
    assert found.p is None


def test_values_of_other_users_or_seeds_are_refused():
    with pytest.raises(ValueError, match="not paired"):
        compared(np.ones((3, 5)), np.ones((2, 5)))


def test_a_user_counts_with_the_mean_over_checkpoints():
    found = values([np.array([[0, 30, 2], [0, 9, 30]]), np.array([[10, 0, 1]])], "hr@10")
    np.testing.assert_array_equal(found, [[1, 0.5, 0.5], [0, 1, 1]])
    assert values([np.array([[2]])], "ndcg@10")[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("seeds", "level"), [(3, 0.05), (5, 0.05), (5, 0.0125)])
def test_the_smallest_gain_is_seen_in_four_of_five_studies(seeds, level):
    rng = np.random.default_rng(6)
    error = 0.02
    effect = np.log1p(smallest(error, seeds, level))
    pairs = rng.normal(effect, error * seeds**0.5, (20_000, seeds))
    statistic = pairs.mean(1) / (pairs.std(1, ddof=1) / seeds**0.5)
    assert np.mean(abs(statistic) > t.ppf(1 - level / 2, seeds - 1)) == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand():
    """.01 × 4; .02 × 3; .03 × 2 is no less than that; .5."""
    np.testing.assert_allclose(holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm([0.7, 0.6]), [1, 1])
    assert len(holm([])) == 0


def test_holm_keeps_the_error_of_a_family():
    rng = np.random.default_rng(7)
    assert np.mean([(holm(rng.random(4)) < 0.05).any() for _ in range(2000)]) == pytest.approx(
        0.05, abs=0.012
    )

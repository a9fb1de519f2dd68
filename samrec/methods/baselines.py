"""Baselines that a trained model should beat: popularity, a Markov chain, and item-kNN.

All are counted on the training parts of the users that are trained on (`Split.trained`), with the noise that
training sees, and ranked as models are: over all items, without the history, and with the target.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from samrec.chunks import chunk_rows
from samrec.data.interactions import Ints
from samrec.data.ragged import Ragged, slices
from samrec.data.split import Part, Split
from samrec.evaluation import metrics

Array = NDArray[np.float64]
Scores = Callable[[Ragged], Array]
"""From histories of at least one item each to the scores of all items, shape (histories, items)."""


def popularity(split: Split) -> Scores:
    """Score an item by its training interactions, whatever the history."""
    counts = _interactions_of(split).astype(np.float64)
    return lambda histories: np.tile(counts, (len(histories), 1))


def markov(split: Split) -> Scores:
    """Score an item by how often it came right after the history's last item: a first-order Markov chain."""
    training, n = split.training, split.num_items
    goes_on = np.flatnonzero(np.diff(training.owner) == 0)
    pairs = training.values[goes_on], training.values[goes_on + 1]
    transitions = sparse.csr_array((np.ones(len(goes_on)), pairs), shape=(n, n))

    def scores(histories: Ragged) -> Array:
        last = histories.values[histories.starts + histories.lengths - 1]
        found: Array = transitions[last].toarray()
        return found

    return scores


def item_knn(split: Split, neighbours: int = 100, half_life: float | None = None) -> Scores:
    """Score an item by its similarity to the history's items (Deshpande & Karypis, TOIS 2004).

    With U_i the users who have had i, the similarity of two items is |U_i ∩ U_j| / √(|U_i| |U_j|), the
    cosine. Each interaction of the history adds the similarities of its item to its nearest neighbours.

    Args:
        neighbours: how many of the most similar items count, and as many more as are equally similar to the
            last of them, so that items' numbers decide nothing. With 20 in place of 100, validation NDCG@10
            is 5% lower on Beauty and 4% on Toys.
        half_life: an interaction counts 2^(-age / half_life), where the history's last has age 0: the time
            weight of Ding & Li (CIKM 2005), with time counted in interactions. Without it, all count 1. A
            half-life of 1 takes validation NDCG@10 from .0391 to .0465 on Beauty, .0447 to .0517 on Toys.
    """
    similar = _similarities(split, neighbours)

    def scores(histories: Ragged) -> Array:
        age = histories.lengths[histories.owner] - 1 - histories.within
        weights = np.ones(len(age)) if half_life is None else 0.5 ** (age / half_life)
        places = histories.owner, histories.values
        profiles = sparse.csr_array((weights, places), shape=(len(histories), split.num_items))
        return (profiles @ similar).toarray()

    return scores


BASELINES: Mapping[str, Callable[[Split], Scores]] = {
    "popularity": popularity,
    "markov": markov,
    "item-knn": item_knn,
    "recent-knn": partial(item_knn, half_life=1.0),
}


def evaluated(split: Split, part: Part) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each baseline's name and what it reaches: `samrec.evaluation.metrics`."""
    for name, count in BASELINES.items():
        yield name, metrics(rank_baseline(count(split), split, part))


def rank_baseline(scores: Scores, split: Split, part: Part) -> Ints:
    """Return the rank (0 is best) of each evaluated user's held-out item: `samrec.evaluation.ranks`.

    Counts are full of equal scores; among these, that of the more popular item is higher; what is equally
    popular too counts as ranked before the held-out item. Shape (evaluated users,).
    """
    counts = _interactions_of(split)
    start, length, target = split.history(part)
    size = chunk_rows(split.num_items, torch.device("cpu"))
    ranks = []
    for first in range(0, len(target), size):
        chunk = slice(first, first + size)
        histories = slices(split.interactions.items, start[chunk], length[chunk])
        ranks.append(_at_least(scores(histories), counts, target[chunk], histories))
    return np.concatenate(ranks)


def _at_least(scores: Array, counts: Ints, targets: Ints, histories: Ragged) -> Ints:
    """Count, for each row of `scores`, the items outside of its history that do not rank below its target."""
    rows = np.arange(len(targets))
    of_target, its_count = scores[rows, targets][:, None], counts[targets][:, None]
    found = (scores > of_target) | ((scores == of_target) & (counts >= its_count))
    found[histories.owner, histories.values] = False
    found[rows, targets] = False  # not a competitor of itself
    at_least: Ints = found.sum(1)
    return at_least


def _interactions_of(split: Split) -> Ints:
    """Return how many training interactions each item has. Shape (items,)."""
    return np.bincount(split.training.values, minlength=split.num_items)


def _similarities(split: Split, neighbours: int) -> sparse.csr_array[np.float64]:
    """Return each item's similarity to its nearest neighbours, in its row; 0 to itself and to all others."""
    training, n = split.training, split.num_items
    who, what = np.divmod(np.unique(training.owner * n + training.values), n)
    of_users = sparse.csr_array((np.ones(len(who)), (who, what)), shape=(len(training), n))
    of_items = of_users.T.tocsr()
    users = np.bincount(what, minlength=n)
    size = chunk_rows(n, torch.device("cpu"))
    parts = []
    for first in range(0, n, size):
        common = of_items[first : first + size] @ of_users
        row = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr))
        cosine = common.data / np.sqrt(users[first + row] * users[common.indices])
        # To multiples of 2^-32: sums are then exact, whatever their order, and what is equal stays equal.
        cosine = np.round(cosine * 2**32) / 2**32
        cosine[common.indices == first + row] = 0
        cosine[cosine < _nth_largest(cosine, common.indptr, neighbours)[row]] = 0
        common.data = cosine
        common.eliminate_zeros()
        parts.append(common)
    return sparse.vstack(parts, format="csr")


def _nth_largest(values: Array, bounds: NDArray[np.integer], n: int) -> Array:
    """Return the n-th largest of each run `values[bounds[k]:bounds[k + 1]]`, or 0 where it has fewer."""
    lengths = np.diff(bounds)
    ordered = values[np.lexsort((-values, np.repeat(np.arange(len(lengths)), lengths)))]
    found = np.zeros(len(lengths))
    long_enough = lengths >= n
    found[long_enough] = ordered[bounds[:-1][long_enough] + n - 1]
    return found

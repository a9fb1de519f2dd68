"""What a model does with the catalogue: how much of it is recommended, and how well known that is."""

import re
from collections.abc import Sequence

import numpy as np
import torch

from landscape.errors import InputError
from samrec.data.interactions import Ints
from samrec.data.ragged import slices
from samrec.data.split import Part, Split
from samrec.evaluation import gain
from samrec.model import Recommender
from samrec.recommendation import best

CATALOGUE = ("coverage", "novelty", "popularity")


def separated(metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which metrics are of ranks (`samrec.evaluation.gain`), and which are `catalogue_metrics`.

    Names may be written as papers and tables write them, such as HR@10; they are returned in lower case.

    Raises:
        InputError: one is neither.
    """
    of_ranks, of_catalogue = [], []
    for metric in map(str.lower, metrics):
        if re.fullmatch(rf"({'|'.join(CATALOGUE)})@[1-9]\d{{0,17}}", metric, re.ASCII):
            of_catalogue.append(metric)
            continue
        try:
            gain(torch.zeros(1), metric)
        except InputError as error:
            raise InputError(f"{error}, and {'@K, '.join(CATALOGUE)}@K") from None
        of_ranks.append(metric)
    return of_ranks, of_catalogue


def catalogue_metrics(
    model: Recommender, split: Split, part: Part, names: Sequence[str], shown: Split | None = None
) -> dict[str, float]:
    """Describe the K best items outside of each evaluated user's history, by the names of the metrics.

    - `coverage@K`: the share of all items that are among the K of at least one user.
    - `popularity@K`: how many interactions of the training parts an item of the K has, on average.
    - `novelty@K`: -log2 of the share of users who have the item in the training part, on average (in bits;
      Zhou et al., PNAS 2010). An item that nobody has counts as had by one user.

    Averages are over the K of a user, then over the users who have not had every item. What is counted is
    clean and of all users, whoever was trained on, so that runs which differ in that compare.

    Args:
        model: in evaluation mode, on the device where it is to rank.
        names: the metrics, as `separated` returns them.
        shown: the histories that the model sees, if they are not those of `split` (`Split.disturbed`).

    Raises:
        InputError: the model's output is not finite, or every user has had every item.
    """
    if not names:
        return {}
    largest = min(max(_cutoff(name) for name in names), split.num_items)
    seen = split if shown is None else shown
    start, length, _ = seen.history(part)
    owner, items, _ = best(model, slices(seen.interactions.items, start, length), largest, exclude_seen=True)
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    if not len(owner):
        raise InputError("every user has had every item, so nothing is left to recommend")
    interactions = split.popularity
    novelty = -np.log2(np.maximum(_having(split), 1) / split.interactions.num_users)
    found = {}
    for name in names:
        among = place < _cutoff(name)
        who, what = owner[among], items[among]
        if name.startswith("coverage"):
            found[name] = len(np.unique(what)) / split.num_items
        else:
            of_item = novelty if name.startswith("novelty") else interactions
            lists, lengths = np.unique(who, return_counts=True)
            of_user = np.bincount(who, of_item[what])[lists] / lengths
            found[name] = float(of_user.mean())
    return found


def _cutoff(name: str) -> int:
    return int(name.partition("@")[2])


def _having(split: Split) -> Ints:
    """Return how many users have each item in their training part."""
    n, inside = split.num_items, split.in_training
    pairs = np.unique(split.interactions.users[inside] * n + split.interactions.items[inside])
    return np.bincount(pairs % n, minlength=n)

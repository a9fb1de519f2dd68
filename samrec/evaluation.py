"""Full ranking: every item is a candidate, none is sampled."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import InputError
from landscape.runtime.ranks import ALONE, Ranks
from samrec.choices import CUTOFFS
from samrec.chunks import chunk_rows
from samrec.data.interactions import Ints
from samrec.data.packing import Packed, evaluation_histories, pack
from samrec.data.ragged import slices
from samrec.data.split import Part, Split
from samrec.data.tensors import Tensors
from samrec.model import Recommender
from samrec.scores import need_finite, summands
from samrec.sharding import ShardedEmbedding

Mask = NDArray[np.bool_]
RANKED = (*(f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in CUTOFFS), "mrr")
"""The metrics of ranks that are always told."""
MISSED = np.iinfo(np.int64).max
"""The rank of a held-out item that counts as never found."""
RESAMPLES = 1000  # of the bootstrap over users


@dataclass(frozen=True, eq=False)
class Ranking:
    """How a checkpoint ranks, and the data it ranks on.

    Attributes:
        ranks: ranks of the held-out items, see `ranks`. Shape (evaluated users,).
        split: the data as they are, without noise, and the users that were trained on.
        catalogue: the metrics of `samrec.catalogue` that were asked for.
        sampled: the ranks among sampled items that were asked for, by their name in `samrec.sampled`.
    """

    ranks: Ints
    split: Split
    catalogue: Mapping[str, float] = field(default_factory=dict)
    sampled: Mapping[str, Ints] = field(default_factory=dict)


@torch.no_grad()
def ranks(model: Recommender, split: Split, part: Part, batch_size: int = 1024, among: Ranks = ALONE) -> Ints:
    """Return the rank (0 is best) of each evaluated user's held-out item among all items.

    Items of the user's history are not candidates; the held-out item always is. An item with the same score
    as the held-out one counts as ranked before it, so a model that gives all items one score gets 0 and not
    1. Shape (evaluated users,).

    Args:
        among: the processes that share the users, and all get the ranks of all. Those that share the item
            table of the model take the same users instead, each among its items.

    Raises:
        InputError: the model's output is not finite (a NaN would compare as the best rank of all).
    """
    was_training = model.training
    model.eval()
    try:
        if isinstance(model.item, ShardedEmbedding):
            among = ALONE
        users = np.array(among.share(len(split.evaluated(part))), np.int64)
        shape = model.max_length, model.device, batch_size, users, model.asks
        batches = candidates(split, part, *shape)
        table = summands(model.item.weight)
        counts = [count_above(model, batch, table).cpu().numpy() for batch in batches]
    finally:
        model.train(was_training)
    found = np.concatenate([of_batch for of_rank in among.gathered(counts) for of_batch in of_rank])
    need_finite(not np.isnan(found).any())
    return found.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Candidates(Tensors):
    """Histories with the item held out of each, and the items that are not candidates next to it.

    Attributes:
        histories: packed into rows.
        targets: the held-out items, shape (histories,).
        seen: pairs of a history, ascending, and an item of it. Shape (2, pairs).
    """

    histories: Packed
    targets: Tensor
    seen: Tensor


def candidates(
    split: Split,
    part: Part,
    width: int,
    device: torch.device,
    batch_size: int = 1024,
    users: Ints | None = None,
    asks: int | None = None,
) -> Iterator[Candidates]:
    """Yield the evaluated users, or those of them at the places `users`, with what `part` holds out.

    `asks` is the model's (`samrec.model.Recommender`).
    """
    items = torch.from_numpy(split.interactions.items).to(device)
    start, length, target = split.history(part)
    seen_start, seen_length = evaluation_histories(split, part, width)
    places = np.arange(len(target)) if users is None else users
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        histories, _, _ = pack(items, seen_start[chosen], seen_length[chosen], width, asks)
        whole = slices(split.interactions.items, start[chosen], length[chosen])
        seen = torch.from_numpy(np.stack([whole.owner, whole.values])).to(device)
        yield Candidates(histories, torch.from_numpy(target[chosen]).to(device), seen)


@torch.no_grad()
def count_above(model: Recommender, batch: Candidates, table: Tensor | None = None) -> Tensor:
    """Count for each history the candidates that score at least what the held-out item does: its rank.

    A count has no derivative, so none is recorded.

    Scores are exact (`samrec.scores`), so that equal ones are equal. NaN, for all of the batch, where they
    are not finite; a NaN would else compare as the best rank.

    Args:
        table: the `summands` of the item table, to be made once for many batches.
    """
    expected = model.ends(batch.histories)
    dtype = torch.promote_types(expected.dtype, torch.float32)  # bfloat16 counts to 256
    expected, table = summands(expected), summands(model.item.weight) if table is None else table
    of_target = (expected * summands(model.item(batch.targets))).sum(1, keepdim=True)
    others = torch.stack([torch.arange(len(expected), device=expected.device), batch.targets])
    left_out = torch.cat([batch.seen, others], 1)  # the target does not compete with itself
    shard = model.item if isinstance(model.item, ShardedEmbedding) else None
    if shard:
        place, here = shard.here(left_out[1])
        left_out = torch.stack([left_out[0], place])[:, here]
    counts = _count_above(expected, table, of_target, left_out)
    finite = torch.isfinite(expected.norm(dim=1).max() * table.norm(dim=1).max())
    counts = torch.where(finite, counts, torch.nan).to(dtype)
    return shard.ranks.summed(counts) if shard else counts


def gain(ranks: Tensor, metric: str) -> Tensor:
    """Return what a user of each rank adds to a metric: `hr@K`, `ndcg@K`, `mrr@K` and others, or `mrr`.

    As one item is held out, recall is HR, precision HR/K, and MAP (the mean of average precision) MRR.

    Raises:
        InputError: there is no such metric.
    """
    name, _, cutoff = metric.partition("@")
    if metric == "mrr":
        return torch.where(ranks == MISSED, 0.0, 1 / (ranks + 1))
    if name not in GAINS or not re.fullmatch(r"[1-9]\d{0,17}", cutoff, re.ASCII):
        names = ", ".join(f"{known}@K" for known in GAINS)
        raise InputError(f"no metric matches {metric!r}; metrics: {names} (K such as 10) and mrr")
    return torch.where(ranks < int(cutoff), GAINS[name](ranks, int(cutoff)), 0 * ranks)  # NaN stays NaN


GAINS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "hr": lambda ranks, k: 1 + 0 * ranks,
    "ndcg": lambda ranks, k: 1 / torch.log2(ranks + 2),
    "mrr": lambda ranks, k: 1 / (ranks + 1),
    "recall": lambda ranks, k: 1 + 0 * ranks,
    "precision": lambda ranks, k: (1 + 0 * ranks) / k,
    "map": lambda ranks, k: 1 / (ranks + 1),
}
"""What a user of each rank within the first K adds to a metric."""


def _count_above(expected: Tensor, table: Tensor, of_target: Tensor, left_out: Tensor) -> Tensor:
    """Count, for each row of `expected`, the candidates that score at least `of_target`, shape (rows, 1).

    A chunk is some items for all rows: of long and narrow factors a product is slower.

    Args:
        left_out: pairs of a row of `expected` and a row of `table` that is not a candidate. Shape (2, pairs).
    """
    size = chunk_rows(len(expected), table.device)
    firsts = range(0, len(table), size)
    left_out = left_out[:, left_out[1].argsort()]
    ends = torch.tensor([*firsts, len(table)], device=left_out.device)
    bounds = torch.searchsorted(left_out[1].contiguous(), ends).tolist()
    counts = expected.new_zeros(len(expected))
    for number, first in enumerate(firsts):
        scores = expected @ table[first : first + size].T
        row, item = left_out[:, bounds[number] : bounds[number + 1]]
        scores[row, item - first] = -torch.inf
        # Comparing in place leaves ones to add up as floats: 20 times faster than bools.
        counts += scores.ge_(of_target).sum(1)
    return counts


def metrics(ranks: Ints, names: Sequence[str] = RANKED) -> dict[str, float]:
    """Average metrics over all ranks, by default HR, NDCG and MRR at 5, 10, 20 and MRR.

    One item is relevant, so the IDCG is 1. All of them are NaN if there are no ranks.

    Raises:
        InputError: there is no such metric.
    """
    return {name: float(gain.mean()) if len(gain) else np.nan for name, gain in _gains(ranks, names).items()}


def missing_repeats(ranks: Ints, split: Split, part: Part) -> Ints:
    """Return the ranks with `MISSED` for each held-out item that is in the user's history already.

    Many protocols never recommend what a user has had, so that such an item cannot be found; `ranks` lets it
    be a candidate.
    """
    start, length, target = split.history(part)
    history = slices(split.interactions.items, start, length)
    repeated = np.bincount(history.owner, history.values == target[history.owner], len(target)) > 0
    return np.where(repeated, MISSED, ranks)


def groups(split: Split, part: Part, cold: int = 5, head: float = 0.2) -> dict[str, Mask]:
    """Group the evaluated users: by history, by held-out item, and by whether they were trained on.

    `cold` users have at most `cold` items in the history before `part`'s item, `warm` ones more. What is
    held out is of the `head` where it is among the first `round(head * num_items)` items by number of
    interactions in the training parts (of equals, the lower row comes first), and else of the `tail`. Whoever
    was trained on, popularity is of all users' clean items: runs that differ in that share their groups.
    `trained` and `untrained` users are there only where a share of the users was drawn.

    Returns:
        Who is in each group, by its name. Groups come in pairs, of which everyone is in one. Shape
        (evaluated users,) each.

    Raises:
        InputError: `head` is not in [0, 1].
    """
    if not 0 <= head <= 1:
        raise InputError(f"the share of head items must be from 0 to 1; it is {head:g}")
    _, length, target = split.history(part)
    in_head = np.zeros(split.num_items, bool)
    in_head[np.argsort(-split.popularity, kind="stable")[: round(head * split.num_items)]] = True
    few, popular = length <= cold, in_head[target]
    found = {"cold": few, "warm": ~few, "head": popular, "tail": ~popular}
    if len(split.trained) < np.count_nonzero(split.train_lengths >= 2):
        trained = np.isin(split.evaluated(part), split.trained)
        found |= {"trained": trained, "untrained": ~trained}
    return found


def intervals(
    ranks: Ints, seed: int = 0, level: float = 0.95, names: Sequence[str] = RANKED
) -> dict[str, tuple[float, float]]:
    """Return for each of `metrics` an interval that says how far another draw of users might move it.

    Percentile bootstrap over users (Efron 1979): the outer (1 - level) of `RESAMPLES` draws of as many
    users, with replacement, is cut off. It knows nothing of another seed of the training.
    """
    distinct, counts = np.unique(ranks, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(ranks), counts / len(ranks), RESAMPLES)
    outside = (1 - level) / 2
    return {
        name: tuple(np.quantile(drawn @ gain / len(ranks), [outside, 1 - outside]).tolist())
        for name, gain in _gains(distinct, names).items()
    }


def _gains(ranks: Ints, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """What a user of this rank adds to each metric."""
    of = torch.from_numpy(ranks).double()
    return {name: gain(of, name).numpy() for name in names}


def evaluate(model: Recommender, split: Split, part: Part, among: Ranks = ALONE) -> dict[str, float]:
    """Rank `part`'s held-out items and average: `metrics(ranks(model, split, part))`.

    Args:
        model: the recommender, on the device that is to rank.
        split: the users' histories, and the items held out.
        part: `valid` or `test`.
        among: the processes that share the users; by default this one has all.

    Returns:
        Means over users by name, each in [0, 1]: `hr@5`, `ndcg@10`, `mrr`, …

    Raises:
        InputError: the model's output is not finite.
    """
    return metrics(ranks(model, split, part, among=among))

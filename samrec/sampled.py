"""Ranks among 100 sampled items, for comparison with papers that sample.

Krichene & Rendle (KDD 2020) show that metrics of such ranks may order models differently. So their names say
how they were drawn, such as `hr@10 (uni100)`, and no checkpoint is chosen by them.
"""

from typing import get_args

import numpy as np
import torch

from samrec.choices import Sampled
from samrec.data.interactions import Ints
from samrec.data.split import Part, Split
from samrec.evaluation import candidates
from samrec.model import Recommender
from samrec.scores import need_finite, summands

NEGATIVES = 100
BATCH = 256  # histories at once, with NEGATIVES embeddings each
KINDS = get_args(Sampled)


def negatives(split: Split, part: Part, kind: Sampled, seed: int = 0, shown: Split | None = None) -> Ints:
    """Draw 100 items for each evaluated user with replacement, as RecBole does.

    They are outside of the user's whole sequence. With `uni100`, all such items are equally likely; with
    `pop100`, they are drawn in proportion to their interactions in the training parts, so that an item
    without any is never drawn. One draw each, without rejection: with the items in order, of weights w, a
    user's items h_0 < h_1 < … cut an interval each out of [0, Σw). What is drawn uniformly from the rest is
    moved past those that begin before it.

    Args:
        split: the data as they are, by which popularity is counted.
        shown: the sequences that are left out, if they are not those of `split` (`Split.disturbed`).

    Returns:
        Rows of items; -1 for users who have had everything that can be drawn. Shape (evaluated users, 100).
    """
    weights = np.ones(split.num_items, np.int64) if kind == "uni100" else split.popularity
    ends = np.cumsum(weights)
    total, n = int(ends[-1]), split.num_items
    known = (split if shown is None else shown).interactions
    owner, own = np.divmod(np.unique(known.users * n + known.items), n)
    passed = np.concatenate([[0], np.cumsum(weights[own])])
    begin = np.searchsorted(owner, np.arange(known.num_users + 1))
    users = split.evaluated(part)[:, None]
    first = passed[begin[users]]
    free = total - (passed[begin[users + 1]] - first)
    place = np.random.default_rng((seed, KINDS.index(kind))).integers(
        np.maximum(free, 1), size=(len(users), NEGATIVES)
    )
    keys = owner * (total + 1) + (ends - weights)[own] - (passed[:-1] - passed[begin[owner]])
    place += passed[np.searchsorted(keys, users * (total + 1) + place, side="right")] - first
    return np.where(free > 0, np.searchsorted(ends, place, side="right"), -1)


@torch.no_grad()
def sampled_ranks(
    model: Recommender, split: Split, part: Part, kind: Sampled, seed: int = 0, shown: Split | None = None
) -> Ints:
    """Return the rank (0 is best) of each evaluated user's held-out item among that and 100 `negatives`.

    As in `samrec.evaluation.ranks`, scores are exact and equal ones count against the held-out item.

    Args:
        model: in evaluation mode, on the device where it is to rank.
        shown: the histories that the model sees, if they are not those of `split`.

    Raises:
        InputError: the model's scores are not finite.
    """
    drawn = torch.from_numpy(negatives(split, part, kind, seed, shown)).to(model.device)
    table = summands(model.item.weight)
    counts = []
    histories = candidates(
        split if shown is None else shown, part, model.max_length, model.device, BATCH, asks=model.asks
    )
    for batch, others in zip(histories, torch.split(drawn, BATCH), strict=True):
        expected = summands(model.ends(batch.histories))
        of_target = (expected * table[batch.targets]).sum(1, keepdim=True)
        scores = torch.einsum("ud,und->un", expected, table[others.clamp(0)])
        need_finite(bool(of_target.isfinite().all() and scores.isfinite().all()))
        counts.append(((scores >= of_target) & (others >= 0)).sum(1))
    return torch.cat(counts).cpu().numpy()

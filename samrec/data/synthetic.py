"""Histories with a known sequential structure, so that everything runs with nothing downloaded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landscape.errors import InputError
from landscape.storage.files import replacing
from samrec.data.interactions import Interactions, Ints

SUCCESSORS = np.array([0.4, 0.25, 0.15, 0.12, 0.08])  # how an item's likely successors share their part


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Drawn histories, and what the best possible ranker can reach on them.

    Attributes:
        interactions: the histories, each of distinct items.
        ideal_hr10: the expected HR@10, over the draw of each user's last item, of a ranker that knows
            the process and the history. No model can do better but by luck.
    """

    interactions: Interactions
    ideal_hr10: float


def markov(
    users: int = 1000,
    items: int = 300,
    mean_length: float = 12.0,
    noise: float = 0.2,
    seed: int = 0,
    lag: int = 1,
) -> Synthetic:
    """Draw histories from a Markov chain without repetition.

    Each item has five likely successors, with odds `SUCCESSORS`, one of which comes `lag` places later. With
    a lag of 2, two chains alternate in a history, and the last item alone says nothing about the next. With
    probability `noise` the next item comes from a popularity law (1 / rank^0.8) instead. What a user has had
    is drawn no more: the law of the next item is the chain's, restricted to the rest. An ideal ranker sorts
    by that law, so its HR@10 at a user's last item is the ten largest probabilities' sum.

    Raises:
        InputError: too few items, or sizes that are not positive, or more items than a dense chain holds.
    """
    if not (users >= 1 and 20 <= items <= 20_000 and 3 <= mean_length <= items / 2 and 0 <= noise <= 1):
        raise InputError(
            "synthetic data need 1 or more users, 20 to 20,000 items, a mean length from 3 to half the "
            "items, and noise between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    popularity = rng.permutation(1 / np.arange(1, items + 1) ** 0.8)
    popularity /= popularity.sum()
    chain = np.tile(noise * popularity, (items, 1))
    for i in range(items):
        chain[i, rng.choice(items, len(SUCCESSORS), replace=False)] += (1 - noise) * SUCCESSORS

    lengths = np.minimum(3 + rng.poisson(mean_length - 3, users), items // 2)
    drawn: list[list[int]] = []
    hits = 0.0
    for length in lengths.tolist():
        history = [int(rng.choice(items, p=popularity))]
        law = popularity
        while len(history) < length:
            law = chain[history[-lag]].copy() if len(history) >= lag else popularity.copy()
            law[history] = 0
            law /= law.sum()
            history.append(int(rng.choice(items, p=law)))
        hits += np.sort(law)[-10:].sum()
        drawn.append([item + 1 for item in history])
    return Synthetic(
        Interactions.from_histories(drawn, source=f"synthetic, seed {seed}"), ideal_hr10=hits / users
    )


def write_sequences(interactions: Interactions, path: Path) -> None:
    """Write histories as sequence lines, with users numbered from 1, as `readers.read` reads them."""
    ids: Ints = interactions.item_ids[interactions.items]
    histories = np.split(ids, interactions.offsets[1:-1])
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as file:
        for user, history in enumerate(histories, start=1):
            file.write(" ".join(map(str, [user, *history.tolist()])) + "\n")

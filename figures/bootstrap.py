"""What may be chance in a figure: which users were drawn, which runs were trained, which seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau

from figures.records import Record, read_ranks
from figures.style import METRICS
from samrec.data.interactions import Ints
from samrec.evaluation import gain

RESAMPLES = 2000
OUTSIDE = (0.025, 0.975)  # what of them a 95% interval cuts off
FEWEST = 5  # runs of which a rank correlation says anything
Floats = NDArray[np.float64]


class Gain(NamedTuple):
    """How much more ours is than theirs (0.1 is 10% more), its 95% interval, and a two-sided p."""

    gain: float
    low: float
    high: float
    p: float


class Tau(NamedTuple):
    """Kendall's τ with its 95% interval."""

    tau: float
    low: float
    high: float


def relative_gain(ours: Sequence[Ints], theirs: Sequence[Ints], metric: str, seed: int = 0) -> Gain:
    """Compare a metric of two methods on the same users: mean of ours / mean of theirs - 1.

    A user counts with the mean over a method's seeds. Paired percentile bootstrap over users (Efron 1979):
    it says how far other users might move the gain, and knows nothing of another seed of the training.
    p is twice the share of resamples on the far side of 0, with 1 added to both counts (Davison & Hinkley
    1997, 4.11), so never less than 2 / (resamples + 1). Where theirs hits nothing, all are NaN.

    Args:
        ours, theirs: of each seed the ranks (0 is best) of the users in the same order, shape (users,).
    """
    mine, yours = _by_user(ours, metric), _by_user(theirs, metric)
    if not yours.any():
        return Gain(*[np.nan] * 4)
    # Users with the same pair of values are one kind, and a resample is how many it has of each. Complex
    # numbers, since pairs of reals take ten times as long to sort.
    kinds, counts = np.unique(mine + 1j * yours, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(mine), counts / len(mine), RESAMPLES)
    difference = drawn @ (kinds.real - kinds.imag)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of few users may have no hit
        low, high = np.nanquantile(difference / (drawn @ kinds.imag), OUTSIDE).tolist()
    tail = 1 + min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    ratio = float(mine.mean() / yours.mean())
    return Gain(ratio - 1, low, high, min(1.0, 2 * tail / (RESAMPLES + 1)))


def compared(
    ours: Sequence[Record], theirs: Sequence[Record], results: Path
) -> dict[str, dict[str, float] | None]:
    """Return the relative gain of some runs over others in each test metric of the figures.

    None where a side has no runs, or theirs never hit.
    """
    mine, yours = ([read_ranks(run.name, results) for run in runs] for runs in (ours, theirs))
    if not mine or not yours:
        return dict.fromkeys(METRICS)
    found = {metric: relative_gain(mine, yours, metric) for metric in METRICS}
    return {metric: g._asdict() if np.isfinite(g).all() else None for metric, g in found.items()}


def kendall(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Tau | None:
    """Return Kendall's τ-b of runs, with a 95% percentile bootstrap over runs; None of fewer than
    five, or where x or y is all one value.

    A resample is how often it has each run, so its τ-b is a sum over pairs of runs: Σ n_i n_j s_ij t_ij over
    √(Σ n_i n_j s_ij² · Σ n_i n_j t_ij²), with s and t the signs of the differences in x and y.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    tau = float(kendalltau(x, y).statistic) if len(x) >= FEWEST else np.nan
    if np.isnan(tau):
        return None
    drawn = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), RESAMPLES) * 1.0
    s, t = (np.sign(values[:, None] - values) for values in (x, y))
    same, in_x, in_y = ((drawn @ pairs * drawn).sum(1) for pairs in (s * t, s**2, t**2))
    with np.errstate(invalid="ignore"):  # a resample of one run alone has no order
        low, high = np.nanquantile(same / np.sqrt(in_x * in_y), OUTSIDE).tolist()
    return Tau(tau, low, high)


def _by_user(ranks: Sequence[Ints], metric: str) -> Floats:
    by_seed = np.stack(ranks)
    values: Floats = gain(torch.arange(by_seed.max() + 1.0).double(), metric).numpy()[by_seed].mean(0)
    return values

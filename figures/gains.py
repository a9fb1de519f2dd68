"""How much one method gains over another, with intervals that cover another seed and other users."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import nct, t

from samrec.data.interactions import Ints
from samrec.evaluation import gain

Floats = NDArray[np.float64]
POWER = 0.8


class Gain(NamedTuple):
    """How much more ours is than theirs: 0.1 is 10% more.

    Attributes:
        gain: mean of ours / mean of theirs - 1, means over seeds, checkpoints and users.
        low, high: its 95% interval; None where there are fewer than two seeds.
        p: two-sided, of the hypothesis that both are equal.
        error: the standard error of ln(1 + gain).
        seeds: how many pairs of runs it is of.
    """

    gain: float
    low: float | None
    high: float | None
    p: float | None
    error: float | None
    seeds: int


def values(ranks: Sequence[Ints], metric: str) -> Floats:
    """Return what each user adds to a metric, for each seed; a seed's checkpoints are averaged.

    Args:
        ranks: of each seed the ranks (0 is best) of the same users, shape (checkpoints, users) each.

    Returns:
        Shape (seeds, users).
    """
    largest = max(int(of_seed.max(initial=0)) for of_seed in ranks)
    table = gain(torch.arange(largest + 1.0).double(), metric).numpy()
    return np.stack([table[of_seed].mean(0) for of_seed in ranks])


def compared(ours: Floats, theirs: Floats) -> Gain:
    r"""Compare two methods on the same users, by pairs of runs that share their seed.

    With x_su and y_su of seed s and user u, and means x̄ and ȳ, ln(x̄ / ȳ) has the influences
    z_su = x_su / x̄ - y_su / ȳ. Seeds and users are crossed random effects, so its variance is
    σ_s² / S + σ_su² / SU + σ_u² / U, of seeds, of users within seeds, and of users whom one method suits
    better whatever the seed. The variance of the S means of seeds, over S, estimates the first two together.
    σ_u² has an estimate of its own from each user; its part is added where their mean is clear of its error,
    by two standard errors, since a tenth of it would already spoil a variance of three seeds that is small by
    luck. Student's t has S - 1 degrees of freedom: seeds are few, users are many.

    A bootstrap of users alone says nothing of another seed. One of users × seeds (Owen 2007, "The pigeonhole
    bootstrap") counts σ_su² three times, and has ten different draws of three seeds. With many seeds and
    σ_su small, its intervals are these (`tests/test_gains.py`, which also simulates their coverage).

    Args:
        ours, theirs: shape (seeds, users), a row a seed, paired.

    Returns:
        The gain. All but `seeds` are NaN or None where a method has no hit at all; with one seed there is a
        gain and nothing else.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"values of shape {ours.shape} are not paired with those of shape {theirs.shape}")
    seeds = len(ours)
    if not (ours.any() and theirs.any()):
        return Gain(float("nan"), None, None, None, None, seeds)
    ratio = float(np.log(ours.mean() / theirs.mean()))
    if seeds < 2:
        return Gain(float(np.expm1(ratio)), None, None, None, None, seeds)
    z = ours / ours.mean() - theirs / theirs.mean()
    of_seeds = z.mean(1)
    error = float(np.sqrt(of_seeds.var(ddof=1) / seeds + _of_users(z)))
    far = t.ppf(0.975, seeds - 1) * error
    p = 2 * t.sf(abs(ratio) / error, seeds - 1) if error else float(ratio == 0)
    low, high = np.expm1([ratio - far, ratio + far]).tolist()
    return Gain(float(np.expm1(ratio)), low, high, float(p), error, seeds)


def _of_users(z: Floats) -> float:
    """Return σ_u² / U where it is clear of its error, else 0."""
    seeds, users = z.shape
    means = z.mean(0)
    rest = z - z.mean(1, keepdims=True) - means + z.mean()
    each = (means - z.mean()) ** 2 - (rest**2).sum(0) / (seeds * (seeds - 1))
    found, error = each.mean() / users, each.std(ddof=1) / users**1.5
    return float(found) if found > 2 * error else 0.0


def smallest(error: float, seeds: int, level: float = 0.05) -> float:
    """Return the gain that a two-sided t test at `level` would have seen with a probability of 80%.

    Args:
        error: the standard error of ln(1 + gain), as `Gain` has it.
        seeds: its number of pairs, at least two.
        level: of the test; of the first of m by Holm it is 0.05 / m.
    """
    freedom = seeds - 1
    limit = t.ppf(1 - level / 2, freedom)

    def missing(effect: float) -> float:
        # The far tail is left out: where the power is 80% it is nothing.
        return float(nct.sf(limit, freedom, effect)) - POWER

    far = limit + 10.0
    while missing(far) < 0:
        far *= 2
    return float(np.expm1(brentq(missing, 0.0, far) * error))


def holm(ps: ArrayLike) -> Floats:
    """Adjust p-values of one family (Holm 1979): below 0.05 together at a familywise error of 5%."""
    known = np.asarray(ps, float)
    order = np.argsort(known)
    steps = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum(1, steps)
    return adjusted

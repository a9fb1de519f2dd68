"""Every error bar, once: of means, of ratios, and of differences and ratios of two checkpoints.

A *sample* holds one value per independent draw (probe, perturbation) or per unit (user); its mean is the
estimate. For a ratio r = Σ s / Σ w over units, pseudo-values play that part.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
CONFIDENCE = 0.95
SAMPLE = ("data_sha256", "users", "objective_seed", "batches_sha256", "loss")
"""Provenance that two objectives share if they are of the same users and negatives."""


def mean(sample: Array) -> tuple[float, float]:
    """Return the mean of independent values, and its standard error."""
    return float(sample.mean()), float(sample.std(ddof=1) / len(sample) ** 0.5)


def interval(value: float, error: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a mean of `count` independent samples, by Student's t.

    Two standard errors of eight samples cover 91%, of three 82%. Where samples are skewed, as zᵀAz is where
    few eigenvalues make up most of A, those of five cover less than 95% by Student's t too, about 86%.
    """
    far = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error if count > 1 else error
    return value - far, value + far


def standard_error(*samples: Array) -> float | None:
    """Return √Σ var / n, the standard error of an estimate that varies with several independent samples.

    Each sample holds pseudo-values whose mean is the estimate. Empty ones do not count; None if all are.
    """
    with np.errstate(invalid="ignore"):  # of a loss that is not finite, whose error is NaN
        parts = [sample.var(ddof=1) / len(sample) for sample in samples if len(sample)]
    return float(sum(parts)) ** 0.5 if parts else None


def half_width(*samples: Array) -> float | None:
    """Return half the width of the 95% interval of the estimate that `standard_error` is of.

    t is Student's, with Satterthwaite's degrees of freedom (1946). None if no sample has two values, or if
    one holds a value that is not finite.
    """
    if not all(np.isfinite(sample).all() for sample in samples):
        return None
    parts = [(float(sample.var(ddof=1)) / len(sample), len(sample)) for sample in samples if len(sample) > 1]
    return _quantile(parts) * sum(part for part, _ in parts) ** 0.5 if parts else None


def _quantile(parts: Sequence[tuple[float, int]]) -> float:
    """Return t for a sum of variances of means, each with the number of values of its mean."""
    total = sum(part for part, _ in parts) or 1.0
    freedom = 1 / (sum((part / total) ** 2 / (count - 1) for part, count in parts) or 1.0)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def ratio_parts(sums: Array, weights: Array) -> Array:
    """Return by how much each unit pulls r = Σ sums / Σ weights, to first order: (s - r w) / Σ w.

    They add up to 0. Shape (units,), as both arguments.
    """
    total = weights.sum()
    with np.errstate(invalid="ignore"):  # a loss that is not finite there
        parts: Array = (sums - weights * (sums.sum() / total)) / total
    return parts


def ratio_error(parts: Array) -> float | None:
    """Return the standard error of a ratio, or of a difference of ratios, from its parts (see `ratio_parts`).

    None for a single unit.
    """
    n = len(parts)
    return float(np.sqrt(n / (n - 1) * np.square(parts).sum())) if n > 1 else None


def influences(sums: Array, weights: Array) -> Array:
    """Return the units' parts in r = Σ sums / Σ weights as pseudo-values about 0: (s - r w) U / Σ w.

    The standard error of their mean is that of r. Shape (units,); empty where a single unit has a weight.
    """
    return len(sums) * ratio_parts(sums, weights) if np.count_nonzero(weights) > 1 else np.empty(0)


def fieller(x: float, y: float, pairs: Sequence[tuple[Array, Array]]) -> tuple[float, float] | None:
    """Return the 95% interval of r = y / x: all r for which y - r x is within t standard errors of 0.

    Fieller, "Some Problems in Interval Estimation" (1954). It is right for small x too, where the delta
    method is not. It solves (y - r x)² = t² Var(y - r x), written for s = r - y/x and e = y - (y/x) x so that
    close values lose no digits: (x² - t² V_xx) s² + 2 t² V_xe s - t² V_ee = 0. t is Student's, with
    Satterthwaite's degrees of freedom (1946).

    Args:
        x, y: the two values.
        pairs: samples of both over the same draws or units, one pair for each independent kind of sample.

    Returns:
        Its ends; None where x is so close to 0 that arbitrarily large r fit.
    """
    ratio = y / x
    parts = [np.cov(a, b - ratio * a) / len(a) for a, b in pairs]
    (v_xx, v_xe), (_, v_ee) = np.sum(parts, axis=0).tolist()
    if v_ee == 0:
        return ratio, ratio
    t = _quantile([(float(part[1, 1]), len(a)) for part, (a, _) in zip(parts, pairs, strict=True)])
    lead = x**2 - t**2 * v_xx
    if lead <= 0:
        return None
    middle = ratio - t**2 * v_xe / lead
    reach = t * math.sqrt(t**2 * v_xe**2 + lead * v_ee) / lead
    return middle - reach, middle + reach

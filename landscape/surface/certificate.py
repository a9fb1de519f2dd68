"""What a surface says of its own error."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from landscape.chebyshev import Axis, at_points
from landscape.objective import Objective
from landscape.results import Array
from landscape.surface.points import Points
from landscape.surface.slice import Slice

CONFIDENCE = 0.95
SAMPLE = ("data_sha256", "users", "objective_seed", "batches_sha256", "loss")
"""What two objectives share that are of the same users and negatives."""


@dataclass(frozen=True)
class Certificate:
    """How far the surface that is drawn may be from the loss.

    All but `error`, `standard_error` and `rise_standard_error`, which are in units of the loss, are
    relative to the largest loss at the points of the surface less the smallest.

    Attributes:
        reached: whether the tolerance was.
        tol: asked for.
        max_error, error: the largest error at fresh random points, which the fit has not seen.
        points: how many. With a confidence of 95%, at most `share` of the slice errs by more.
        attempts: how many fits these points have judged, the last of which stands.
        tail: the error that the fit's coefficients predict.
        float64: the largest difference to the same loss computed in float64, at centre and corners; None
            where the loss is in float64 itself, or cannot be computed so.
        standard_error: of L(θ), from having drawn these units (users) and no others;
            `rise_standard_error` of L - L(θ) at the corner where it is largest. None for a single unit.
        units: how many were drawn.
    """

    reached: bool
    tol: float
    max_error: float
    error: float
    points: int
    attempts: int
    share: float
    tail: float
    float64: float | None
    standard_error: float | None
    rise_standard_error: float | None
    units: int


def fresh_error(points: Points, axes: Sequence[Axis], samples: Array, count: int, seed: int) -> float:
    """Return the largest error of a fit at `count` uniform random points; inf if L is not finite there.

    A seed and a count mean the same points for every fit; no fit is ever made to pass through them.
    """
    low, high = np.array([[axis.low, axis.high] for axis in axes]).T
    drawn = np.random.default_rng((seed, count)).uniform(low, high, (count, len(axes)))
    error = float(np.abs(at_points(axes, samples, drawn) - points.at(drawn, "fresh points")).max())
    return error if np.isfinite(error) else np.inf


def uncovered(count: int, attempts: int) -> float:
    """Return the share p of a slice that may err by more than the worst of `count` uniform points.

    All of them miss a share of p with probability (1 - p)^n <= exp(-np). A fit that the points reject is
    refined and judged by them again, so how many fits there are depends on the points. The k-th is allowed
    a chance of 0.05 / k(k + 1); these add up to less than 0.05, whenever it stops. So p is
    ln(k(k + 1) / 0.05) / n, which for the first fit is 3.7/n.
    """
    return min(1.0, float(np.log(attempts * (attempts + 1) / (1 - CONFIDENCE))) / count)


def checked(points: Points, axes: Sequence[Axis]) -> tuple[Array, float | None]:
    """Look closer at the centre and at each corner.

    Returns each unit's part in how L may be off, (sum - L · weight) / Σ weights, shape (1 + corners, units),
    and the largest difference to float64, see `Certificate`.
    """
    steps = [(0.0,) * len(axes), *product(*((axis.low, axis.high) for axis in axes))]
    losses = points.at(np.array(steps))
    own = points.objective

    def parts_of(objective: Objective) -> list[tuple[float, Array]]:
        return [unit_parts(objective, points.theta(step).to(objective.theta)) for step in steps]

    found, worst = None, None
    if own.theta.dtype != torch.float64:
        with suppress(Exception):  # a loss may know float32 alone; its standard errors do not need float64
            found = parts_of(own.in_float64())
            worst = max(abs(value - loss) for (value, _), loss in zip(found, losses.tolist(), strict=True))
    return np.stack([parts for _, parts in found or parts_of(own)]), worst


def standard_error(parts: Array) -> float | None:
    """Return the standard error of a mean from each unit's part in it (see `checked`), shape (units,)."""
    n = len(parts)
    return float(np.sqrt(n / (n - 1) * np.square(parts).sum())) if n > 1 else None


def paired_error(a: Slice, b: Slice) -> float | None:
    """Return the standard error of the difference of two checkpoints' losses, from the users they share.

    What a user adds to both falls out, so it is far below that of two samples. None where the two are
    not of the same users and negatives, or nothing is known of these.

    Args:
        a, b: slices of the two, of the same loss; the error is in its unit.
    """
    same = all(a.provenance.get(key) == b.provenance.get(key) for key in SAMPLE)
    if not same or a.deviations.shape != b.deviations.shape or not a.deviations.size:
        return None
    return standard_error(a.deviations[0] - b.deviations[0])


def unit_parts(objective: Objective, theta: Tensor) -> tuple[float, Array]:
    """Return L, and each unit's part in how it may be off, shape (units,): see `standard_error`."""
    sums, weights = objective.units(theta)
    return float(sums.sum() / weights.sum()), ratio_parts(sums, weights)


def ratio_parts(sums: Array, weights: Array) -> Array:
    """Return by how much each unit pulls r = Σ sums / Σ weights off, to first order: (s - r w) / Σ w."""
    total = weights.sum()
    with np.errstate(invalid="ignore"):  # a loss that is not finite there
        parts: Array = (sums - weights * (sums.sum() / total)) / total
    return parts

"""The polynomial through a surface, its error, and how far that is known."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.statistics import CONFIDENCE, SAMPLE, ratio_error, ratio_parts
from landscape.storage.results import Array
from landscape.surface.chebyshev import FINEST, Axis, at_points
from landscape.surface.frames import Span
from landscape.surface.loss_cache import LossCache
from landscape.surface.slice import Certificate, Slice, need_slice

FRESH = 60  # random points that certify a fit: at most 3.7/60 of it errs by more than the worst of them
NEAR = 4  # tolerances; a fit is judged once its predicted error, a cautious one, is below that


@dataclass(frozen=True, eq=False)
class Fit:
    """The polynomial through the loss at Chebyshev points, and its error."""

    axes: Sequence[Axis]
    samples: Array
    certificate: Certificate
    deviations: Array


def fitted(points: LossCache, spans: Sequence[Span], tol: float, split: int, seed: int) -> Fit | None:
    """Refine Chebyshev points until the fit holds or the finest level is reached; None if L is not finite."""
    axes = [Axis(low, high, pieces=split) for low, high in spans]
    attempts = 0
    while True:
        samples = points.on_grid([axis.nodes for axis in axes])
        if not np.isfinite(samples).all():
            warnings.warn(
                f"the loss is not finite at {np.count_nonzero(~np.isfinite(samples))} of {samples.size} "
                "points, so no polynomial can be fitted; a plain grid is drawn instead",
                stacklevel=4,
            )
            return None
        scale = float(np.ptp(samples)) or 1.0  # a constant has range 0, and error 0
        tails = [axis.tail(np.moveaxis(samples, i, 0)) / scale for i, axis in enumerate(axes)]
        finest = all(axis.level == FINEST for axis in axes)
        error = np.inf
        if sum(tails) <= NEAR * tol or finest:
            error, attempts = fresh_error(points, axes, samples, FRESH, seed), attempts + 1
        reached = error <= tol * scale
        if reached or finest:
            break
        # Refine the axis whose coefficients predict the larger error; fresh points judge the result.
        coarsest = max((i for i, axis in enumerate(axes) if axis.level < FINEST), key=lambda i: tails[i])
        axes[coarsest] = axes[coarsest].finer()
    if not reached:
        warnings.warn(
            f"{len(axes[0].nodes)} points per axis do not reach a tolerance of {tol:g}: the error is "
            f"{error / scale:.2g} of the range; split each axis into {2 * split}, use a smaller radius, "
            "or raise the tolerance",
            stacklevel=4,
        )
    deviations, float64 = checked(points, axes)
    certificate = Certificate(
        reached=reached,
        tol=tol,
        max_error=error / scale,
        error=error,
        points=FRESH,
        attempts=attempts,
        share=uncovered(FRESH, attempts),
        tail=sum(tails),
        float64=None if float64 is None else float64 / scale,
        standard_error=ratio_error(deviations[0]),
        rise_standard_error=max(
            (e for e in map(ratio_error, deviations[1:] - deviations[0]) if e is not None), default=None
        ),
        units=deviations.shape[1],
    )
    return Fit(axes, samples, certificate, deviations)


def fresh_error(points: LossCache, axes: Sequence[Axis], samples: Array, count: int, seed: int) -> float:
    """Return the largest error of a fit at `count` uniform random points; inf if L is not finite there.

    A seed and a count give the same points for every fit, and no fit is made to pass through them.
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


def checked(points: LossCache, axes: Sequence[Axis]) -> tuple[Array, float | None]:
    """Evaluate the loss per example at the centre and at each corner, in float64 where possible.

    Returns each unit's part in how far L may be off, (sum - L · weight) / Σ weights, shape (1 + corners,
    units), and the largest difference to float64, see `Certificate`.
    """
    steps = [(0.0,) * len(axes), *product(*((axis.low, axis.high) for axis in axes))]
    losses = points.at(np.array(steps))
    own = points.objective

    def parts_of(objective: Objective) -> list[tuple[float, Array]]:
        return [unit_parts(objective, points.theta(step).to(objective.theta)) for step in steps]

    found, worst = None, None
    if own.theta.dtype != torch.float64:
        with suppress(Exception):  # a loss may work in float32 only; its standard errors do not need float64
            found = parts_of(own.in_float64())
            worst = max(abs(value - loss) for (value, _), loss in zip(found, losses.tolist(), strict=True))
    return np.stack([parts for _, parts in found or parts_of(own)]), worst


def paired_error(a: Slice, b: Slice) -> float | None:
    """Return the standard error of the difference of two checkpoints' losses, from the users they share.

    What a user adds to both cancels, so the error is far below that of two separate samples. None where the
    two do not have the same users and negatives, or these are not known.

    Args:
        a, b: slices of the two checkpoints, of the same loss; the error is in its unit.

    Raises:
        InputError: one is something else.
    """
    for each in (a, b):
        need_slice(each, "paired_error takes")
    same = all(a.provenance.get(key) == b.provenance.get(key) for key in SAMPLE)
    if not same or a.deviations.shape != b.deviations.shape or not a.deviations.size:
        return None
    return ratio_error(a.deviations[0] - b.deviations[0])


def unit_parts(objective: Objective, theta: Tensor) -> tuple[float, Array]:
    """Return L, and each unit's part in how far it may be off, shape (units,): see `ratio_parts`.

    Where a single unit has a weight, it is the only one: the others say nothing of how far units differ.
    """
    sums, weights = objective.per_example(theta)
    some = slice(None) if np.count_nonzero(weights) > 1 else weights != 0
    return float(sums.sum() / weights.sum()), ratio_parts(sums[some], weights[some])

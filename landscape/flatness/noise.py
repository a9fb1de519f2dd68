"""The mean loss under Gaussian noise δ = σ C z, C diagonal, and the noise at which it has risen so far."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.runtime import progress
from landscape.storage.results import Array

FIRST, LARGEST = 0.01, 1e3  # σ: where the search begins, and where it gives up
_STRIDE = math.log(10)  # of log σ, at most
_CLOSE = 1e-3  # to the target, in log rise; what is left is interpolated
_MOST = 40  # steps, of which a smooth loss takes three or four


@dataclass(frozen=True, eq=False)
class Rise:
    """How far the loss rises under noise of one σ.

    Attributes:
        by_draw: L(θ + δ) - L(θ), the mean over each antithetic pair ±δ. Shape (samples,).
        by_unit: the rise of each unit's sum, the mean over all draws. Shape (units,).
    """

    by_draw: Array
    by_unit: Array

    @property
    def mean(self) -> float:
        """The estimate of E L(θ + σ C z) - L(θ)."""
        return float(self.by_draw.mean())


class Noise:
    """The loss under noise of one C and any σ. All of it sees the same z, and no σ is measured twice.

    Antithetic pairs θ ± δ: what is odd in δ, the gradient above all, cancels within each pair.

    Args:
        scale: the diagonal of C, shape (numel,).
        center: each unit's sum and weight at θ.
        samples: pairs.
    """

    def __init__(
        self, objective: Objective, scale: Tensor, center: tuple[Array, Array], samples: int, seed: int
    ) -> None:
        self.samples = samples
        self._objective = objective
        self._scale = scale
        self._sums, self._weights = center
        self._seed = seed
        self._known: dict[float, Rise] = {}

    def rise(self, sigma: float) -> Rise:
        """Return the rise at σ, from 2 · samples evaluations."""
        if sigma not in self._known:
            self._known[sigma] = self._measured(sigma)
        return self._known[sigma]

    def _measured(self, sigma: float) -> Rise:
        by_draw = np.empty(self.samples)
        by_unit = np.zeros(len(self._sums))
        theta = self._objective.theta
        with progress.bar(f"noise σ = {sigma:.3g}", self.samples) as advance:
            for i, delta in enumerate(self._deltas(sigma)):
                above, below = (self._objective.per_example(t)[0] for t in (theta + delta, theta - delta))
                with np.errstate(invalid="ignore"):  # far out, the loss may be no number
                    rises = (above + below) / 2 - self._sums
                    by_draw[i] = rises.sum() / self._weights.sum()
                    by_unit += rises / self.samples
                advance()
        return Rise(by_draw, by_unit)

    def _deltas(self, sigma: float) -> Iterator[Tensor]:
        rng = np.random.default_rng(self._seed)
        factor = sigma * self._scale
        for _ in range(self.samples):
            yield factor * torch.from_numpy(rng.standard_normal(factor.numel())).to(factor)


@dataclass(frozen=True, eq=False)
class Reached:
    """Where the loss has risen so far.

    Attributes:
        sigma: there; inf if no σ up to `LARGEST` gets so far.
        power: d log rise / d log σ there; 2 where the loss is quadratic.
        rise: measured next to there.
    """

    sigma: float
    power: float
    rise: Rise


def sigma_reaching(noise: Noise, target: float) -> Reached:
    """Find the σ at which E L(θ + σ C z) - L(θ) is `target`, which is positive.

    Secant steps of log rise over log σ, whose slope is 2 for a quadratic, within a bracket once there is one;
    halving it where they leave it. Where several σ are solutions it is one of them; where the loss jumps over
    the target, the σ is just below the jump.
    """
    sigma, power = FIRST, 2.0
    low, high = -math.inf, math.inf  # of log σ: where the rise is too small, and where it is not
    before: tuple[float, float] | None = None
    below: Reached | None = None
    for _ in range(_MOST):
        x, rise = math.log(sigma), noise.rise(sigma)
        height = _height(rise.mean, target)
        if math.isfinite(height):
            if before is not None:
                slope = (height - before[1]) / (x - before[0])
                power = slope if slope > 0 else 2.0
            before = x, height
        if abs(height) <= _CLOSE:
            return Reached(math.exp(x - height / power), power, rise)
        if height < 0 and sigma == LARGEST:
            return Reached(math.inf, power, rise)
        if height < 0:
            low, below = x, Reached(sigma, power, rise)
        else:
            high = x
        if high - low < _CLOSE:
            break
        x += min(max(-height / power, -_STRIDE), _STRIDE)
        sigma = min(math.exp(x if low < x < high else (low + high) / 2), LARGEST)
    return below or Reached(sigma, power, rise)


def _height(rise: float, target: float) -> float:
    """log(rise / target); a rise that is not finite has passed any target."""
    if not math.isfinite(rise):
        return math.inf
    return math.log(rise / target) if rise > 0 else -math.inf

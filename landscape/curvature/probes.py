"""Random signs, and a matrix's products with them, a few at once."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from landscape.curvature.operators import Operator, operator_of
from landscape.curvature.solver import Counted
from landscape.errors import InputError
from landscape.objective import Objective
from landscape.results import Array, surroundings

LEAST = 8  # samples before their spread is believed
AT_ONCE = 8  # vectors
NUMBERS = 2**27  # in all the vectors at once


class Probes:
    """Random signs z, in an order that the seed alone decides, and products of a matrix A, counted.

    Measurements of one seed see the same signs, of whatever matrix and by whatever method.

    Attributes:
        like: a vector of the kind that A takes.
    """

    def __init__(self, target: Objective | Operator, seed: int, advance: Callable[..., None]) -> None:
        self._started = time.perf_counter()
        self._operator = operator_of(target)
        self.like = self._operator.like
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._counted = Counted(self._operator, advance)
        self._at_once = max(1, min(AT_ONCE, NUMBERS // self.like.numel()))

    def draw(self, count: int) -> Tensor:
        """Return the next `count` probes, one a row."""
        signs = self.like.new_empty(count, self.like.numel())
        for row in signs:
            row.copy_(torch.from_numpy(self._rng.integers(0, 2, len(row), dtype=np.int8) * 2 - 1))
        return signs

    def multiply(self, vectors: Tensor) -> Tensor:
        """Return A v of each row.

        Raises:
            InputError: a product is not finite.
        """
        if not len(vectors):
            return vectors
        return torch.cat([self._counted.many(some) for some in torch.split(vectors, self._at_once)])

    def pairs(self, probes: int, sure: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield z and Az of each of `probes`; the first `sure` several at once, the others as asked for."""
        done = 0
        while done < probes:
            some = min(self._at_once, sure - done) if done < sure else 1
            signs = self.draw(some)
            yield from zip(signs, self.multiply(signs), strict=True)
            done += some

    def sample(
        self, statistic: Callable[[Tensor, Tensor], float], probes: int, tol: float | None = None
    ) -> Array:
        """Return `statistic(z, Az)` of each probe, or of fewer if their mean meets the tolerance by then."""
        samples: list[float] = []
        for pair in self.pairs(probes, probes if tol is None else min(LEAST, probes)):
            samples.append(statistic(*pair))
            if len(samples) >= LEAST and meets(*mean(np.array(samples)), tol):
                break
        return np.array(samples)

    def account(self, **asked: Any) -> dict[str, Any]:
        """Return what a `Result` says of itself: what was `asked`, of what matrix, and what it took."""
        operator = self._operator
        return {
            "settings": {
                "matrix": operator.name,
                "product": operator.way,
                **asked,
                "products": self._counted.products,
                "seed": self._seed,
            },
            "provenance": operator.provenance | surroundings(self.like.device),
            "seconds": time.perf_counter() - self._started,
        }


def mean(samples: Array) -> tuple[float, float]:
    """Return the mean of independent samples, and its standard error."""
    return float(samples.mean()), float(samples.std(ddof=1) / len(samples) ** 0.5)


def interval(value: float, error: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a mean of `count` independent samples, by Student's t.

    Two standard errors of eight samples cover 91%, of three 82%. Where samples are skewed, as zᵀAz is where
    few eigenvalues make up most of A, those of five cover less than 95% by Student's t too, about 86%.
    """
    far = float(student.ppf(0.975, count - 1)) * error if count > 1 else error
    return value - far, value + far


def meets(value: float, error: float, tol: float | None) -> bool | None:
    """Tell whether a standard error is at most `tol` of |value|; None if that was not asked."""
    return None if tol is None else error <= tol * abs(value)


def check(probes: int, least: int, tol: float | None = None) -> None:
    """Refuse too few probes and a tolerance that cannot be met.

    Raises:
        InputError: fewer than `least` probes, or `tol` is not positive.
    """
    if probes < least:
        raise InputError(f"probes is {probes}, which leaves no standard error; use {least} or more")
    if tol is not None and not tol > 0:
        raise InputError(f"tol is {tol:g}; it must be positive, or None to use all probes")

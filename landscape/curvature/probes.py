"""Random signs, and the products of a matrix with them, a few at a time."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.curvature.basis import COLUMNS
from landscape.curvature.linear import LinearOperator, vector_of
from landscape.curvature.operators import described, operator_of
from landscape.curvature.solver import Counted
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.shards import fill
from landscape.statistics import mean
from landscape.storage.results import Array, surroundings

LEAST = 8  # samples before their spread is believed
AT_ONCE = 8  # vectors
NUMBERS = 2**27  # at most in all vectors at once


class Probes:
    """Random signs z, in an order that only the seed decides, and products of a matrix A, counted.

    All measurements with one seed see the same signs, for any matrix and by any method.

    Attributes:
        like: a vector of the kind that A takes.
    """

    def __init__(self, target: Objective | LinearOperator, seed: int, advance: Callable[..., None]) -> None:
        self._started = time.perf_counter()
        self._operator = operator_of(target)
        self.like = vector_of(self._operator)
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._counted = Counted(self._operator, advance)
        self._at_once = max(1, min(AT_ONCE, NUMBERS // self.like.numel(), self._counted.at_once))

    def draw(self, count: int) -> Tensor:
        """Return the next `count` probes, one per row."""
        signs = self.like.new_empty(count, self.like.shape[-1])
        for row in signs:
            fill(row, self._signs, COLUMNS)  # a multiple of 4, so that pieces are drawn as the whole would be
        return signs

    def _signs(self, count: int) -> NDArray[np.int8]:
        return self._rng.integers(0, 2, count, dtype=np.int8) * 2 - 1

    def multiply(self, vectors: Tensor) -> Tensor:
        """Return A v of each row.

        Raises:
            InputError: a product is not finite.
        """
        if not len(vectors):
            return vectors
        if len(vectors) <= self._at_once:
            return self._counted.many(vectors)
        return torch.cat([self._counted.many(some) for some in torch.split(vectors, self._at_once)])

    def pairs(self, probes: int, sure: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield z and Az of each probe: the first `sure` several at a time, then one by one as asked for."""
        done = 0
        while done < probes:
            some = min(self._at_once, sure - done) if done < sure else 1
            signs = self.draw(some)
            yield from zip(signs, self.multiply(signs), strict=True)
            del signs  # before the next are drawn
            done += some

    def sample(
        self, statistic: Callable[[Tensor, Tensor], float], probes: int, tol: float | None = None
    ) -> Array:
        """Return `statistic(z, Az)` of each probe, of fewer if their mean meets the tolerance earlier."""
        samples: list[float] = []
        for pair in self.pairs(probes, probes if tol is None else min(LEAST, probes)):
            samples.append(statistic(*pair))
            del pair  # before the next product
            if len(samples) >= LEAST and meets(*mean(np.array(samples)), tol):
                break
        return np.array(samples)

    def account(self, **asked: Any) -> dict[str, Any]:
        """Return settings (those `asked` for among them), provenance and seconds, for a `Result`."""
        settings, provenance = described(self._operator)
        return {
            "settings": {
                **settings,
                **asked,
                "products": self._counted.products,
                "seed": self._seed,
            },
            "provenance": provenance | surroundings(self.like.device),
            "seconds": time.perf_counter() - self._started,
        }


def meets(value: float, error: float, tol: float | None) -> bool | None:
    """Tell whether a standard error is at most `tol` times |value|; None without a `tol`."""
    return None if tol is None else error <= tol * abs(value)


def check(probes: int, least: int) -> None:
    """Refuse too few probes.

    Raises:
        InputError: fewer than `least` probes.
    """
    if probes < least:
        raise InputError(f"probes is {probes}, which leaves no standard error; use {least} or more")

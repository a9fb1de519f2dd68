"""Chebyshev–Lobatto points, the polynomial through values there, and how much of it is missing.

NumPy alone. Trefethen, "Approximation Theory and Approximation Practice" (SIAM 2013), chapters 3 to 5 and 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FINEST = 5
"""The last level: 33 points."""


@dataclass(frozen=True)
class Axis:
    """An interval, cut into equal pieces with the 2^level + 1 Chebyshev–Lobatto points of each.

    The points of a level are among those of the next, to the last bit.

    Attributes:
        low, high: its ends.
        level: from 1 to `FINEST`.
        pieces: how many.
    """

    low: float
    high: float
    level: int = 2
    pieces: int = 1

    @classmethod
    def through(cls, nodes: Array, pieces: int) -> "Axis":
        """Return the axis that has these nodes."""
        level = ((len(nodes) - 1) // pieces).bit_length() - 1
        return cls(float(nodes[0]), float(nodes[-1]), level, pieces)

    @property
    def points(self) -> int:
        """How many points a piece has."""
        return int(2**self.level) + 1

    def finer(self) -> "Axis":
        """Return the axis of the next level."""
        return replace(self, level=self.level + 1)

    @cached_property
    def edges(self) -> Array:
        """Where pieces begin and end, shape (pieces + 1,)."""
        share = np.arange(self.pieces + 1) / self.pieces
        return self.low * share[::-1] + self.high * share  # mirrored exactly where the interval is

    @cached_property
    def nodes(self) -> Array:
        """The points, ascending; neighbours share the one between them. Shape (pieces · 2^level + 1,)."""
        stride = 2 ** (FINEST - self.level)
        # sin rather than cos: mirrored exactly, and exactly 0 in the middle
        unit = np.sin(np.pi * np.arange(-(2**FINEST), 2**FINEST + 1, 2) / 2 ** (FINEST + 1))[::stride]
        low, high = self.edges[:-1, None], self.edges[1:, None]
        inside = (low + high) / 2 + (high - low) / 2 * unit[None, 1:-1]
        return np.append(np.concatenate([low, inside], 1).ravel(), self.high)

    def interpolation(self, at: Array) -> Array:
        """Return the matrix that takes values at `nodes` to the polynomials' values at `at`.

        The barycentric formula of the second kind (Berrut & Trefethen, SIAM Review 2004, eq. 4.2), which
        is stable and gives a value at a node back as it is. Shape (len(at), len(nodes)).
        """
        count = self.points
        weights = (-1.0) ** np.arange(count)
        weights[[0, -1]] /= 2
        piece = np.clip(np.searchsorted(self.edges, at, side="right") - 1, 0, self.pieces - 1)
        first = piece * (count - 1)
        apart = at[:, None] - self.nodes[first[:, None] + np.arange(count)]
        hit = apart == 0
        shares = weights / np.where(hit, 1, apart)
        shares = np.where(hit.any(1, keepdims=True), hit, shares)
        matrix = np.zeros((len(at), len(self.nodes)))
        np.put_along_axis(matrix, first[:, None] + np.arange(count), shares / shares.sum(1, keepdims=True), 1)
        return matrix

    def coefficients(self, values: Array) -> Array:
        """Return the Chebyshev coefficients of each piece, along the first axis of `values`.

        Shape (pieces, points, …), degree by degree.
        """
        n = self.points - 1
        degree = np.arange(n + 1)
        ends = np.where(degree % n == 0, 0.5, 1.0)
        # nodes ascend, x_j = -cos(π j / n), hence T_k(x_j) = (-1)^k cos(π k j / n)
        transform = (2 / n) * (-1.0) ** degree[:, None] * np.cos(np.pi * np.outer(degree, degree) / n)
        transform *= ends[:, None] * ends
        pieces = np.stack([values[p * n : (p + 1) * n + 1] for p in range(self.pieces)])
        found: Array = np.einsum("kj,pj...->pk...", transform, pieces)
        return found

    def tail(self, values: Array) -> float:
        """Predict what the polynomial along the first axis of `values` still misses, in their units.

        Coefficients are taken to go on falling as they fell over the upper half of the degrees; what is
        left out of the sum then comes twice, once missing and once aliased (Trefethen, theorem 4.2).
        Infinite where they do not fall. For several lines of values, the worst.
        """
        sizes = np.abs(self.coefficients(values)).reshape(self.pieces, self.points, -1).max((0, 2))
        n = self.points - 1
        # An even or odd function has no coefficient of every other degree: look at pairs.
        middle, last = sizes[n // 2 - 1 : n // 2 + 1].max(), sizes[n - 1 :].max()
        if last <= 1e-15 * sizes.max():
            return 0.0
        fall = float(last / middle) ** (2 / n)
        return 2 * float(last) * fall / (1 - fall) if fall < 1 else np.inf


def on_grid(axes: Sequence[Axis], samples: Array, coordinates: Sequence[Array]) -> Array:
    """Return the polynomials' values on the grid of the coordinates, from their values at all nodes.

    Args:
        axes: one or two.
        samples: indexed like the nodes of each, as the result is like the coordinates.
    """
    matrices = [axis.interpolation(at) for axis, at in zip(axes, coordinates, strict=True)]
    values: Array = matrices[0] @ samples
    return _bounded(values if len(matrices) == 1 else values @ matrices[1].T, samples)


def at_points(axes: Sequence[Axis], samples: Array, points: Array) -> Array:
    """Return the polynomials' values at scattered points, shape (n, axes), as n values."""
    values: Array = axes[0].interpolation(points[:, 0]) @ samples
    return _bounded(
        values if len(axes) == 1 else (axes[1].interpolation(points[:, 1]) * values).sum(1), samples
    )


def _bounded(values: Array, samples: Array) -> Array:
    """Draw nothing below 0 where no sample is: most losses are positive, and a polynomial swings."""
    return np.maximum(values, 0) if samples.min() >= 0 else values

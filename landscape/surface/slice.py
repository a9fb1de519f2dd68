"""What a line or a plane through θ is, once measured."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.results import Array, Result


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Result):
    """The loss on a line or a plane through θ.

    Attributes:
        coordinates: one axis each, in steps of its direction; 0 is θ.
        losses: L at the grid of them: `losses[i]`, or `losses[i, j]` at (x_i, y_j). A point where the
            loss is not finite stays what it is.
        center: L(θ).
        directions: provenance of each direction, its Euclidean norm among it.
        cosine: between the two directions of a plane; None on a line.
        evaluations: how many points were evaluated.
    """

    coordinates: tuple[Array, ...]
    losses: Array
    center: float
    directions: list[dict[str, Any]]
    cosine: float | None
    evaluations: int

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest finite loss; NaN where there is none."""
        finite = self.losses[np.isfinite(self.losses)]
        return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)

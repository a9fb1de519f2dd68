"""Loss along one or two directions."""

import time
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from landscape import progress
from landscape.directions import Direction, Normalization, cosine, random_direction
from landscape.errors import InputError
from landscape.objective import Objective
from landscape.results import Array, surroundings
from landscape.surface.slice import Slice


def line(
    objective: Objective,
    *,
    radius: float = 1.0,
    grid: int = 51,
    seed: int = 0,
    normalization: Normalization = "filter",
    directions: Sequence[Direction] | None = None,
) -> Slice:
    """Evaluate L(θ + x d) at `grid` even steps of x from -radius to radius.

    Args:
        directions: (d,); without it, a random direction of `seed` and `normalization`.
        radius: in units of d. For a filter-normalized direction, 1 moves every filter by its own norm.

    Raises:
        InputError: a grid of fewer than two points, a radius that is not positive and finite, or not one
            direction.
    """
    return _slice(objective, directions or _random(objective, 1, seed, normalization), 1, radius, grid)


def plane(
    objective: Objective,
    *,
    radius: float = 1.0,
    grid: int = 25,
    seed: int = 0,
    normalization: Normalization = "filter",
    directions: Sequence[Direction] | None = None,
) -> Slice:
    """Evaluate L(θ + x d1 + y d2) on a `grid` × `grid` square of half-width `radius`.

    Args:
        directions: (d1, d2); without them, two random ones of `seed` and `normalization`. They are not
            made orthogonal, which would undo their normalization; their cosine is in the result.
        radius: in units of d1 and d2.

    Raises:
        InputError: as `line`, or not two directions.
    """
    return _slice(objective, directions or _random(objective, 2, seed, normalization), 2, radius, grid)


def _random(objective: Objective, count: int, seed: int, normalization: Normalization) -> list[Direction]:
    return [random_direction(objective.params, seed, normalization, index=i) for i in range(count)]


def _slice(
    objective: Objective, directions: Sequence[Direction], dimension: int, radius: float, grid: int
) -> Slice:
    if len(directions) != dimension:
        raise InputError(f"expected {dimension} direction(s), found {len(directions)}")
    if grid < 2:
        raise InputError(f"a grid of {grid} points an axis spans nothing; use 2 or more")
    if not 0 < radius < np.inf:
        raise InputError(f"radius is {radius:g}; it must be positive and finite")
    started = time.perf_counter()
    axis = _even_steps(radius, grid)
    coordinates = (axis,) * dimension
    losses = np.empty((grid,) * dimension)
    center = objective.value()
    with progress.bar("surface", losses.size) as advance:
        for index in np.ndindex(losses.shape):
            steps = [float(axis[i]) for i in index]
            losses[index] = (
                objective.value(_moved(objective.theta, steps, directions)) if any(steps) else center
            )
            advance()
    seconds = time.perf_counter() - started
    return Slice(
        coordinates=coordinates,
        losses=losses,
        center=center,
        directions=[d.provenance() for d in directions],
        cosine=cosine(*directions) if dimension == 2 else None,
        evaluations=losses.size,
        settings={"radius": radius, "grid": grid, "theta_norm": float(objective.theta.double().norm())},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=seconds,
    )


def _even_steps(radius: float, grid: int) -> Array:
    """Return `grid` even steps from -radius to radius: mirrored exactly, and exactly 0 in the middle."""
    half = np.arange(grid, dtype=np.float64) - (grid - 1) / 2
    return half * (radius / float(half[-1]))


def _moved(theta: Tensor, steps: Sequence[float], directions: Sequence[Direction]) -> Tensor:
    for step, direction in zip(steps, directions, strict=True):
        theta = theta + step * direction.vector
    return theta

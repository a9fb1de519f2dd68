"""Which line or plane to look at: directions, how far along them, and what lies on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.eigenpairs import top_eigenpairs
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime.ranks import ranks
from landscape.storage.results import Array
from landscape.surface.directions import (
    Direction,
    Normalization,
    coordinates,
    difference,
    perpendicular,
    principal,
    random_direction,
)

Span = tuple[float, float]
MARGIN = 0.25  # of what must be on the slice, added at each side


@dataclass(frozen=True, eq=False)
class Frame:
    """A line or a plane through θ.

    Attributes:
        directions: one or two.
        spans: from where to where along each; None where the radius decides.
        marks: points of interest and where they are.
        trajectory: the projected way of a training, shape (epochs, directions).
    """

    directions: Sequence[Direction]
    spans: Sequence[Span] | None = None
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    trajectory: Array | None = None


def random_frame(
    objective: Objective,
    dimension: int,
    seed: int = 0,
    normalization: Normalization = "filter",
    biases: bool = False,
) -> Frame:
    """Look along random directions; equal seeds of equal models draw the same, before normalization."""
    return Frame(
        [random_direction(objective.params, seed, normalization, i, biases) for i in range(dimension)]
    )


def eigen_frame(objective: Objective, dimension: int, ends: bool = False, seed: int = 0) -> Frame:
    """Look along the Hessian's top eigenvectors or, with `ends`, along the top and the bottom one.

    They have unit norm, so a radius is ‖δ‖.

    Args:
        objective: L, at θ.
        dimension: 1 or 2.
        ends: the top and the bottom eigenvector of a plane, in place of the two top ones.
        seed: of the vector that Lanczos starts from.

    Returns:
        The frame, without marks; each direction tells its eigenvalue.

    Raises:
        InputError: an eigenpair has not converged.
    """
    # shared, since ranks that each choose a way of products would find vectors that differ by rounding
    shared = objective.distribute(ranks())
    found = top_eigenpairs(shared, 1 if ends else dimension, smallest=int(ends), seed=seed)
    top = zip(found.eigenvalues.tolist(), found.eigenvectors, found.converged, strict=True)
    low = zip(
        found.smallest_eigenvalues.tolist(),
        found.smallest_eigenvectors,
        found.smallest_converged,
        strict=True,
    )
    pairs = [*top, *low][-dimension:]
    if not all(converged for *_, converged in pairs):
        raise InputError(
            f"an eigenvector has not converged after {found.products} products; its direction means nothing"
        )
    return Frame(
        [
            Direction(
                torch.from_numpy(vector).to(objective.theta), "eigenvector", details={"eigenvalue": value}
            )
            for value, vector, _ in pairs
        ]
    )


def between_frame(
    objective: Objective, others: Mapping[str, Tensor], dimension: int, name: str, seed: int = 0
) -> Frame:
    """Look along the way from θ, called `name`, to another point, or at the plane through it and two others.

    A step of 1 along the first axis goes all the way to the first of `others`. On a plane the second axis
    is perpendicular and as long: towards the second of them, or random if there is one alone.

    Args:
        objective: L, at θ.
        others: the other points by name, each of shape (numel,): one or two.
        dimension: 1 for the way, 2 for a plane.
        name: of θ, for its mark.
        seed: of the random axis.

    Returns:
        The frame, with all the points as marks: θ at the origin, the first of `others` at 1.

    Raises:
        InputError: there are too few or too many others, or they lie on one line.
    """
    if not 1 <= len(others) <= dimension:
        raise InputError(f"{1 + len(others)} checkpoints; a line takes 2 of them, a plane 2 or 3")
    theta = objective.theta
    steps = {other: difference(theta, point.to(theta)) for other, point in others.items()}
    first, *more = steps.values()
    directions = [first]
    if dimension == 2:
        second = more[0] if more else random_direction(objective.params, seed)
        directions.append(perpendicular(second, first))
    marks = {name: [0.0] * dimension}
    marks |= {other: coordinates(step.vector, directions) for other, step in steps.items()}
    return Frame(directions, _around(np.array(list(marks.values()))), marks)


def trajectory_frame(objective: Objective, points: Sequence[Tensor]) -> Frame:
    """Look at the plane in which a training moved most, with its way drawn on it.

    Args:
        objective: at the end of the training.
        points: parameters as it went, in order, each of shape (numel,).

    Returns:
        The frame of the two principal components, with the share of variance that each holds, and in
        `trajectory` the points as projected, shape (points, 2).

    Raises:
        InputError: they span no plane.
    """
    theta = objective.theta
    way = torch.stack([point.to(theta) for point in points])
    directions = principal(way)
    steps = np.array([coordinates(point - theta, directions) for point in way])
    return Frame(directions, _around(np.concatenate([steps, np.zeros((1, 2))])), trajectory=steps)


def _around(places: Array) -> list[Span]:
    """Return spans that hold all places with a margin; a square, as the axes have one scale."""
    low, high = places.min(0), places.max(0)
    half = (0.5 + MARGIN) * float((high - low).max())
    return [(float(m - half), float(m + half)) for m in (low + high) / 2]

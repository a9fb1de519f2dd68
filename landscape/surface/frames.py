"""Lines and planes through θ: their directions, their extent, and the points marked on them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.eigenpairs import top_eigenpairs
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_names, need_objective
from landscape.runtime.arguments import Dimension, Number, Seed, checks_arguments
from landscape.runtime.ranks import ranks
from landscape.storage.display import Brief
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
from landscape.surface.points import point_of

Span = tuple[Number, Number]
MARGIN = 0.25  # added on each side, relative to the extent of the points that must be on the slice


@checks_arguments
@dataclass(frozen=True, eq=False, repr=False)
class Frame(Brief):
    """A line or a plane through θ.

    Attributes:
        directions: one or two.
        spans: (from, to) along each; None if the radius decides.
        marks: points of interest, by name, with their coordinates.
        trajectory: the projected trajectory of a training run, shape (epochs, directions).
        along: what the projection leaves out, for each point of the trajectory: its own `losses`, and its
            `distances` from where it is drawn, in units of ‖θ‖.

    Raises:
        InputError: something else than directions; or a mark or a point of the trajectory that is not one
            finite number per direction.
    """

    directions: Sequence[Direction]
    spans: Sequence[Span] | None = None
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    trajectory: Array | None = None
    along: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.directions, Sequence) or not all(
            isinstance(direction, Direction) for direction in self.directions
        ):
            raise InputError('directions must be a list of Direction; of a vector v: Direction(v, "mine")')
        size = len(self.directions)
        way: Iterable[Any] = [] if self.trajectory is None else self.trajectory
        for place in (*self.marks.values(), *way):
            if np.shape(place) != (size,) or not np.isfinite(np.asarray(place, np.float64)).all():
                raise InputError(
                    f"a place on this frame is {size} finite number(s), one per direction; found {place}"
                )


def random_frame(
    objective: Objective,
    dimension: int,
    seed: int = 0,
    normalization: Normalization = "filter",
    biases: bool = False,
) -> Frame:
    """Return random directions; equal seeds draw the same for equal models, before normalization."""
    need_objective(objective)
    return Frame(
        [random_direction(objective.params, seed, normalization, i, biases) for i in range(dimension)]
    )


@checks_arguments
def eigen_frame(objective: Objective, dimension: Dimension, ends: bool = False, seed: Seed = 0) -> Frame:
    """Return the Hessian's top eigenvectors as directions or, with `ends`, the top and the smallest one.

    They have unit norm, so a radius is ‖δ‖.

    Args:
        objective: L, at θ.
        dimension: 1 or 2.
        ends: those of the largest and the smallest eigenvalue, instead of the top two; for a line, that of
            the smallest.
        seed: random seed of the vector that Lanczos starts from.

    Returns:
        The frame, without marks; each direction holds its eigenvalue.

    Raises:
        InputError: an eigenpair has not converged, or the model is sharded.
    """
    need_objective(objective)
    if objective.params.sharded:
        raise InputError("the eigenvectors of a sharded model are not kept; draw along random directions")
    # distributed, so that all ranks get the same vectors to the last bit
    found = top_eigenpairs(
        objective.distribute(ranks()), 1 if ends else dimension, smallest=int(ends), seed=seed
    )
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
            f"an eigenvector has not converged after {found.products} products, so it gives no direction"
        )
    return Frame(
        [
            Direction(
                torch.from_numpy(vector).to(objective.theta), "eigenvector", details={"eigenvalue": value}
            )
            for value, vector, _ in pairs
        ]
    )


@checks_arguments
def between_frame(
    objective: Objective,
    others: Mapping[str, Tensor | Objective],
    dimension: Dimension,
    name: str,
    seed: Seed = 0,
) -> Frame:
    """Return the line from θ, called `name`, to another point, or the plane through θ and two others.

    A step of 1 along the first axis reaches the first of `others`. On a plane the second axis is
    perpendicular to it and as long: towards the second of them, or random if there is only one.

    Args:
        objective: L, at θ.
        others: the other points by name, each of shape (numel,), or objectives there: one or two.
        dimension: 1 for the line, 2 for a plane.
        name: name of θ, for its mark.
        seed: random seed of the second axis, if it is random.

    Returns:
        The frame, with all points as marks: θ at the origin, the first of `others` at 1.

    Raises:
        InputError: too few or too many others, or not by name; one has the name of θ; they lie on one line;
            or they are of another model.
    """
    need_objective(objective)
    if not 1 <= len(others) <= dimension:
        raise InputError(f"found {1 + len(others)} checkpoint(s); a line takes 2 of them, a plane 2 or 3")
    need_names(others, "between_frame")
    if name in others:
        raise InputError(f"two checkpoints are called {name!r}; each mark needs a name of its own")
    theta = objective.theta
    steps = {other: difference(theta, point_of(objective, point)) for other, point in others.items()}
    first, *more = steps.values()
    directions = [first]
    if dimension == 2:
        second = more[0] if more else random_direction(objective.params, seed)
        directions.append(perpendicular(second, first))
    marks = {name: [0.0] * dimension}
    marks |= {other: coordinates(step.vector, directions) for other, step in steps.items()}
    return Frame(directions, _around(np.array(list(marks.values()))), marks)


def trajectory_frame(objective: Objective, points: Sequence[Tensor]) -> Frame:
    """Return the plane in which a training run moved most, with its trajectory on it.

    Args:
        objective: at the end of the run.
        points: parameters during the run, in order, each of shape (numel,).

    Returns:
        The frame of the two principal components, each with its share of the variance, and in `trajectory`
        the projected points, shape (points, 2). Each point is evaluated once, for `along`.

    Raises:
        InputError: the points do not span a plane, or are of another model.
    """
    need_objective(objective)
    theta = objective.theta
    run = torch.stack([point_of(objective, point) for point in points] or [theta])
    directions = principal(run)
    steps = np.array([coordinates(point - theta, directions) for point in run])
    basis = torch.stack([direction.vector.double() for direction in directions])
    drawn = theta.double() + torch.from_numpy(steps).to(basis) @ basis
    along = {
        "losses": [objective.value(point) for point in run],
        "distances": torch.linalg.vector_norm(run.double() - drawn, dim=1).tolist(),
    }
    spans = _around(np.concatenate([steps, np.zeros((1, 2))]))
    return Frame(directions, spans, trajectory=steps, along=along)


def _around(places: Array) -> list[Span]:
    """Return spans that hold all places with a margin; equally long ones, since both axes share a scale."""
    low, high = places.min(0), places.max(0)
    half = (0.5 + MARGIN) * float((high - low).max())
    return [(float(m - half), float(m + half)) for m in (low + high) / 2]

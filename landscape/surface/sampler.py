"""Lines and planes: as few points as the tolerance needs, with a certificate; or a plain grid."""

import time
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_objective
from landscape.runtime.arguments import Count, Positive, Seed, Whole, checks_arguments
from landscape.storage.results import Array, surroundings
from landscape.surface.certificate import fitted
from landscape.surface.chebyshev import on_grid
from landscape.surface.directions import Direction, Normalization, cosine, need_directions
from landscape.surface.frames import Frame, Span, random_frame
from landscape.surface.loss_cache import LossCache
from landscape.surface.slice import Slice
from landscape.surface.strategies import StrategyName

Radius = Positive | Literal["auto"]
SHOWN = {1: 101, 2: 51}  # points per axis of the drawn surface
MOST_POINTS = 10**7  # of a plain grid: its losses, and their steps, are held in memory
Points = Annotated[int, Whole(2, MOST_POINTS)]
Grid = Points | Sequence[Points]
PLAIN = {1: 51, 2: 25}  # points per axis of a plain grid, by default
PARALLEL = 1e-9  # two directions are parallel where 1 - |cosine| is less


@checks_arguments
def line(
    objective: Objective,
    *,
    radius: Radius = 1.0,
    tol: Positive = 1e-3,
    grid: Points | None = None,
    split: Count = 1,
    seed: Seed = 0,
    normalization: Normalization = "filter",
    biases: bool = False,
    directions: Sequence[Direction] | None = None,
    spans: Sequence[Span] | None = None,
    file: Path | None = None,
    strategy: StrategyName | None = None,
    tune: bool = False,
) -> Slice:
    """Evaluate L(θ + x d) for x from -radius to radius.

    Args:
        objective: L, at θ.
        radius: in units of d: for a filter-normalized direction, 1 moves every filter by its own norm.
            `auto` is the radius at which L has doubled, see `doubling_radius`.
        tol: the largest error of the curve, relative to its range. Chebyshev points are refined (5, 9, 17,
            33) until it holds at random points; the certificate says whether it does.
        grid: number of evenly spaced points, instead of a tolerance; then there is no certificate.
        split: number of pieces of the line, each with its own points, where 33 are too few.
        seed, normalization, biases: how the random direction is drawn, see `random_direction`.
        directions: (d,), instead of a random one.
        spans: ((from, to),) instead of the radius.
        file: where finished points are stored; an interrupted call goes on from there.
        strategy: how points are evaluated: `sequential`, `threads` (one in each) or `vmap` (many at once); by
            default what the rule of `landscape.surface.strategies.by_rule` chooses for the device.
        tune: measure the strategies instead, and take the fastest; the last digits may then differ from run
            to run.

    Returns:
        The slice, its `losses` of shape (n,) and in units of L.

    Raises:
        InputError: fewer than two points; a radius, tolerance or span that is not positive and finite; not
            one direction; a strategy that is not available here; a file that cannot be used; or `auto` for
            a loss that is not positive, or has not doubled at a radius of 64.
    """
    frame = _frame(objective, 1, directions, spans, seed, normalization, biases)
    return evaluate_slice(
        objective,
        frame,
        radius=radius,
        tol=tol,
        grid=grid,
        split=split,
        seed=seed,
        file=file,
        strategy=strategy,
        tune=tune,
    )


@checks_arguments
def plane(
    objective: Objective,
    *,
    radius: Radius = 1.0,
    tol: Positive = 1e-3,
    grid: Grid | None = None,
    split: Count = 1,
    seed: Seed = 0,
    normalization: Normalization = "filter",
    biases: bool = False,
    directions: Sequence[Direction] | None = None,
    spans: Sequence[Span] | None = None,
    file: Path | None = None,
    strategy: StrategyName | None = None,
    tune: bool = False,
) -> Slice:
    """Evaluate L(θ + x d1 + y d2) on the square from -radius to radius.

    Args:
        objective: L, at θ.
        radius, tol, split: as for `line`; each axis has its own number of points.
        grid: N for an even grid of N × N points, or (N, M), instead of a tolerance.
        seed, normalization, biases: how the random directions are drawn, see `random_direction`.
        directions: (d1, d2); by default two random ones. They are not made orthogonal, which would undo
            their normalization; the result has their cosine.
        spans: ((from, to), (from, to)) instead of the radius.
        file, strategy, tune: as for `line`.

    Returns:
        The slice, its `losses` of shape (n, m), indexed [x, y], and in units of L.

    Raises:
        InputError: as `line`, or not two directions, or parallel ones.
    """
    frame = _frame(objective, 2, directions, spans, seed, normalization, biases)
    return evaluate_slice(
        objective,
        frame,
        radius=radius,
        tol=tol,
        grid=grid,
        split=split,
        seed=seed,
        file=file,
        strategy=strategy,
        tune=tune,
    )


def _frame(
    objective: Objective,
    dimension: int,
    directions: Sequence[Direction] | None,
    spans: Sequence[Span] | None,
    seed: int,
    normalization: Normalization,
    biases: bool,
) -> Frame:
    if directions is None:
        directions = random_frame(objective, dimension, seed, normalization, biases).directions
    frame = Frame(directions, spans)
    if len(frame.directions) != dimension:
        raise InputError(f"expected {dimension} direction(s), found {len(frame.directions)}")
    return frame


def doubling_radius(points: LossCache) -> float:
    """Return the radius, to two digits, at which L first reaches 2 L(θ) along ± one of the directions.

    The radius is doubled or halved from 1/64 on, then bisected. A bump that rises and falls between two of
    these radii is not seen.

    Raises:
        InputError: L(θ) is not positive, or has not doubled at a radius of 64.
    """
    ends = np.concatenate([np.eye(len(points.directions)), -np.eye(len(points.directions))])

    def doubled(radius: float) -> bool:
        losses = points.at(radius * ends, "radius")
        return bool(np.isnan(losses).any() or losses.max() >= 2 * points.center)

    if not points.center > 0:
        raise InputError(f"the loss is {points.center:g}, which cannot double; give a radius")
    high = 1 / 64
    while not doubled(high):
        high *= 2
        if high > 64:
            raise InputError("the loss has not doubled at a radius of 64; give a radius")
    while doubled(high / 2):  # ends at 0, where L is L(θ)
        high /= 2
    low = high / 2
    while high / low > 1.05:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if doubled(middle) else (middle, high)
    return float(f"{high:.2g}")


@checks_arguments
def evaluate_slice(
    objective: Objective,
    frame: Frame,
    *,
    radius: Radius = 1.0,
    tol: Positive = 1e-3,
    grid: Grid | None = None,
    split: Count = 1,
    seed: Seed = 0,
    file: Path | None = None,
    strategy: StrategyName | None = None,
    tune: bool = False,
) -> Slice:
    """Evaluate L on the line or plane of a frame, as `line` and `plane` do along any directions.

    Args:
        objective: L, at θ.
        frame: the directions, with the marks and the trajectory to draw there. Its spans, if it has any,
            replace the radius.
        radius, tol, grid, split, file, strategy, tune: as for `line` and `plane`.
        seed: random seed of the points at which the surface is checked.

    Returns:
        The slice, with the frame's marks and their losses, and its trajectory.

    Raises:
        InputError: as `line` and `plane`.
    """
    need_objective(objective)
    directions, dimension = frame.directions, len(frame.directions)
    if dimension not in SHOWN:
        raise InputError(f"a slice has one direction or two, found {dimension}")
    need_directions(directions, objective.theta)
    angle = cosine(*directions) if dimension == 2 else None
    if angle is not None and 1 - abs(angle) < PARALLEL:
        raise InputError("the two directions are parallel, so they do not span a plane")
    started = time.perf_counter()
    points = LossCache(objective, directions, file, strategy, tune)
    spans = _spans(frame, radius, points)
    fit = None if grid is not None else fitted(points, spans, tol, split, seed)
    if fit:
        coordinates = _even(spans, [SHOWN[dimension]] * dimension)
        losses = on_grid(fit.axes, fit.samples, coordinates)
        nodes, samples = tuple(axis.nodes for axis in fit.axes), fit.samples
    else:
        coordinates = nodes = _even(spans, _counts(grid or PLAIN[dimension], dimension))
        losses = samples = points.on_grid(nodes)
    at_marks = points.at(np.array(list(frame.marks.values())).reshape(-1, dimension), "marks")
    norm = float(objective.theta.double().norm())
    provenances = [direction.provenance() for direction in directions]
    return Slice(
        coordinates=coordinates,
        losses=losses,
        nodes=nodes,
        samples=samples,
        certificate=fit.certificate if fit else None,
        deviations=fit.deviations if fit else np.empty((0, 0)),
        marks=[
            {"name": name, "at": list(at), "loss": float(loss)}
            for (name, at), loss in zip(frame.marks.items(), at_marks, strict=True)
        ],
        trajectory=np.array([] if frame.trajectory is None else frame.trajectory).reshape(-1, dimension),
        center=points.center,
        directions=provenances,
        cosine=angle,
        evaluations=points.evaluations + 1,  # the centre
        settings={
            "spans": [list(span) for span in spans],
            "radius": radius,
            "relative_radius": [
                max(map(abs, span)) * d["norm"] / norm if norm else None
                for span, d in zip(spans, provenances, strict=True)
            ],
            "theta_norm": norm,
            "tol": None if grid is not None else tol,
            "grid": [len(axis) for axis in nodes],
            "split": split,
            "seed": seed,
            "strategy": points.strategy,
            "reused": points.reused,
            "compared": points.compared,
            "fingerprint": points.fingerprint,
            **({"trajectory": frame.along} if frame.along else {}),
        },
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )


def _spans(frame: Frame, radius: Radius, points: LossCache) -> Sequence[Span]:
    """Return the ends of each axis: the frame's own, or those that the radius gives."""
    spans, dimension = frame.spans, len(frame.directions)
    if spans is None:
        reach = doubling_radius(points) if radius == "auto" else radius
        spans = [(-reach, reach)] * dimension
    if len(spans) != dimension or not all(-np.inf < low < high < np.inf for low, high in spans):
        raise InputError(
            f"the axes go {', '.join(f'from {low:g} to {high:g}' for low, high in spans)}; the radius must "
            f"be positive and finite, and there must be {dimension} axes, each from a lower to a higher value"
        )
    return spans


def _even(spans: Sequence[Span], counts: Sequence[int]) -> tuple[Array, ...]:
    """Return even steps over each span; those of a symmetric span mirror each other, with 0 in the middle."""
    shares = [np.arange(count) / (count - 1) for count in counts]
    return tuple(low * share[::-1] + high * share for (low, high), share in zip(spans, shares, strict=True))


def _counts(grid: Grid, dimension: int) -> list[int]:
    counts = [grid] * dimension if isinstance(grid, int) else list(grid)
    said = f"a grid of {' × '.join(map(str, counts))} points"
    if len(counts) != dimension or min(counts) < 2:
        raise InputError(f"{said} does not span {dimension} dimension(s)")
    if prod(counts) > MOST_POINTS:
        raise InputError(f"{said} has more than {MOST_POINTS:,}; choose fewer")
    return counts

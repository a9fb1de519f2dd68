"""Paths from one model to several others."""

from collections.abc import Callable, Mapping
from pathlib import Path

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_names
from landscape.runtime.arguments import Count, Positive, Seed, checks_arguments
from landscape.surface.paths import PathProfile, barrier, bezier, endpoint
from landscape.surface.sampler import Points


@checks_arguments
def barriers(
    objectives: Mapping[str, Objective],
    *,
    curved: bool = False,
    training: Callable[[int], Objective] | None = None,
    steps: Count = 1000,
    seed: Seed = 0,
    tol: Positive = 1e-3,
    grid: Points | None = None,
    metrics: Mapping[str, Objective] | None = None,
    folder: Path | None = None,
) -> dict[str, list[PathProfile]]:
    """Measure the barrier between the first model and each of the others.

    Args:
        objectives: by name of the model. L is that of the first; of the others, only θ is used.
        curved: train a Bézier curve to each of the others too.
        training, steps, seed: how the curve is trained, see `bezier`.
        tol, grid: how the straight line is measured, see `barrier`.
        metrics: other objectives of the first model, evaluated at five points of each path.
        folder: where each path is saved once it is there, as FIRST-OTHER.linear.npz and
            FIRST-OTHER.bezier.npz. Finished points of a line are kept there too; an interrupted call goes on.

    Returns:
        By name of the other model, the straight line, and the curve if it was asked for. Losses are in
        units of L.

    Raises:
        InputError: fewer than two models, or not by name, or as `barrier` and `bezier`.
    """
    need_names(objectives, "barriers")
    if len(objectives) < 2:
        raise InputError("a path leads from one model to another; at least two are needed")
    (start, first), *others = objectives.items()
    for _, other in others:
        endpoint(first, other)  # to be refused before any is measured
    found: dict[str, list[PathProfile]] = {}
    for name, other in others:
        stem = f"{start}-{name}"
        points = folder / f"{stem}.points.jsonl" if folder else None
        found[name] = [barrier(first, other, tol=tol, grid=grid, file=points, metrics=metrics)]
        if curved:
            curve = bezier(first, other, training=training, steps=steps, seed=seed, metrics=metrics)
            found[name].append(curve)
        if folder:
            for path in found[name]:
                path.save(folder / f"{stem}.{path.kind}.npz")
    return found

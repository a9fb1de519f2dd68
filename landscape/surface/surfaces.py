"""Surfaces of several models on one scale: along the same kind of directions, of one or several seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.identity import need_one_loss
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_names, need_objective
from landscape.runtime import progress
from landscape.runtime.arguments import Count, Dimension, Positive, Seed, checks_arguments
from landscape.runtime.devices import need_room
from landscape.storage.display import Turned
from landscape.storage.results import Result
from landscape.surface.certificate import paired_error
from landscape.surface.directions import Normalization
from landscape.surface.frames import Frame, between_frame, eigen_frame, random_frame, trajectory_frame
from landscape.surface.geometry import Quadratic, convex_share, doubling_widths, quadratic_model
from landscape.surface.loss_cache import LossCache
from landscape.surface.points import check_parameters, own_end
from landscape.surface.sampler import PLAIN, Grid, Radius, doubling_radius, evaluate_slice
from landscape.surface.slice import Slice
from landscape.surface.topology import certified_basins

Directions = Literal["random", "eigen", "eigen-ends", "between", "trajectory"]


@dataclass(frozen=True)
class Difference:
    """L(θ) of one model minus that of the first.

    Attributes:
        of, less: the labels of the two.
        center: L(θ) of `of` minus L(θ) of `less`.
        standard_error: standard error of the difference over the units (users) that both share; None where it
            is not known.
    """

    of: str
    less: str
    center: float
    standard_error: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Surfaces(Turned):
    """Slices of several models, on one scale.

    A label is the model's name, or NAME-seedN where there are several seeds.

    Attributes:
        slices: by label.
        models, seeds: by label, the model's name and the seed of its directions.
        quadratics: by label, the quadratic models; empty if none were asked for.
        metrics: by metric and label, its slices along the same directions.
    """

    slices: Mapping[str, Slice]
    models: Mapping[str, str]
    seeds: Mapping[str, int]
    quadratics: Mapping[str, Quadratic]
    metrics: Mapping[str, Mapping[str, Slice]]

    def by_model(self, slices: Mapping[str, Slice]) -> dict[str, list[Slice]]:
        """Return slices by the model's name, one for each seed.

        Args:
            slices: by label: `slices`, or those of a metric.
        """
        found: dict[str, list[Slice]] = {}
        for label, result in slices.items():
            found.setdefault(self.models[label], []).append(result)
        return found

    @property
    def differences(self) -> list[Difference]:
        """L(θ) of each slice but the first, minus that of the first."""
        (name, first), *others = self.slices.items()
        return [
            Difference(other, name, result.center - first.center, paired_error(result, first))
            for other, result in others
        ]


@checks_arguments
def surfaces(
    objectives: Mapping[str, Objective],
    *,
    dim: Dimension = 2,
    directions: Directions = "random",
    radius: Radius = 1.0,
    tol: Positive = 1e-3,
    grid: Grid | None = None,
    split: Count = 1,
    seed: Seed = 0,
    seeds: Count = 1,
    normalization: Normalization = "filter",
    biases: bool = False,
    trajectories: Mapping[str, Sequence[Tensor]] | None = None,
    metrics: Mapping[str, Mapping[str, Objective]] | None = None,
    quadratic: bool = False,
    folder: Path | None = None,
) -> Surfaces:
    """Evaluate the loss of several models on lines or planes that can be compared.

    Args:
        objectives: by name of the model; of the same data and loss.
        dim: 1 for lines, 2 for planes.
        directions: `random`; the top Hessian eigenvectors (`eigen`), or the top and the bottom one
            (`eigen-ends`); from the first model to one or two others (`between`, one slice in all); or the
            plane of a training's trajectory. Between models, what takes no part (BatchNorm's statistics) is
            the first one's; a mark where another's own loss differs holds it as `own_end`, with a warning.
        radius, tol, grid, split: as for `line` and `plane`. `auto` is one radius for all: that of the model
            whose loss doubles last.
        seed, seeds: the random directions of `seeds` seeds, from `seed` on.
        normalization, biases: how random directions are drawn, see `random_direction`.
        trajectories: by model, the parameters as its training went, each of shape (numel,).
        metrics: by metric, and then by model, objectives of the same parameters, evaluated along the same
            directions on a plain grid; at the same weights.
        quadratic: compute the quadratic model of each slice too.
        folder: where each result is saved once it is there, as LABEL.surface.npz, LABEL.quadratic.npz and
            LABEL.METRIC.surface.npz. Finished points are kept there too; an interrupted call goes on.

    Returns:
        The slices, with losses in units of L.

    Raises:
        InputError: no models, or not by name; models of different data or loss; several seeds of directions
            that are not random; a trajectory in one dimension; a model that `trajectories` or a metric
            lacks; or as `evaluate_slice` and the frames.
    """
    need_names(objectives, "surfaces")
    for objective in objectives.values():
        need_objective(objective)
        need_room(dim * len(objectives) * seeds, objective.theta, f"seeds = {seeds:,}")
    need_one_loss({name: objective.provenance for name, objective in objectives.items()})
    check_directions(directions, dim, seeds)
    if metrics:
        need_names(metrics, "metrics")
    drawn: dict[str, Any] = {f"metrics[{metric!r}]": of for metric, of in (metrics or {}).items()}
    drawn |= {"trajectories": trajectories} if directions == "trajectory" else {}
    framed = list(objectives)[: 1 if directions == "between" else None]
    _need_each(framed, drawn)
    for metric, of in (metrics or {}).items():
        for name in framed:
            _need_same_weights(objectives[name], of[name], f"metrics[{metric!r}][{name!r}]")
    look = partial(_views, objectives, directions, dim, normalization, biases, trajectories or {})
    views = [view for each in range(seed, seed + seeds) for view in look(each, seeds > 1)]
    if radius == "auto":
        radius = max(
            doubling_radius(LossCache(objectives[view.model], view.frame.directions, view.points(folder)))
            for view in views
        )
    slices, quadratics = {}, {}
    others: dict[str, dict[str, Slice]] = {metric: {} for metric in metrics or {}}
    for number, view in enumerate(views, start=1):
        label, objective = view.label, objectives[view.model]
        with progress.stage(label, number, len(views)):
            slices[label] = evaluate_slice(
                objective,
                view.frame,
                radius=radius,
                tol=tol,
                grid=grid,
                split=split,
                seed=view.seed,
                file=view.points(folder),
            )
        if directions == "between":
            slices[label] = _with_own_ends(slices[label], objectives)
        view.save(slices[label], folder, "surface")
        if quadratic:
            quadratics[label] = quadratic_model(objective, view.frame.directions)
            view.save(quadratics[label], folder, "quadratic")
        for metric, of in (metrics or {}).items():
            others[metric][label] = evaluate_slice(
                of[view.model],
                view.frame,
                radius=radius,
                grid=grid or PLAIN[dim],
                file=view.points(folder, f"{metric}."),
            )
            view.save(others[metric][label], folder, f"{metric}.surface")
    return Surfaces(
        slices, {v.label: v.model for v in views}, {v.label: v.seed for v in views}, quadratics, others
    )


def check_directions(directions: Directions, dim: int, seeds: int) -> None:
    """Make sure that directions, dimension and number of seeds go together.

    Raises:
        InputError: they do not.
    """
    if seeds > 1 and directions != "random":
        raise InputError(f"several seeds need random directions; {directions} does not depend on the seed")
    if dim == 1 and directions == "trajectory":
        raise InputError("a trajectory is drawn on a plane, not on a line")


def _need_each(names: Iterable[str], given: Mapping[str, Any]) -> None:
    """Make sure that each model has what is drawn of it, by the name of what that is."""
    for what, of in given.items():
        for name in names:
            if not isinstance(of, Mapping) or name not in of:
                raise InputError(f"{what} must hold an entry for each model, and there is none of {name!r}")


def _need_same_weights(objective: Objective, metric: Objective, called: str) -> None:
    """Make sure that a metric is drawn around the weights around which the loss is.

    Raises:
        InputError: it is of another model, or of other weights.
    """
    need_objective(metric)
    check_parameters(objective, metric)
    if not torch.equal(metric.theta.to(objective.theta), objective.theta):
        raise InputError(f"{called} is at other weights than the model; make both of one checkpoint")


def _with_own_ends(found: Slice, objectives: Mapping[str, Objective]) -> Slice:
    """Return a slice whose marks say where the loss of a model itself is not what is drawn there."""
    marks = [{**mark, **own_end(objectives[mark["name"]], mark["loss"])} for mark in found.marks]
    return replace(found, marks=marks)


def facts(result: Slice) -> dict[str, Any]:
    """Return what a slice says in numbers and words: its fields without the arrays, and its shape.

    Among them are `doubling_width`, see `doubling_widths`, `convex_share`, and `basins`: those that the
    certified error could not have made, or None on a plain grid, which cannot tell.
    """
    widths = doubling_widths(result)
    found = certified_basins(result)
    settings = ("spans", "relative_radius", "reused", "strategy", "grid")
    return {
        "center": result.center,
        "min": result.range[0],
        "max": result.range[1],
        **{key: result.settings[key] for key in settings if key in result.settings},
        "evaluations": result.evaluations,
        "seconds": result.seconds,
        "certificate": result.certificate,
        "statement": result.statement,
        "doubling_width": {"min": float(widths.min()), "median": float(np.median(widths))},
        "convex_share": convex_share(result),
        "basins": found and [{"at": b.at, "loss": b.birth, "persistence": b.persistence} for b in found],
        "marks": result.marks,
    }


@dataclass(frozen=True, eq=False)
class _View:
    """What is looked at: the frame of one model and one seed."""

    label: str
    model: str
    seed: int
    frame: Frame

    def points(self, folder: Path | None, metric: str = "") -> Path | None:
        """Return the file of finished points."""
        return folder / f"{self.label}.{metric}points.jsonl" if folder else None

    def save(self, result: Result, folder: Path | None, part: str) -> None:
        if folder:
            result.save(folder / f"{self.label}.{part}.npz")


def _views(
    objectives: Mapping[str, Objective],
    directions: Directions,
    dim: int,
    normalization: Normalization,
    biases: bool,
    trajectories: Mapping[str, Sequence[Tensor]],
    seed: int,
    several: bool,
) -> Iterator[_View]:
    """Yield the view of each model; between models there is one, the first one's."""
    if directions == "between":
        (name, objective), *others = objectives.items()
        frame = between_frame(objective, dict(others), dim, name, seed)
        yield _View(name, name, seed, frame)
        return
    for name, objective in objectives.items():
        if directions == "random":
            frame = random_frame(objective, dim, seed, normalization, biases)
        elif directions == "trajectory":
            frame = trajectory_frame(objective, trajectories[name])
        else:
            frame = eigen_frame(objective, dim, directions == "eigen-ends", seed)
        yield _View(f"{name}-seed{seed}" if several else name, name, seed, frame)

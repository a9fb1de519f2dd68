"""Paths between two minima: the straight line, and a Bézier curve whose bend is trained."""

import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_names
from landscape.runtime import progress
from landscape.runtime.arguments import Count, Positive, Seed, checks_arguments
from landscape.statistics import ratio_error
from landscape.storage.display import Drawn
from landscape.storage.ranges import NOT_NEGATIVE, Range
from landscape.storage.results import Array, Result, agree, need_numbers, surroundings
from landscape.surface.certificate import unit_parts
from landscape.surface.directions import difference
from landscape.surface.points import check_parameters, own_end, point_of
from landscape.surface.sampler import Points, line
from landscape.surface.slice import Certificate

STATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where other metrics are evaluated."""
RATE = 0.02  # of the bend, in root mean squares of θ_b - θ_a
NUDGE = 1e-3  # of its start, in the same unit
PER_DRAW = 16  # steps at least: to draw a small loss costs ten gradients of it
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PathProfile(Drawn, Result):
    """The loss on a path from a point θ_a to another, θ_b.

    Attributes:
        kind: `linear` or `bezier`.
        positions: t, ascending from 0 at θ_a to 1 at θ_b. Shape (n,).
        losses: L there, shape (n,). On a linear path with a certificate, the polynomial through what was
            evaluated. A point where the loss is not finite stays what it is.
        ends: L(θ_a) and L(θ_b).
        height: height of the barrier, the largest L(t) - ((1 - t) L(θ_a) + t L(θ_b)) over `positions`, in
            units of the loss. The ends count, so it is never below 0. It is the barrier of Entezari et al.
            2022, arXiv 2110.06296, definition 2.1. (Frankle et al. 2020, arXiv 1912.05671, measure above the
            mean of the ends, which one of them exceeds by itself.) Not finite where L is not. Not the barrier
            between the two models where `own_end` is not None: the path then ends at another loss.
        at: t where it is reached.
        standard_error: standard error of the height over the units (users), with `at` held fixed.
            None for a single unit, or at an end, where the height is 0 whoever was drawn.
        distance: ‖θ_b - θ_a‖.
        length: length of the path, in the same unit.
        bend: the control point of a Bézier curve, shape (numel,); empty for a line.
        certificate: how far `losses` may be off; None on a plain grid or a curve, which claim nothing between
            their points.
        metrics: by name, what else was measured on the way: `positions`, `values` and `standard_errors`
            (NaN for a single unit), a list each.
    """

    kind: str
    positions: Annotated[Array, Range(0, 1, finite=True)]
    losses: Array
    ends: list[float]
    height: float
    at: Annotated[float, Range(0, 1)]
    standard_error: Annotated[float | None, NOT_NEGATIVE]
    distance: Annotated[float, NOT_NEGATIVE]
    length: Annotated[float, NOT_NEGATIVE]
    bend: Array
    certificate: Certificate | None
    metrics: Mapping[str, Mapping[str, list[float]]]

    @property
    def doubt(self) -> str:
        """What stands after the height: nothing, or that a tolerance was not reached."""
        known = self.certificate is None or self.certificate.reached
        return "" if known else " (tolerance not reached)"

    @property
    def own_end(self) -> float | None:
        """The other model's own loss, where the path ends at another one; else None."""
        return self.settings.get("own_end")

    def check(self) -> None:
        agree(self.positions.ndim == 1, self.positions.shape == self.losses.shape, len(self.ends) == 2)
        agree(self.kind in ("linear", "bezier"))
        need_numbers(self.settings, known=["own_end"])
        for found in self.metrics.values():
            lengths = {len(found[name]) for name in ("positions", "values", "standard_errors")}
            agree(len(lengths) == 1)


@checks_arguments
def barrier(
    objective: Objective,
    other: Objective | Tensor,
    *,
    tol: Positive = 1e-3,
    grid: Points | None = None,
    file: pathlib.Path | None = None,
    metrics: Mapping[str, Objective] | None = None,
) -> PathProfile:
    """Evaluate L((1 - t) θ_a + t θ_b) for t from 0 to 1.

    Args:
        objective: L, at θ_a. What takes no part (excluded parameters, BatchNorm's statistics) keeps its
            values here, at θ_b too.
        other: θ_b, shape (numel,), or an objective there, of the same loss. If its own
            loss differs, because its statistics or frozen weights differ, `settings["own_end"]` is that loss,
            and a warning says so.
        tol, grid, file: as for `line`: the tolerance, a plain grid instead, finished points.
        metrics: other objectives of the same parameters, evaluated at t = 0, 1/4, 1/2, 3/4 and 1.

    Returns:
        The path, of kind `linear`; its losses, and the height of its barrier, in units of L.

    Raises:
        InputError: the two differ in the names or shapes of their parameters, in data, loss or batches, or
            are one point; or as `line`.
    """
    end = endpoint(objective, other)
    _check_metrics(objective, metrics)
    started = time.perf_counter()
    way = [difference(objective.theta, end)]
    found = line(objective, directions=way, spans=[(0.0, 1.0)], tol=tol, grid=grid, file=file)
    # θ_a + (θ_b - θ_a) may differ from θ_b in the last bits
    losses = np.append(found.losses[:-1], objective.value(end))
    settings = {key: found.settings[key] for key in ("tol", "grid", "strategy", "reused", "fingerprint")}
    return _path(
        objective,
        other,
        _Curve(objective.theta, end),
        found.coordinates[0],
        losses,
        metrics,
        certificate=found.certificate,
        settings=settings | {"evaluations": found.evaluations + 1},
        started=started,
    )


@checks_arguments
def bezier(
    objective: Objective,
    other: Objective | Tensor,
    *,
    training: Callable[[int], Objective] | None = None,
    steps: Count = 1000,
    lr: Positive | None = None,
    seed: Seed = 0,
    points: Points = 33,
    metrics: Mapping[str, Objective] | None = None,
) -> PathProfile:
    """Train the bend c of φ(t) = (1 - t)² θ_a + 2t(1 - t) c + t² θ_b, and evaluate L on the curve.

    c minimizes E_t L(φ(t)), t uniform (Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast
    Ensembling of DNNs", NeurIPS 2018, eq. 2 and section 3), by Adam with a learning rate that falls linearly
    to 0. Each step takes the gradient at one t, out of a golden-ratio sequence, which covers the curve more
    evenly than random draws. It starts near the middle of the line, not on it: between mirrored minima, no
    gradient leads away.

    A curve that is trained on the sample by which it is judged proves little, because it memorizes that
    sample. Between SASRec and its copy with permuted dimensions (Beauty, frozen loss of 2,048 users), 100
    steps on these left no barrier for them, and one of 0.65 for other users, who have 0.45 on the line.

    Args:
        objective, other: as for `barrier`.
        training: gives the objective of each pass (0, 1, …): the same loss, drawn anew. A step takes one
            batch of it; fewer than 16 batches are taken again, in whole passes, for at least 16 steps.
            Without `training`, every step takes all of `objective`.
        steps: number of Adam steps.
        lr: initial learning rate (default: a fiftieth of the root mean square of θ_b - θ_a).
        seed: random seed of the sequence and the start.
        points: number of evenly spaced points at which L is then evaluated.
        metrics: as for `barrier`.

    Returns:
        The path, of kind `bezier`, with c in `bend`; its losses and barrier as of `barrier`.

    Raises:
        InputError: as `barrier`; fewer than one step or two points, a rate that is not positive and finite,
            or the training diverged.
    """
    end = endpoint(objective, other)
    _check_metrics(objective, metrics)
    started = time.perf_counter()
    straight = _Curve(objective.theta, end)
    lr = RATE * straight.spread if lr is None else lr
    curve = _trained(straight, _draws(objective, training), steps, lr, seed)
    positions = np.linspace(0, 1, points)
    losses = []
    with progress.bar("Bézier curve", points) as advance:
        for t in positions.tolist():
            losses.append(objective.value(curve(t)))
            advance()
    return _path(
        objective,
        other,
        curve,
        positions,
        np.array(losses),
        metrics,
        certificate=None,
        settings={
            "steps": steps,
            "lr": lr,
            "seed": seed,
            "points": points,
            "drawn_anew": training is not None,
        },
        started=started,
    )


def endpoint(objective: Objective, other: Objective | Tensor) -> Tensor:
    """Return the point to which a path from an objective's leads, shape (numel,).

    Raises:
        InputError: its parameters have other names or shapes, its loss is another, or the two are one point.
    """
    end = point_of(objective, other)
    difference(objective.theta, end)
    return end


@dataclass(frozen=True, eq=False)
class _Curve:
    """φ, from a to b: straight, or with a bend."""

    a: Tensor
    b: Tensor
    bend: Tensor | None = None

    def __call__(self, t: float) -> Tensor:
        if self.bend is None:
            return (1 - t) * self.a + t * self.b
        return (1 - t) ** 2 * self.a + 2 * t * (1 - t) * self.bend + t**2 * self.b

    @property
    def distance(self) -> float:
        """‖b - a‖."""
        return float((self.b - self.a).double().norm())

    @property
    def spread(self) -> float:
        """The root mean square of b - a."""
        return self.distance / math.sqrt(self.a.numel())

    @property
    def length(self) -> float:
        """∫ ‖φ'(t)‖ dt by Gauss-Legendre quadrature, φ'(t) = 2 (1 - t) (c - a) + 2t (b - c)."""
        if self.bend is None:
            return self.distance
        u, v = (self.bend - self.a).double(), (self.b - self.bend).double()
        uu, uv, vv = float(u @ u), float(u @ v), float(v @ v)
        nodes, weights = np.polynomial.legendre.leggauss(64)
        t = (nodes + 1) / 2
        squares = (1 - t) ** 2 * uu + 2 * t * (1 - t) * uv + t**2 * vv
        return float(weights @ np.sqrt(np.maximum(squares, 0)))  # (1 / 2) · 2 ‖·‖


def _trained(straight: _Curve, draws: Iterator[Objective], steps: int, lr: float, seed: int) -> _Curve:
    a, b = straight.a, straight.b
    random = np.random.default_rng(seed)
    start = random.random()
    off = torch.from_numpy(random.standard_normal(a.numel())).to(a)
    bend = torch.nn.Parameter((a + b) / 2 + NUDGE * straight.spread * off)
    curve = _Curve(a, b, bend.detach())  # shares memory: each step moves the curve
    adam = torch.optim.Adam([bend], lr=lr)
    unit = 0.0  # of the loss: Adam's ε is no length in it
    with progress.bar("bend", steps) as advance:
        for step, drawn in enumerate(islice(draws, steps)):
            t = (start + step * GOLDEN) % 1
            value, gradient = drawn.value_and_grad(curve(t))
            if not np.isfinite(value):
                raise InputError(
                    f"the loss on the curve is {value:g} after {step} steps; use an lr below {lr:g}"
                )
            unit = unit or abs(value) or 1.0
            bend.grad = 2 * t * (1 - t) / unit * gradient
            adam.param_groups[0]["lr"] = lr * (1 - step / steps)
            adam.step()
            advance(f"loss {value:.4g}")
    return curve


def _draws(objective: Objective, training: Callable[[int], Objective] | None) -> Iterator[Objective]:
    """Yield what each step is trained on."""
    if training is None:
        yield from repeat(objective)
        return
    for number in count():
        drawn = training(number)
        check_parameters(objective, drawn)
        # Unchecked: a wrong gradient makes a bad bend, and what it is worth is measured on `objective`.
        batches = list(drawn.unchecked().per_batch())
        yield from batches * math.ceil(PER_DRAW / len(batches))


def _path(
    objective: Objective,
    other: Objective | Tensor,
    curve: _Curve,
    positions: Array,
    losses: Array,
    metrics: Mapping[str, Objective] | None,
    *,
    certificate: Certificate | None,
    settings: Mapping[str, Any],
    started: float,
) -> PathProfile:
    first, last = float(losses[0]), float(losses[-1])
    above = losses - ((1 - positions) * first + positions * last)
    highest = int(np.argmax(above))  # the first NaN, if there is one
    at = float(positions[highest])
    error = None
    if 0 < at < 1:
        start, top, end = (unit_parts(objective, curve(t))[1] for t in (0.0, at, 1.0))
        error = ratio_error(top - (1 - at) * start - at * end)
    return PathProfile(
        kind="linear" if curve.bend is None else "bezier",
        positions=positions,
        losses=losses,
        ends=[first, last],
        height=float(above[highest]),
        at=at,
        standard_error=error,
        distance=curve.distance,
        length=curve.length,
        bend=np.empty(0) if curve.bend is None else curve.bend.double().cpu().numpy(),
        certificate=certificate,
        metrics={name: _along(metric, curve, name) for name, metric in (metrics or {}).items()},
        settings={**settings, **own_end(other, last)},
        provenance=objective.provenance
        | {"other": other.provenance if isinstance(other, Objective) else {}}
        | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )


def _along(metric: Objective, curve: _Curve, name: str) -> dict[str, list[float]]:
    """Evaluate a metric on the way, with the standard error from its units."""
    values, errors = [], []
    with progress.bar(name, len(STATIONS)) as advance:
        for t in STATIONS:
            value, parts = unit_parts(metric, curve(t))
            error = ratio_error(parts)
            values.append(value)
            errors.append(np.nan if error is None else error)
            advance()
    return {"positions": list(STATIONS), "values": values, "standard_errors": errors}


def _check_metrics(objective: Objective, metrics: Mapping[str, Objective] | None) -> None:
    if metrics:
        need_names(metrics, "metrics")
        for metric in metrics.values():
            check_parameters(objective, metric)

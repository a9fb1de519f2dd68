"""The shape of a slice in numbers: its quadratic model, its width, and the share that is convex."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from landscape.curvature.operators import hessian
from landscape.curvature.solver import Counted
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_objective
from landscape.storage.results import Array, Result, agree, surroundings
from landscape.surface.chebyshev import Axis, at_points
from landscape.surface.directions import Direction, need_directions
from landscape.surface.slice import Slice

RAYS = 72  # on a plane, one every 5°
SURE = 0.2  # of L(θ): a larger error moves the doubling width, on a parabola, by more than a tenth
EVEN = 1e-6  # of a step: by how much steps of an even axis differ, by rounding
NEAREST = 1e-6  # of the slice: the first step from θ at which its loss is looked at


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Quadratic(Result):
    """L to second order on a slice: L(θ) + gᵀx + xᵀHx/2, with g = Dᵀ∇L and H = Dᵀ(∇²L)D.

    Attributes:
        center: L(θ).
        gradient: g, shape (dimensions,).
        hessian: H, the projected Hessian, shape (dimensions, dimensions), in units of its directions.
    """

    center: float
    gradient: Array
    hessian: Array

    def check(self) -> None:
        agree(self.gradient.ndim == 1, self.hessian.shape == (self.gradient.size,) * 2)

    def at(self, coordinates: Sequence[Array]) -> Array:
        """Return the model's value on the grid of the coordinates, indexed like `Slice.losses`."""
        steps = np.stack(np.meshgrid(*coordinates, indexing="ij"), -1)
        curved: Array = np.einsum("...i,ij,...j->...", steps, self.hessian, steps) / 2
        return self.center + steps @ self.gradient + curved


def quadratic_model(objective: Objective, directions: Sequence[Direction]) -> Quadratic:
    """Project gradient and Hessian onto a slice, by one Hessian-vector product per direction.

    Args:
        objective: L, at θ.
        directions: one or two directions of the slice, each of shape (numel,).

    Returns:
        The quadratic model, in units of L and in steps of the directions.

    Raises:
        InputError: a product is not finite, a direction is not of θ's shape, or zero; and as
            `landscape.hessian`.
    """
    need_objective(objective)
    need_directions(directions, objective.theta)
    started = time.perf_counter()
    center, gradient = objective.value_and_grad()
    vectors = [d.vector.double() for d in directions]
    operator = Counted(hessian(objective))
    products = [operator(d.vector).double() for d in directions]
    projected = np.array([[float(v @ p) for p in products] for v in vectors])
    return Quadratic(
        center=center,
        gradient=np.array([float(v @ gradient.double()) for v in vectors]),
        hessian=(projected + projected.T) / 2,
        settings={"directions": [d.provenance() for d in directions]},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )


def doubling_widths(slice: Slice) -> Array:
    """Return the distance from θ at which the loss first reaches 2 L(θ).

    One value for each side of a line, and for each of 72 directions on a plane, in units of the coordinates;
    inf where the loss does not double on the slice. The loss is the polynomial, and on a plain grid linear
    between the points; one that is not finite has doubled.

    NaN where the slice cannot tell: L(θ) is not positive; θ is not on the slice; the certified error is above
    a fifth of L(θ); or, on a plain grid, the loss doubles within a step of θ.
    """
    dimension = len(slice.coordinates)
    low, high = np.array([[axis[0], axis[-1]] for axis in slice.coordinates]).T
    if dimension == 1:
        units = np.array([[-1.0], [1.0]])
    else:
        angles = 2 * np.pi * np.arange(RAYS) / RAYS
        units = np.stack([np.cos(angles), np.sin(angles)], 1)
    certain = slice.error is None or slice.error <= SURE * slice.center
    if not (slice.center > 0 and certain and (low <= 0).all() and (high >= 0).all()):
        return np.full(len(units), np.nan)
    with np.errstate(divide="ignore"):
        reach = np.where(units > 0, high / units, np.where(units < 0, low / units, np.inf)).min(1)
    even = np.linspace(0, 1, 4 * max(slice.losses.shape))
    share = np.sort(np.concatenate([even, np.geomspace(NEAREST, 1, 400)]))
    steps = share[:, None] * reach  # (steps, rays)
    along = _loss_at(slice, np.clip(steps[..., None] * units, low, high))
    above = along >= 2 * slice.center
    first = above.argmax(0)
    rays = np.arange(len(units))
    before = np.maximum(first - 1, 0)
    rise = along[first, rays] - along[before, rays]
    part = np.where(rise > 0, (2 * slice.center - along[before, rays]) / np.where(rise > 0, rise, 1), 0)
    found = steps[before, rays] + part * (steps[first, rays] - steps[before, rays])
    if slice.error is None:
        cell = np.array([np.diff(axis).max() for axis in slice.coordinates])
        found[(np.abs(found[:, None] * units) < cell).all(1)] = np.nan
    return np.where(above.any(0), found, np.inf)


def _loss_at(slice: Slice, places: Array) -> Array:
    """Return the loss at scattered places of a slice, shape (…, dimensions), as an array of shape (…)."""
    if slice.error is not None:
        axes = [Axis.through(nodes, int(slice.settings["split"])) for nodes in slice.nodes]
        return at_points(axes, slice.samples, places.reshape(-1, len(axes))).reshape(places.shape[:-1])
    from scipy.interpolate import RegularGridInterpolator

    largest = np.finfo(np.float64).max
    finite = np.where(np.isfinite(slice.losses), slice.losses, largest)
    found: Array = RegularGridInterpolator(slice.coordinates, finite)(places)
    return found


def convex_share(slice: Slice) -> float:
    """Return the share of the slice, without its rim, where the drawn loss is convex.

    By second differences: no eigenvalue of its 2 × 2 Hessian is negative, by more than rounding the losses
    beside it to float32 could make it. NaN where an axis has fewer than three points, or uneven ones.
    """
    f = slice.losses
    steps = [np.diff(axis) for axis in slice.coordinates]
    if min(f.shape) < 3 or any(np.ptp(step) > EVEN * step.mean() for step in steps):
        return float("nan")
    sizes = sliding_window_view(np.where(np.isfinite(f), np.abs(f), 0), (3,) * f.ndim)
    rounded = np.finfo(np.float32).eps * sizes.reshape(*sizes.shape[: f.ndim], -1).max(-1)
    with np.errstate(invalid="ignore"):
        if f.ndim == 1:
            return float(np.mean(f[2:] - 2 * f[1:-1] + f[:-2] >= -4 * rounded))
        # in steps of the grid, where errors of 1 in f make a matrix of [[4, 1], [1, 4]] at most: norm 5
        inner = f[1:-1, 1:-1]
        xx = f[2:, 1:-1] - 2 * inner + f[:-2, 1:-1] + 5 * rounded
        yy = f[1:-1, 2:] - 2 * inner + f[1:-1, :-2] + 5 * rounded
        xy = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / 4
        return float(np.mean((xx >= 0) & (yy >= 0) & (xx * yy >= xy**2)))

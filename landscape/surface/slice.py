"""What a line or a plane through θ is, once measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from landscape.errors import InputError
from landscape.runtime.arguments import said
from landscape.runtime.rounding import at_most
from landscape.storage.display import Brief, Turned
from landscape.storage.ranges import FINITE, NOT_INFINITE, NOT_NEGATIVE, Range
from landscape.storage.results import Array, Result, agree, need_numbers
from landscape.surface.chebyshev import Axis, on_grid


@dataclass(frozen=True, repr=False)
class Certificate(Brief):
    """How far the surface that is drawn may be from the loss.

    `error`, `standard_error` and `rise_standard_error` are in units of the loss; other errors are relative
    to its range over the points of the surface.

    Attributes:
        reached: whether the tolerance was reached.
        tol: the tolerance that was asked for.
        max_error, error: the largest error at fresh random points, which the fit has not seen.
        points: number of these points.
        attempts: number of fits that these points have judged; the last one stands.
        share: with a confidence of 95%, at most this share of the slice has a larger error.
        tail: the error that the fit's coefficients predict.
        float64: the largest difference to the same loss computed in float64, at the centre and the corners;
            None where the loss is in float64 itself, or cannot be computed in it.
        standard_error: standard error of L(θ) over the units (users); None for a single unit.
        rise_standard_error: that of L - L(θ), at the corner where it is largest; None for a single unit.
        units: number of units.
    """

    reached: bool
    tol: float
    max_error: float
    error: float
    points: int
    attempts: int
    share: float
    tail: float
    float64: float | None
    standard_error: float | None
    rise_standard_error: float | None
    units: int


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Slice(Turned, Result):
    """The loss on a line or a plane through θ.

    Attributes:
        coordinates: one axis each, in steps of its direction; 0 is θ.
        losses: L at the grid of them: `losses[i]`, or `losses[i, j]` at (x_i, y_j). A point where the
            loss is not finite stays what it is.
        nodes, samples: where the loss was evaluated, and what it was there. On a plain grid these are the
            coordinates and losses; else `losses` is the polynomial through them.
        certificate: how far `losses` may be off; None on a plain grid, which claims nothing between its
            points.
        deviations: each unit's part in the error of L at the centre and at each corner, see
            `landscape.surface.certificate.checked`. Shape (1 + corners, units); empty on a plain grid.
        marks: points of interest on the slice: name, place `at`, and the loss evaluated there.
        trajectory: the way of a training, projected onto the slice, in order. Shape (epochs, dimensions).
        center: L(θ).
        directions: provenance of each direction, its Euclidean norm among it.
        cosine: cosine between the two directions of a plane; None on a line.
        evaluations: how many points were evaluated.
    """

    coordinates: Annotated[tuple[Array, ...], FINITE]
    losses: Array
    nodes: Annotated[tuple[Array, ...], FINITE]
    samples: Array
    certificate: Certificate | None
    deviations: Array
    marks: Sequence[Mapping[str, Any]]
    trajectory: Annotated[Array, FINITE]
    center: float
    directions: Annotated[Sequence[Mapping[str, Any]], NOT_INFINITE]  # NaN is the norm of one from elsewhere
    cosine: Annotated[float | None, Range(-1.01, 1.01)]
    evaluations: Annotated[int, NOT_NEGATIVE]

    def check(self) -> None:
        shape = tuple(axis.size for axis in self.coordinates)
        agree(
            1 <= len(shape) <= 2,
            all(axis.ndim == 1 and axis.size > 1 for axis in (*self.coordinates, *self.nodes)),
            all((np.diff(axis) > 0).all() for axis in (*self.coordinates, *self.nodes)),
            self.losses.shape == shape,
            self.samples.shape == tuple(axis.size for axis in self.nodes),
            self.trajectory.ndim == 2 and self.trajectory.shape[1] == len(shape),
            self.deviations.ndim == 2,
            len(self.directions) == len(shape),
            (self.cosine is None) == (len(shape) == 1),
        )
        need_numbers(self.settings, "theta_norm", known=["reused"])
        for direction in self.directions:
            agree(isinstance(direction["kind"], str))
            need_numbers(direction, "norm", known=["eigenvalue", "explained_variance"])
        for mark in self.marks:
            agree(isinstance(mark["name"], str), np.shape(mark["at"]) == (len(shape),))
            agree(all(type(place) in (int, float) for place in mark["at"]))
            need_numbers(mark, "loss", known=["own_end"])
        if self.certificate is not None:
            agree(isinstance(self.settings["split"], int))
        if "trajectory" in self.settings:
            way = self.settings["trajectory"]
            columns = np.array([way["losses"], way["distances"]])
            agree(columns.dtype.kind in "if", columns.shape == (2, len(self.trajectory)))

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest finite loss; NaN where there is none."""
        finite = self.losses[np.isfinite(self.losses)]
        return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)

    @property
    def statement(self) -> str:
        """What is known of the error, in a line."""
        if self.certificate is None:
            return f"{' × '.join(map(str, self.samples.shape))} points, no error bar"
        known, place = self.certificate, "line" if len(self.coordinates) == 1 else "plane"
        return (
            f"{'' if known.reached else 'tolerance not reached: '}error ≤ {at_most(known.max_error)} of the "
            f"loss range on at least {math.floor(100 * (1 - known.share))}% of the {place} (95% confidence)"
        )

    @property
    def error(self) -> float | None:
        """The certified error of `losses`, in their units; None where nothing was certified."""
        return None if self.certificate is None else self.certificate.error

    def to_xarray(self) -> Any:
        """Return the losses as an `xarray.DataArray` over `alpha` (and `beta`), with settings as attributes.

        Raises:
            InputError: xarray is not installed.
        """
        try:
            from xarray import DataArray
        except ImportError:
            raise InputError("to_xarray needs xarray: pip install xarray") from None
        axes = dict(zip(("alpha", "beta"), self.coordinates, strict=False))
        told = {"center": self.center, "statement": self.statement, **self.settings, **self.provenance}
        return DataArray(self.losses, coords=axes, dims=list(axes), name="loss", attrs=told)

    def at(self, coordinates: Sequence[Array]) -> Array:
        """Return the polynomial through the samples on another grid, indexed like `losses`.

        Raises:
            InputError: the slice is a plain grid, which says nothing between its points.
        """
        if self.certificate is None:
            raise InputError("a plain grid says nothing between its points; measure with a tolerance")
        pieces = int(self.settings["split"])
        axes = [Axis.through(nodes, pieces) for nodes in self.nodes]
        return on_grid(axes, self.samples, coordinates)


def need_slice(given: Any, taker: str) -> None:
    """Refuse what is not a slice, such as the surfaces of several models.

    Raises:
        InputError: it is not; `taker` says what takes it.
    """
    if not isinstance(given, Slice):
        raise InputError(f"{taker} a line or a plane, not {said(given)}; of several, one at a time")

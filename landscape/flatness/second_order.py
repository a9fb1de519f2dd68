"""Measures of the Hessian, all but relative flatness from one operator."""

import numpy as np
import torch

from landscape.curvature.basis import dot
from landscape.curvature.eigenpairs import top_eigenpairs
from landscape.curvature.operators import hessian
from landscape.errors import InputError
from landscape.flatness.point import Estimate, Point
from landscape.objective.structure import Entry
from landscape.runtime import progress
from landscape.runtime.precision import full_precision


def lambda_max(point: Point) -> Estimate:
    """The largest eigenvalue."""
    found = top_eigenpairs(point.hessian, 1, smallest=0, seed=point.settings.seed)
    shown = {"residual": float(found.residuals[0]), "converged": found.converged[0]}
    return Estimate(float(found.eigenvalues[0]), shown=shown)


def trace(point: Point) -> Estimate:
    """Hutchinson's estimate."""
    return Estimate(float(point.traced.mean()), by_draw=point.traced)


def frobenius(point: Point) -> Estimate:
    """The root of the mean of ‖Hz‖²; its pseudo-values are to first order."""
    _, squares = point.probed
    value = float(squares.mean()) ** 0.5
    spread = (squares - squares.mean()) / (2 * value) if value else np.zeros_like(squares)
    return Estimate(value, by_draw=value + spread)


def embedding(point: Point) -> Entry:
    """Return the largest embedding that the loss reads.

    Raises:
        InputError: there is none.
    """
    entries = [e for e in point.read if e.group == "embedding" and e.filter_axis is not None]
    if not entries:
        raise InputError(
            "relative-flatness-embedding needs an embedding; the loss reads none that takes part"
        )
    return max(entries, key=lambda entry: entry.shape.numel())


def last_layer(point: Point) -> Entry:
    """Return the last weights with filters that the loss reads.

    Raises:
        InputError: there are none.
    """
    entries = [entry for entry in point.read if entry.filter_axis is not None]
    if not entries:
        raise InputError("relative-flatness-last needs a weight matrix; the loss reads none that takes part")
    return entries[-1]


def relative_flatness_embedding(point: Point) -> Estimate:
    """Relative flatness of the largest embedding, whose rows are taken for the filters.

    Petzka et al. 2021 have the weights into one neuron for a row: of an embedding that is an input alone,
    these are the columns.
    """
    return _relative_flatness(point, embedding(point))


def relative_flatness_last(point: Point) -> Estimate:
    """Relative flatness of the last layer."""
    return _relative_flatness(point, last_layer(point))


def _relative_flatness(point: Point, entry: Entry) -> Estimate:
    """Estimate Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{s,s'} as the mean of δᵀHδ with δ = W Z.

    The rows w_s of W are the filters, and Z is a square matrix of random signs, whose entries are
    uncorrelated: E δ_si δ_s'j is ⟨w_s, w_s'⟩ where i = j, and else 0. H is the Hessian of this layer alone.
    """
    layer = point.objective.restrict([entry.name])
    counting = entry.counting
    first = tuple(range(len(counting)))
    filters = entry.blocked(layer.theta).movedim(counting, first)
    rows = filters.reshape(filters.shape[: len(counting)].numel(), -1)
    operator = hessian(layer)
    rng = np.random.default_rng(point.settings.seed)
    samples = np.empty(point.settings.probes)
    with progress.bar(f"relative flatness of {entry.name}", len(samples)) as advance:
        for i in range(len(samples)):
            signs = rng.integers(0, 2, (rows.shape[1], rows.shape[1]), dtype=np.int8) * 2 - 1
            with full_precision:
                moved = rows @ torch.from_numpy(signs).to(rows)
            delta = moved.view(filters.shape).movedim(first, counting).flatten()
            samples[i] = dot(delta, operator(delta))
            advance()
    return Estimate(float(samples.mean()), by_draw=samples, shown={"layer": entry.name})

"""Traces by projection: exact on the part of a matrix that a sketch finds, random on the rest."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import dot, gram
from landscape.curvature.probes import LEAST, Probes
from landscape.statistics import mean
from landscape.storage.results import Array

_PARALLEL = 1e-10  # sin² of an angle that rounding has swallowed


class Estimator(Protocol):
    """An unbiased estimate of a trace, which improves with the number of products.

    Attributes:
        cost: products for each sample.
    """

    cost: int

    def __init__(self, probes: Probes) -> None: ...

    def spend(self, budget: int) -> tuple[Array, float]:
        """Return samples and the standard error of their mean, after `budget` products in all."""
        ...


class HutchPlusPlus:
    """tr QAQᵀ + zᵀ(I - P)A(I - P)z for each of its own probes z (Meyer et al. 2021, arXiv 2010.09649).

    The rows of Q are an orthonormal basis of A S, with S other probes, and P = QᵀQ. A third of the products
    each makes the sketch, its product and the samples.
    """

    cost = 3

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._sketch = _Sketch(probes)
        self._signs = self._images = probes.like.new_empty(0, probes.like.numel())

    def spend(self, budget: int) -> tuple[Array, float]:
        sketched = budget // 3
        self._sketch.grow(sketched)
        more = self._probes.draw(budget - 2 * sketched - len(self._signs))
        self._signs = torch.cat([self._signs, more])
        self._images = torch.cat([self._images, self._probes.multiply(more)])
        inner = self._sketch.inner
        along, images = (gram(self._sketch.basis, v) for v in (self._signs, self._images))
        left = _forms(self._signs, self._images) + _removed(inner, along, images)
        samples = np.trace(inner) + left
        return samples, mean(samples)[1]


class XTrace:
    """The same, with each probe of the sketch in turn left out of it and used for a sample.

    Sample i is T_i = tr Q_iAQ_iᵀ + z_iᵀ(I - P_i)A(I - P_i)z_i, the rows of Q_i a basis of the images of the
    others (Epperly, Tropp & Webber 2024, arXiv 2301.07825). They span what the basis Q of all images does,
    less one direction: that to which all but the i-th are orthogonal.

    The paper's standard error takes the samples for independent, and is often too small by a third. Here
    their covariance is estimated too. Given the other probes, T_i has the mean tr A, whatever they are; so
    what is left of the covariance of T_i and T_j is the mean of D_ij D_ji, with D_ij the change of T_i when
    probe j is left out of its sketch as well. It is kept between 0 and S²/(m - 2), the most it can be where
    probes interact in pairs; S² is the variance of the m samples.
    """

    cost = 2

    def __init__(self, probes: Probes) -> None:
        self._sketch = _Sketch(probes)

    def spend(self, budget: int) -> tuple[Array, float]:
        self._sketch.grow(budget // 2)
        signs, images = self._sketch.signs, self._sketch.images
        inner = self._sketch.inner
        along, mapped = (gram(self._sketch.basis, v) for v in (signs, images))
        out = _orthogonal_to_others(mapped)
        own = (out * along).sum(0)
        kept = along - out * own
        left = _forms(signs, images) + _removed(inner, kept, mapped)
        samples = np.trace(inner) - (out * (inner @ out)).sum(0) + left

        # D_ji, j the row: without both, Q loses out_i and u, the part of out_j that is orthogonal to it.
        cosines, curvatures = out.T @ out, out.T @ inner @ out
        slopes = out.T @ (inner @ kept - mapped)
        diagonal = curvatures.diagonal()
        lengths = np.maximum(1 - cosines**2, _PARALLEL)
        curved = (diagonal[:, None] - 2 * cosines * curvatures + cosines**2 * diagonal) / lengths
        share = out.T @ along - cosines * own
        changes = (
            curved * (1 - share**2 / lengths) + 2 * share * (slopes - cosines * slopes.diagonal()) / lengths
        )
        np.fill_diagonal(changes, 0.0)
        count = len(samples)
        shared = float((changes * changes.T).sum()) / (count * (count - 1))
        variance = float(samples.var(ddof=1))
        return samples, (variance / count + min(max(shared, 0.0), variance / (count - 2))) ** 0.5


def budgets(estimator: type[Estimator], probes: int, tol: float | None) -> Iterator[int]:
    """Yield the number of products before each check of the samples: all, or doubled from check to check."""
    spent = probes if tol is None else min(LEAST * estimator.cost, probes)
    while spent < probes:
        yield spent
        spent = min(2 * spent, probes)
    yield probes


def exact(probes: Probes) -> float:
    """Return the trace from a product with each unit vector."""
    n = probes.like.numel()
    return float(probes.multiply(torch.eye(n).to(probes.like)).double().trace())


class _Sketch:
    """Probes z, their images A z, an orthonormal basis Q of these, and A Q; all one vector a row."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self.signs = self.images = self.basis = self._products = probes.like.new_empty(0, probes.like.numel())

    def grow(self, size: int) -> None:
        """Extend to `size` probes. What is there stays, so that no product is spent twice."""
        signs = self._probes.draw(size - len(self.signs))
        images = self._probes.multiply(signs)
        # Householder: orthonormal even where the images are not independent.
        basis = torch.linalg.qr(torch.cat([self.basis, images]).double().T)[0].T
        basis = basis[len(self.basis) :].to(signs)
        self._products = torch.cat([self._products, self._probes.multiply(basis)])
        self.basis = torch.cat([self.basis, basis])
        self.signs, self.images = torch.cat([self.signs, signs]), torch.cat([self.images, images])

    @property
    def inner(self) -> Array:
        """Q A Qᵀ, shape (size, size)."""
        return gram(self.basis, self._products)


def _forms(vectors: Tensor, images: Tensor) -> Array:
    """Return vᵀAv of each row."""
    return np.array([dot(v, av) for v, av in zip(vectors, images, strict=True)])


def _removed(inner: Array, along: Array, images: Array) -> Array:
    """Return by how much vᵀAv changes where v loses Qᵀc, for each column c of `along`: cᵀQAQᵀc - 2 cᵀQAv."""
    return np.asarray((along * (inner @ along - 2 * images)).sum(0))


def _orthogonal_to_others(columns: Array) -> Array:
    """Return, for each column of a square matrix, the unit vector orthogonal to all other columns.

    They are the rows of its inverse, scaled. Singular values that are rounding are raised to it: where
    columns depend on one another, any direction orthogonal to all of them is right.
    """
    u, sizes, vt = np.linalg.svd(columns)
    floor = max(len(sizes) * np.finfo(np.float64).eps * sizes[0], np.finfo(np.float64).tiny)
    sizes = np.maximum(sizes, floor)
    found = (u * (sizes[-1] / sizes)) @ vt
    return np.asarray(found / np.linalg.norm(found, axis=0))

"""Lanczos with full reorthogonalization: blocks of vectors, both ends of the spectrum, thick restarts."""

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor

from landscape.curvature.basis import (
    Basis,
    Place,
    fetched,
    gram,
    grams,
    mix,
    norm,
    norms,
    project_out,
    random_unit,
    unit,
)
from landscape.curvature.budget import length
from landscape.curvature.copies import missed
from landscape.curvature.solver import Counted, Fall, Found, Matvec, measured, rounding, scales
from landscape.objective.shards import local
from landscape.storage.results import Array


def lanczos(
    matvec: Matvec,
    like: Tensor,
    k: int,
    smallest: int,
    tol: float,
    max_products: int,
    seed: int,
    advance: Callable[..., None] = lambda **_: None,
    *,
    start: Iterator[Tensor] | None = None,
    block: int = 1,
    capacity: int | None = None,
    place: Place = "device",
    deadline: float = math.inf,
) -> Found:
    """Find the k largest eigenpairs of a symmetric operator, descending, and the `smallest` smallest.

    A Q = Q T + X B: the vectors of Q orthonormal; T small and dense, in float64; X the next block. From each
    product, what T knows of it is taken away, and then what is measured along all of Q: with the large parts
    among those measured, each step would multiply what earlier ones lack in orthogonality (Paige 1972).
    A Ritz pair (θ, Q s) has the residual X Bᵀs at no cost (Golub & Van Loan, ch. 10); when that says that all
    wanted pairs are within `tol`, products measure it (`measured`). Where the basis is full, the wanted Ritz
    vectors and some beside them become the new one: the thick restart of Wu & Simon (2000).

    A Krylov space holds a repeated eigenvalue at most `block` times. Once the wanted pairs are found, a short
    one orthogonal to them is asked for further copies (`landscape.curvature.copies`). Where there are any,
    the wanted vectors are kept, and another space begins from the copies. Where the Krylov space closes
    before, another begins from random vectors.

    Args:
        matvec: v -> Av, shape (n,) to (n,); with a method `many` for rows of vectors, if `block` is above 1.
        like: any vector of the operator's shape, dtype and device.
        max_products: stop at about this number of products.
        start: yields a vector near the wanted ones; it is mixed with a random one, which misses none.
        block: number of vectors multiplied at once; more of them take more products, at a lower cost each.
        capacity: maximum number of vectors in the basis, by default what half of the free memory holds, up to
            300; raised to the least that the method needs.
        place: where the basis lies, see `Basis`.
        deadline: of `time.perf_counter`; then stop, as at the maximum number of products.
    """
    operator, began = Counted(matvec, advance, check=False), time.perf_counter()
    n = like.numel()
    k, smallest = min(k, n), min(smallest, n)
    wanted = min(k + smallest, n)
    capacity = length(like, k + smallest, block, capacity)
    space = _Space(like, capacity, place, np.random.default_rng(seed))
    space.append(space.first(block, start))
    fall = Fall()
    # a factor on the tolerance of estimated residuals, and the products after which they are measured again
    trust, again = 1.0, 0.0

    while True:
        space.multiply(operator)
        values, coefficients = np.linalg.eigh(space.matrix)
        chosen, tops = _ends(len(values), k, smallest)
        largest = float(np.abs(values).max())
        outside = coefficients[:, chosen].T @ space.coupling
        estimates = np.linalg.norm(outside, axis=1)
        scale = _scale(values[chosen], estimates, tops, largest, like.dtype)
        excess = estimates / (tol * scale)
        if len(values) >= wanted and (forecast := fall.forecast(operator.products, excess)):
            advance(total=min(forecast + wanted, max_products))
        complete = space.size == n
        together = len(chosen) > 1 and not space.begin  # of a closed space, B does not know the residual
        reserved = 1 if together else len(chosen)
        spent = operator.products + reserved >= max_products or time.perf_counter() >= deadline
        arrived = len(values) >= wanted and excess.max() <= trust and operator.products >= again
        if complete or spent or arrived:
            vectors = space.basis.combined(coefficients[:, chosen])
            ahead = (outside, space.ahead) if together else None
            found, absolute = measured(operator, values[chosen], vectors, ahead, tol * scale)
            relative = absolute / _scale(found, absolute, tops, largest, like.dtype)
            noise = rounding(largest, like.dtype)
            within = bool((relative <= tol).all())
            copies, sure = vectors[:0], complete
            if within and not complete and not spent:
                same = max(tol * abs(found[tops - 1]), noise), max(tol * largest, noise)
                now, ends = time.perf_counter(), (found[:tops], found[tops:])
                paid = (deadline - now) * operator.products / max(now - began, 1e-9)  # products until then
                room = int(min(space.capacity - space.size, paid))
                copies, sure = missed(operator, vectors, space.basis.another(), room, *ends, same, space.rng)
            if complete or spent or (within and not len(copies)):
                return Found(found, vectors, relative, tops, operator.products, sure, largest)
            if within:
                space.lock(coefficients[:, chosen], copies[-block:])
                continue
            trust, again = trust / 4, 1.25 * operator.products  # rounding made the estimates too small
        if space.closed:
            space.close(block)
        if space.size + len(space.ahead) > space.capacity:
            space.restart(k, smallest, block)
        space.append(space.ahead)


class _Space:
    """An orthonormal basis Q, and the operator on it: A Q = Q T + X B.

    Attributes:
        basis: Q, one vector a row.
        ahead: X, the next block; empty once it is in the basis. Shape (vectors, n).
        coupling: B, the coupling of the basis to it. Shape (size, vectors).
        begin: where the current Krylov space begins. Before it stand spaces that have closed: invariant.
        capacity: maximum number of vectors in the basis.
    """

    def __init__(self, like: Tensor, capacity: int, place: Place, rng: np.random.Generator) -> None:
        self.capacity = capacity
        self.begin = 0
        self.basis = Basis(like, place)
        self.ahead = self._none = like.new_empty(0, like.shape[-1])
        self.coupling = np.zeros((0, 0))
        self.rng = rng
        self._newest = 0
        self._norm = 0.0  # the longest product of a unit vector so far
        self._matrix = np.zeros((capacity, capacity))

    @property
    def size(self) -> int:
        """Number of vectors in the basis."""
        return len(self.basis)

    @property
    def matrix(self) -> Array:
        """T, shape (size, size)."""
        return self._matrix[: self.size, : self.size]

    @property
    def closed(self) -> bool:
        """Whether the current Krylov space is invariant, so that no block comes next."""
        return len(self.ahead) == 0

    def random(self, count: int) -> Tensor:
        """Draw orthonormal vectors orthogonal to the basis: `count` of them, or as many as exist."""
        drawn = self._none
        for _ in range(min(count, self.basis.like.numel() - self.size)):
            one = random_unit(self.basis.like, self.rng, self.basis.blocks)
            drawn = _longer(drawn, unit(project_out(one, [drawn])))
        return drawn

    def first(self, count: int, start: Iterator[Tensor] | None) -> Tensor:
        """Draw orthonormal vectors, the first of them mixed with the one that `start` yields."""
        drawn = self.random(count)
        for near in start or ():
            mix(drawn[0], near)
            drawn = self.orthonormal(drawn, fetched(norms(drawn))[0], of=1.0)
        return drawn

    def append(self, block: Tensor) -> None:
        """Add a block to the basis, coupled by `coupling`, or uncoupled if that belongs to another block."""
        first, last = self.size, self.size + len(block)
        self.basis.append(block, adopt=True)
        self._matrix[first:last, :last] = self._matrix[:last, first:last] = 0
        if self.coupling.shape == (first, len(block)):
            self._matrix[:first, first:last] = self.coupling
            self._matrix[first:last, :first] = self.coupling.T
        self._newest, self.ahead = first, self._none

    def multiply(self, operator: Counted) -> None:
        """Apply the operator to the newest block, and find the part outside of the basis."""
        newest = self.basis.rows(self._newest)
        products = operator.many(newest)
        measured = grams(newest, products), norms(products)
        known = [*self._coupled(), (measured[0].T.to(local(products)), newest)]
        left = project_out(products, self.basis.blocks, times=1, first=known)
        del products
        inner, sizes, lengths = fetched(*measured, norms(left))  # a step waits for the device here alone
        self._matrix[self._newest : self.size, self._newest : self.size] = (inner + inner.T) / 2
        self._norm = max(self._norm, *sizes)
        self.ahead = self.orthonormal(left, lengths, of=self._norm)
        self.coupling = np.zeros((self.size, len(self.ahead)))
        if len(left) == 1:  # written over: its direction, which the next vector has unless it was short
            cosine = (
                gram(left, self.ahead)
                if self._short(lengths[0], self._norm)
                else np.ones((1, len(self.ahead)))
            )
            self.coupling[self._newest :] = lengths * cosine
        else:
            self.coupling[self._newest :] = gram(left, self.ahead)

    def _coupled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the parts of the newest products along the vectors before, as T knows them, and those."""
        begin = 0
        for rows in self.basis.blocks:
            end = min(begin + len(rows), self._newest)
            parts = self._matrix[self._newest : self.size, begin:end]
            if parts.any():
                yield torch.from_numpy(parts.copy()).to(local(self.basis.like)), rows[: end - begin]
            begin += len(rows)

    def _short(self, length: float, of: float) -> bool:
        """Tell whether what is left of a vector is so short that rounding has turned it back to the basis."""
        least: float = torch.finfo(self.basis.like.dtype).eps ** 0.5 * of
        return length <= least

    def orthonormal(self, vectors: Tensor, lengths: Array, of: float) -> Tensor:
        """Return an orthonormal basis of `vectors`, without those that are only rounding.

        Args:
            vectors: shape (K, n). A single one is written over.
            lengths: of these, shape (K,).
            of: the length of the vectors that these are left of.
        """
        least = 2 * rounding(of, vectors.dtype)
        found = self._none
        for vector, own in zip(vectors, lengths, strict=True):
            left = project_out(vector, [found])
            length = norm(left) if len(found) else float(own)
            if length <= least or self.size + len(found) == self.basis.like.numel():
                continue
            left = left.div_(length) if len(vectors) == 1 else left / length
            if self._short(length, of):
                left = unit(project_out(project_out(left, self.basis.blocks), [found]))
            found = _longer(found, left)
        return found

    def lock(self, coefficients: Array, start: Tensor) -> None:
        """Keep some Ritz vectors as a closed space, and begin another from given vectors orthogonal to Q."""
        values = np.diag(coefficients.T @ self.matrix @ coefficients).copy()
        self.basis.mix(coefficients)
        self.begin = self.size
        self._matrix[: self.size, : self.size] = np.diag(values)
        left = project_out(start, self.basis.blocks)
        self.ahead = self.orthonormal(left, fetched(norms(left))[0], of=1.0)
        self.coupling = np.zeros((self.size, len(self.ahead)))
        self.append(self.ahead)

    def close(self, block: int) -> None:
        """Begin another Krylov space, from random vectors."""
        self.begin = self.size
        self.ahead = self.random(block)
        self.coupling = np.zeros((self.size, len(self.ahead)))

    def restart(self, k: int, smallest: int, block: int) -> None:
        """Keep the wanted Ritz vectors of the closed spaces, and those and some more of the current one."""
        extra = (self.capacity - 2 * (k + smallest) - 2 * block) // 3
        more = (k + (extra + 1) // 2, smallest + extra // 2) if smallest else (k + extra, 0)
        kept = []
        for part, ends in ((slice(0, self.begin), (k, smallest)), (slice(self.begin, self.size), more)):
            coefficients = np.linalg.eigh(self.matrix[part, part])[1]
            kept.append(coefficients[:, sorted(set(_ends(len(coefficients), *ends)[0]))])
        change = block_diag(*kept)
        matrix = change.T @ self.matrix @ change
        self.basis.mix(change)
        self.matrix[:] = matrix
        self.coupling = change.T @ self.coupling
        self.begin = kept[0].shape[1]


def _scale(values: Array, lengths: Array, tops: int, norm: float, dtype: torch.dtype) -> Array:
    """Return what residuals are relative to: of the `tops` first |λ|, of the smallest ones ‖A‖."""
    found = scales(values, lengths, norm, dtype)
    found[tops:] = norm or 1.0  # those may be next to zero
    return found


def _longer(rows: Tensor, vector: Tensor) -> Tensor:
    return torch.cat([rows, vector[None]]) if len(rows) else vector[None]


def _ends(count: int, k: int, smallest: int) -> tuple[list[int], int]:
    """Return indices into ascending values, the k largest first, and how many of these there are."""
    top = list(range(count))[::-1][:k]
    return top + list(range(count))[:smallest], len(top)

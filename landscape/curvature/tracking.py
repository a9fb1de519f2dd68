"""The largest eigenpairs of a matrix that changes slowly: each solve begins from the vectors of the last."""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import gram, norm, project_out, random_unit, residual, unit
from landscape.curvature.lanczos import lanczos
from landscape.curvature.solver import Counted, Found, Matvec, oriented, rounding, scales
from landscape.storage.results import Array

GUARDS = 2  # vectors kept beyond the wanted ones; the last begins as a random one
LONGEST = 40  # vectors added to a basis before it restarts
FAR = 0.03  # share of a product outside of the old vectors, from which a mixture of them is the better start
GRADIENT = 0.3  # length of the gradient in a mixture of length 1
LOST = 0.7  # length of an old vector's part outside of the basis, above which it is added


@dataclass
class Tracker:
    """Follows the k largest eigenpairs from one matrix to the next.

    The first solve is `lanczos`. Each later one knows the eigenvectors of the last and two guards, the Ritz
    vectors that come after them. It first multiplies a mixture of these vectors; the part of the product
    outside of their span tells how far the matrix has turned. If that is little, all of the vectors are
    multiplied, and each gets corrections of its own. Otherwise the mixture alone begins a Krylov space, in
    which all pairs converge at once: a space of many vectors takes a product per vector and step, which costs
    more than the old vectors save. Where they turned far in the last solve too, the gradient, which lies
    largely in the space of the new ones, is part of the mixture.

    Either way the basis grows by the residual Ay - θy of the Ritz pair (θ, y) that is furthest from its
    tolerance (Davidson 1975, without a preconditioner; the thick restart of Wu & Simon 2000, for a matrix
    that has changed since). In a Krylov space all residuals are parallel, so that this is Lanczos. The
    products with the basis are kept, so that the residuals are measured ones and free.

    The pairs that converge need not be the largest. A solve from a mixture therefore ends only when no guard
    (θ, y) can become one of the wanted: when θ + ‖Ay - θy‖ is below all of them. A Krylov space holds one
    vector of each eigenspace. An old vector that lies largely outside of the basis in the end is therefore
    added to it. An eigenvector that is orthogonal to all that a solve begins from does not show in any
    residual. The last guard looks for it: it begins at random, and takes one step of its own, or is part of
    the mixture. What comes up is therefore found within some solves, but not always in the first.

    What this saves depends on how far the eigenvectors turn. On SASRec (Beauty), five take some 45 products
    from nothing. In an epoch they turn by 0.4 or more, which leaves more than half of that; a third is left
    where they turn by 0.01 to 0.04 (`python -m benchmarks.monitor`).

    Args:
        k: number of eigenpairs; at most all of them are returned.
        tol: stop when ‖Av - λv‖ <= tol |λ| for each.
        max_products: maximum number of products of one solve.
        seed: random seed of the vectors.
        start: what the next solve begins from: orthonormal rows, shape (some, n), the k wanted ones first.
    """

    k: int
    tol: float = 1e-3
    max_products: int = 500
    seed: int = 0
    start: Tensor | None = None
    _turned: bool = field(default=False, init=False)  # far, between the last two solves

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def solve(self, matvec: Matvec, near: Tensor, deadline: float = math.inf) -> Found:
        """Find the largest eigenpairs of the next matrix.

        Args:
            matvec: v -> Av, shape (n,) to (n,).
            near: a vector near the wanted ones, such as the gradient; shape (n,).
            deadline: of `time.perf_counter`; then stop, converged or not. The next solve goes on from there.

        Raises:
            InputError: a product is not finite.
        """
        if self.start is None:
            return self._first(matvec, near, deadline)
        start, wanted = self.start, min(self.k, len(self.start))
        basis = _Basis(Counted(matvec), near, self._rng)
        turned = self._begin(basis, start, near)
        searched = turned  # the mixture holds the last guard
        while True:
            values, vectors, images = basis.ritz(len(start))
            lengths = np.array([residual(*pair) for pair in zip(images, vectors, values, strict=True)])
            relative = lengths / scales(values, lengths, basis.norm, near.dtype)
            k = min(wanted, len(values))
            spent = basis.products >= self.max_products or time.perf_counter() >= deadline
            ended = basis.complete or spent
            within = bool((relative[:k] <= self.tol).all())
            worst = int(relative[:k].argmax())
            if within and not searched:
                worst = len(values) - 1
            elif within and turned and len(values) > k:
                worst = k + int((values + lengths)[k:].argmax())
            level = values[k - 1] + self.tol * abs(values[k - 1])
            rising = worst >= k and values[worst] + lengths[worst] > level
            arrived = within and searched and not rising
            lost = basis.lost(start[:wanted]) if within and not ended else None
            if ended or (arrived and lost is None):
                self._turned = _median_sine(vectors[:k], start) > FAR
                self._keep(vectors[: len(start) - turned], len(start))
                return Found(values[:k], oriented(vectors[:k]), relative[:k], k, basis.products, False)
            searched = searched or within
            if basis.size >= len(start) + LONGEST:
                basis.restart(values, vectors, images)
            if lost is None:
                basis.add(images[worst] - values[worst] * vectors[worst], basis.norm)
            else:
                basis.add(lost)

    def _first(self, matvec: Matvec, near: Tensor, deadline: float) -> Found:
        wanted = self.k + GUARDS - 1
        limits = self.tol, self.max_products, self.seed
        found = lanczos(matvec, near, wanted, 0, *limits, start=iter([near]), deadline=deadline)
        self._keep(found.vectors, min(wanted + 1, near.numel()))
        k = min(self.k, found.k)
        return Found(
            found.values[:k], found.vectors[:k], found.residuals[:k], k, found.products, found.copies
        )

    def _begin(self, basis: "_Basis", start: Tensor, near: Tensor) -> bool:
        """Multiply what the solve begins from; tell whether that is a mixture alone."""
        shares = torch.ones(len(start))
        shares[: self.k] += torch.arange(min(self.k, len(start)))  # the last take the longest
        mixture = unit(shares.to(start) @ start)
        if self._turned and near.any():
            basis.add(mixture + GRADIENT * unit(near))
            return True
        product = basis.add(mixture)
        if norm(project_out(product, [start])) > FAR * norm(product):
            return True
        for vector in start[:-1]:  # the mixture stands in for the last
            basis.add(vector)
        return False

    def _keep(self, vectors: Tensor, count: int) -> None:
        """Keep what the next solve begins from: vectors, and random ones up to `count`."""
        self.start = vectors
        while len(self.start) < count:
            search = random_unit(vectors[0], self._rng, [self.start])
            self.start = torch.cat([self.start, search[None]])


class _Basis:
    """Orthonormal vectors Q, one per row, their products AQ, and Q A Qᵀ."""

    def __init__(self, operator: Counted, like: Tensor, rng: np.random.Generator) -> None:
        self._operator, self._rng = operator, rng
        self._rows = self._images = like.new_empty(0, like.numel())
        self._inner = np.zeros((0, 0))
        self.norm = 0.0  # the largest |Ritz value| so far

    @property
    def products(self) -> int:
        return self._operator.products

    @property
    def size(self) -> int:
        return len(self._rows)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space, so that its Ritz pairs are the eigenpairs."""
        return self.size == self._rows.shape[1]

    def ritz(self, count: int) -> tuple[Array, Tensor, Tensor]:
        """Return the largest Ritz values, descending, their vectors, and the products with these."""
        values, coefficients = np.linalg.eigh(self._inner)
        self.norm = max(self.norm, float(np.abs(values).max()))
        top = np.arange(len(values))[::-1][:count]
        mix = torch.from_numpy(coefficients[:, top].T.copy()).to(self._rows, copy=True)
        return values[top], mix @ self._rows, mix @ self._images

    def add(self, direction: Tensor, of: float = 1.0) -> Tensor:
        """Add the part of a direction outside of the basis, or a random one for one of rounding alone.

        Args:
            of: the length of the vectors that the direction is left of.

        Returns:
            The product with the new vector of the basis.
        """
        length = norm(direction)
        if length <= 2 * rounding(of, direction.dtype):
            row = random_unit(direction, self._rng, [self._rows])
        else:
            row = unit(project_out(direction / length, [self._rows]))
        self._rows = torch.cat([self._rows, row[None]])
        image = self._operator(row)
        self._images = torch.cat([self._images, image[None]])
        along = gram(self._rows, image[None])
        self._inner = np.block([[self._inner, along[:-1]], [along.T]])
        return image

    def lost(self, vectors: Tensor) -> Tensor | None:
        """Return the direction in the span of orthonormal vectors that is largely outside of the basis."""
        outside = project_out(vectors, [self._rows])
        squares, mixes = np.linalg.eigh(gram(outside, outside))
        if squares[-1] <= LOST**2:
            return None
        return torch.from_numpy(mixes[:, -1].copy()).to(outside, copy=True) @ outside

    def restart(self, values: Array, vectors: Tensor, images: Tensor) -> None:
        """Keep the Ritz vectors alone."""
        self._rows, self._images, self._inner = vectors, images, np.diag(values)


def _median_sine(vectors: Tensor, space: Tensor) -> float:
    """Return the sine of the angle between a unit vector and a space, the median of several vectors."""
    return float(np.median([norm(left) for left in project_out(vectors, [space])]))

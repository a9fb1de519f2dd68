"""The largest eigenpairs of a matrix that changes slowly: each solve begins from the vectors of the last."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import gram, project_out, random_unit, residual, unit
from landscape.curvature.lanczos import lanczos
from landscape.curvature.solver import Counted, Found, Matvec, oriented, scales

GUARDS = 2  # vectors kept beyond the wanted ones; the last begins as a random one
LONGEST = 40  # vectors added to a basis before it restarts


@dataclass
class Tracker:
    """Follows the k largest eigenpairs from one matrix to the next.

    The first solve is `lanczos`. Each later one begins from the eigenvectors of the last and two guards, the
    Ritz vectors that come after them, at one product each. What they lack of the new eigenvectors is added
    vector by vector: the residual Ay - θy of the Ritz pair (θ, y) that is furthest from its tolerance
    (Davidson 1975, without a preconditioner; the thick restart of Wu & Simon 2000, for a matrix that has
    changed since). The products with the basis are kept, so that the residuals are measured ones and free.

    An eigenvector that is orthogonal to all that a solve begins from does not show in any residual. The last
    guard looks for it: it begins at random and takes one step of its own in each solve. What comes up is
    therefore found within some solves, but not always in the first.

    Args:
        k: number of eigenpairs; at most all of them are returned.
        tol: stop when ‖Av - λv‖ <= tol |λ| for each.
        max_products: maximum number of products of one solve.
        seed: of the random vectors.
    """

    k: int
    tol: float = 1e-3
    max_products: int = 500
    seed: int = 0
    _start: Tensor | None = field(default=None, init=False)

    def solve(self, matvec: Matvec, near: Tensor) -> Found:
        """Find the largest eigenpairs of the next matrix.

        Args:
            matvec: v -> Av, shape (n,) to (n,).
            near: where the first solve begins, such as the gradient; shape (n,).

        Raises:
            InputError: a product is not finite.
        """
        if self._start is None:
            return self._first(matvec, near)
        operator = Counted(matvec)
        basis = _Basis(operator, self._start)
        searched = False
        while True:
            values, vectors, images = basis.ritz(len(self._start))
            lengths = np.array([residual(*pair) for pair in zip(images, vectors, values, strict=True)])
            relative = lengths / scales(values, basis.norm, near.dtype)
            k = min(self.k, len(values))
            arrived = bool((relative[:k] <= self.tol).all())
            if operator.products >= self.max_products or basis.complete or (arrived and searched):
                self._start = vectors
                return Found(values[:k], oriented(vectors[:k]), relative[:k], k, operator.products, False)
            worst = len(values) - 1 if arrived else int(relative[:k].argmax())
            searched = searched or arrived
            if basis.size >= len(self._start) + LONGEST:
                basis.restart(vectors, images)
            basis.add(images[worst] - values[worst] * vectors[worst])

    def _first(self, matvec: Matvec, near: Tensor) -> Found:
        wanted = self.k + GUARDS - 1
        found = lanczos(matvec, near, wanted, 0, self.tol, self.max_products, self.seed, start=near)
        self._start = found.vectors
        if len(found.vectors) < near.numel():
            search = random_unit(near, np.random.default_rng(self.seed), [found.vectors])
            self._start = torch.cat([found.vectors, search[None]])
        k = min(self.k, found.k)
        return Found(
            found.values[:k], found.vectors[:k], found.residuals[:k], k, found.products, found.copies
        )


class _Basis:
    """Orthonormal vectors Q and their products AQ, one per row."""

    def __init__(self, operator: Counted, start: Tensor) -> None:
        self._operator = operator
        self._rows = start[:0]
        for vector in start:  # they were orthonormal to rounding
            self._rows = torch.cat([self._rows, unit(project_out(vector, [self._rows]))[None]])
        self._images = operator.many(self._rows)
        self.norm = 0.0

    @property
    def size(self) -> int:
        return len(self._rows)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space, so that its Ritz pairs are the eigenpairs."""
        return self.size == self._rows.shape[1]

    def ritz(self, count: int) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return the largest Ritz values, descending, their vectors, and the products with these."""
        inner = gram(self._rows, self._images)
        values, coefficients = np.linalg.eigh((inner + inner.T) / 2)
        self.norm = max(self.norm, float(np.abs(values).max()))
        top = np.arange(len(values))[::-1][:count]
        mix = torch.from_numpy(coefficients[:, top].T.copy()).to(self._rows, copy=True)
        return values[top], mix @ self._rows, mix @ self._images

    def add(self, direction: Tensor) -> None:
        """Add the part of a direction that is outside of the basis."""
        row = unit(project_out(unit(direction), [self._rows]))[None]
        self._images = torch.cat([self._images, self._operator.many(row)])
        self._rows = torch.cat([self._rows, row])

    def restart(self, vectors: Tensor, images: Tensor) -> None:
        """Keep the Ritz vectors alone."""
        self._rows, self._images = vectors, images

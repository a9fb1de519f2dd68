"""What the eigenvalue solvers share: counted products, random starts, residuals, and their result."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.storage.results import Array

Matvec = Callable[[Tensor], Tensor]
COLUMNS = 2**16  # columns of a basis that are taken at once


@dataclass(frozen=True, eq=False)
class Found:
    """Eigenpairs of a symmetric operator.

    Attributes:
        values: shape (pairs,). The first `k` are the largest, then come the smallest.
        vectors: of unit norm, one per row, shape (pairs, n).
        residuals: ‖Hv - λv‖ relative to `scales`; of the smallest, to the operator's norm.
        k: number of the largest that were asked for, or n where that is less.
        products: number of times the operator was applied.
        copies: whether further copies of these eigenvalues, which would be among them, can be excluded.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    k: int
    products: int
    copies: bool = True


class Fall:
    """A forecast of the number of products: the logarithm of a residual falls about linearly."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def forecast(self, products: int, excess: Array) -> int | None:
        """Return the number of products at which the last residual is within its tolerance.

        Args:
            products: number of products so far.
            excess: each residual, divided by its tolerance.

        Returns:
            That number; None as long as nothing falls.
        """
        above = math.log(max(float(excess.max()), 1.0))
        self._first = self._first or (products, above)
        before, was = (
            self._first
        )  # a short stretch says little: residuals stand still where a new pair comes up
        return products + math.ceil(above * (products - before) / (was - above)) if was > above else None


class Counted:
    """A symmetric operator that counts its products and checks that they are finite."""

    def __init__(self, matvec: Matvec, advance: Callable[..., None] = lambda: None) -> None:
        self._matvec = matvec
        self._advance = advance
        self.products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        return self._checked(self._matvec(vector), 1)

    def many(self, vectors: Tensor) -> Tensor:
        """Return the product with each row, at once if the operator has `many`."""
        at_once = getattr(self._matvec, "many", None)
        if at_once and len(vectors) > 1:
            return self._checked(at_once(vectors), len(vectors))
        return torch.stack([self(v) for v in vectors])

    def _checked(self, result: Tensor, products: int) -> Tensor:
        self.products += products
        if not torch.isfinite(result).all():
            raise InputError("a product with the operator is not finite; its curvature cannot be measured")
        for _ in range(products):
            self._advance()
        return result


def random_unit(like: Tensor, rng: np.random.Generator, orthogonal_to: Tensor) -> Tensor:
    """Draw a unit vector, of the kind of `like`, orthogonal to the rows of `orthogonal_to`."""
    drawn = torch.from_numpy(rng.standard_normal(like.numel())).to(like, copy=True)  # aligned as torch aligns
    return unit(project_out(drawn, orthogonal_to))


def project_out(vector: Tensor, basis: Tensor) -> Tensor:
    """Remove from vectors, shape (n,) or (K, n), their parts along the orthonormal rows of `basis`.

    This is done twice, for rounding, and piece by piece, since long float32 products lose two digits.
    """
    for _ in range(2):
        pieces = zip(torch.split(vector, COLUMNS, -1), torch.split(basis, COLUMNS, 1), strict=True)
        along = sum((v @ b.T).double() for v, b in pieces)
        vector = vector - torch.as_tensor(along).to(vector) @ basis
    return vector


def unit(vector: Tensor) -> Tensor:
    """Scale to norm 1."""
    return vector / float(vector.double().norm())


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product, summed in float64."""
    return float(a.double() @ b.double())


def residual(product: Tensor, vector: Tensor, value: float) -> float:
    """Return ‖Hv - λv‖ from the product Hv."""
    return float((product.double() - value * vector.double()).norm())


def rayleigh(operator: Counted, vectors: Tensor) -> tuple[Array, Array]:
    """Return vᵀAv and ‖Av - λv‖ of each unit vector, in float64: one product each."""
    products = operator.many(vectors)
    values = [dot(v, p) / dot(v, v) for v, p in zip(vectors, products, strict=True)]
    lengths = [residual(p, v, value) for p, v, value in zip(products, vectors, values, strict=True)]
    return np.array(values), np.array(lengths)


def scales(values: Array, norm: float, dtype: torch.dtype) -> Array:
    """Return what the residual of each eigenvalue is relative to: |λ|.

    An eigenvalue that is zero to the rounding of a product (50 eps ‖H‖) is exceeded by any residual, which is
    then relative to ‖H‖ instead.
    """
    magnitude = np.abs(values)
    return np.where(magnitude > 50 * torch.finfo(dtype).eps * norm, magnitude, norm or 1.0)


def oriented(vectors: Tensor) -> Tensor:
    """Scale each row to norm 1 and fix its sign: the entry of largest magnitude is positive."""
    return torch.stack([unit(v if v[v.abs().argmax()] > 0 else -v) for v in vectors])

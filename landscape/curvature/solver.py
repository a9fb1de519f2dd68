"""What the eigenvalue solvers share: a product, a start, a residual, a result."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.results import Array

Matvec = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Found:
    """Eigenpairs of a symmetric operator.

    Attributes:
        values: shape (pairs,). The first `k` are those asked for; one more, if any, is the smallest.
        vectors: of unit norm, one a row, shape (pairs, n).
        residuals: ‖Hv - λv‖ relative to `scales`; of the smallest, to the operator's norm.
        k: how many were asked for, or n where that is less.
        products: how often the operator was applied.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    k: int
    products: int


class Counted:
    """A symmetric operator that counts its products and insists that they are finite."""

    def __init__(self, matvec: Matvec, advance: Callable[..., None]) -> None:
        self._matvec = matvec
        self._advance = advance
        self.products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        self.products += 1
        result = self._matvec(vector)
        if not torch.isfinite(result).all():
            raise InputError("a product with the operator is not finite; its curvature cannot be measured")
        self._advance()
        return result


def random_unit(like: Tensor, rng: np.random.Generator, orthogonal_to: Tensor) -> Tensor:
    """Draw a unit vector, of the kind of `like`, orthogonal to the rows of `orthogonal_to`."""
    drawn = torch.from_numpy(rng.standard_normal(like.numel())).to(like)
    return unit(project_out(drawn, orthogonal_to))


def project_out(vector: Tensor, basis: Tensor) -> Tensor:
    """Remove from `vector` what lies along the orthonormal rows of `basis`; twice, for rounding."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
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


def scales(values: Array, norm: float, dtype: torch.dtype) -> Array:
    """Return what the residual of each eigenvalue is relative to: |λ|.

    Of an eigenvalue that is zero to the rounding of a product (50 eps ‖H‖), no residual is a small part;
    it is held against ‖H‖ instead.
    """
    magnitude = np.abs(values)
    return np.where(magnitude > 50 * torch.finfo(dtype).eps * norm, magnitude, norm or 1.0)


def oriented(vectors: Tensor) -> Tensor:
    """Scale each row to norm 1 and fix its sign: the entry of largest magnitude is positive."""
    return torch.stack([unit(v if v[v.abs().argmax()] > 0 else -v) for v in vectors])

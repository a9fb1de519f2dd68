"""Lanczos with full reorthogonalization."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape.curvature.solver import (
    Counted,
    Found,
    Matvec,
    dot,
    oriented,
    project_out,
    random_unit,
    residual,
    scales,
)
from landscape.results import Array


def lanczos(
    matvec: Matvec,
    like: Tensor,
    k: int,
    tol: float,
    max_products: int,
    seed: int,
    advance: Callable[..., None] = lambda: None,
) -> Found:
    """Find the k largest eigenpairs of a symmetric operator, descending, and the smallest.

    H Q = Q T + β q eᵀ: Q orthonormal, kept so by projecting every new vector twice against all others;
    T tridiagonal, in float64. A Ritz pair (θ, Q s) has the residual β |s_last| at no cost; when that
    says that all wanted pairs are within `tol`, one product each measures it (Golub & Van Loan, ch. 10).

    Args:
        matvec: v -> Hv, shape (n,) to (n,).
        like: any vector of the operator's shape, dtype and device.
        max_products: stop at about so many products; needs as many vectors of memory.
    """
    operator = Counted(matvec, advance)
    n = like.numel()
    k = min(k, n)
    rng = np.random.default_rng(seed)
    basis = _Basis(like)
    basis.append(random_unit(like, rng, basis.rows))
    alphas: list[float] = []
    betas: list[float] = []
    blocks = [0]  # where each Krylov space begins
    wanted = k + (k < n)
    trust = 1.0  # how far the estimated residuals are believed

    while True:
        q = basis.rows[-1]
        w = operator(q)
        alphas.append(dot(q, w))
        w = project_out(w, basis.rows)
        beta = float(w.double().norm())
        values, coefficients = (np.asarray(a, np.float64) for a in eigh_tridiagonal(alphas, betas))
        norm = float(np.abs(values).max())
        if beta <= 100 * torch.finfo(like.dtype).eps * norm:
            beta = 0.0  # an invariant subspace: what is left is rounding
        complete = len(alphas) == n
        spent = operator.products + wanted >= max_products
        chosen = _wanted(len(values), k, wanted)
        estimates = beta * np.abs(coefficients[-1, chosen]) / _scales(values[chosen], norm, k, like)
        arrived = len(values) >= wanted and bool((estimates <= trust * tol).all())
        if beta == 0 or len(blocks) > 1:
            arrived &= beta == 0 and _nothing_new(alphas, betas, blocks[-1], k, norm)
        if complete or spent or arrived:
            found = _measured(operator, basis.rows, values[chosen], coefficients[:, chosen], k, norm)
            if complete or spent or (found.residuals <= tol).all():
                return found
            trust /= 4  # rounding made the estimates too hopeful
        if beta == 0:
            blocks.append(len(alphas))
        betas.append(beta)
        basis.append(w / beta if beta else random_unit(like, rng, basis.rows))


def _nothing_new(alphas: list[float], betas: list[float], begin: int, k: int, norm: float) -> bool:
    """Tell whether the last Krylov space, from `begin` on, holds no end of the spectrum.

    A Krylov space that closes holds each eigenvalue once, however often it stands in the operator. The
    next one, from a fresh vector orthogonal to it, holds the copies, if there are any.
    """
    if begin < k:
        return False
    before = eigh_tridiagonal(alphas[:begin], betas[: begin - 1], eigvals_only=True)
    last = eigh_tridiagonal(alphas[begin:], betas[begin:], eigvals_only=True)
    slack = 1e-6 * norm
    return bool(last[-1] <= before[-k] + slack and last[0] >= before[0] - slack)


class _Basis:
    """Orthonormal rows in one growing block of memory."""

    def __init__(self, like: Tensor) -> None:
        self._block = like.new_empty(16, like.numel())
        self._count = 0

    def append(self, row: Tensor) -> None:
        if self._count == len(self._block):
            self._block = torch.cat([self._block, torch.empty_like(self._block)])
        self._block[self._count] = row
        self._count += 1

    @property
    def rows(self) -> Tensor:
        return self._block[: self._count]


def _wanted(available: int, k: int, wanted: int) -> list[int]:
    """Indices into ascending Ritz values: the k largest, descending, then the smallest."""
    top = list(range(available - 1, max(available - 1 - k, -1), -1))
    return top + [0] * (wanted > k and available > len(top))


def _scales(values: Array, norm: float, k: int, like: Tensor) -> Array:
    """Hold the k largest against themselves, and the smallest, which may be next to zero, against ‖H‖."""
    result = scales(values, norm, like.dtype)
    result[k:] = norm or 1.0
    return result


def _measured(
    operator: Counted, basis: Tensor, values: Array, coefficients: Array, k: int, norm: float
) -> Found:
    """Form the Ritz vectors and measure their residuals, one product each."""
    vectors = oriented(torch.from_numpy(coefficients.T.copy()).to(basis) @ basis)
    absolute = [residual(operator(v), v, value) for v, value in zip(vectors, values.tolist(), strict=True)]
    relative = np.array(absolute) / _scales(values, norm, k, basis)
    return Found(values, vectors, relative, min(k, len(values)), operator.products)

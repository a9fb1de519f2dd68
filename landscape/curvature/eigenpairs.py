"""Top eigenvalues of an objective's Hessian, by either solver, under one stopping rule."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from landscape import progress
from landscape.curvature.lanczos import lanczos
from landscape.curvature.power import power_iteration
from landscape.errors import InputError
from landscape.objective import Objective
from landscape.results import Array, Result, surroundings

Method = Literal["lanczos", "power"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Eigenpairs(Result):
    """Eigenvalues of the Hessian at θ, each with the residual that was measured, not estimated.

    Attributes:
        eigenvalues: Lanczos: the largest, descending. Power iteration: the largest in magnitude,
            descending in it, with their sign. Shape (k,).
        eigenvectors: of unit norm, one a row; the sign is such that the largest entry is positive, so
            two runs never mirror each other. Shape (k, numel).
        residuals: ‖Hv - λv‖ / |λ|, by one more product each. Shape (k,).
        converged: whether each residual is within the tolerance.
        smallest, smallest_residual: the most negative eigenvalue and its residual; None from power
            iteration, which does not see it.
        smallest_vector: its eigenvector, shape (numel,), oriented like the others; empty from power.
        products: Hessian-vector products in all.
        gradient_norm: ‖∇L(θ)‖. Where it is not small, or `smallest` is negative, θ is not a minimum of
            this loss; a checkpoint trained with dropout is not one of its loss without.
    """

    eigenvalues: Array
    eigenvectors: Array
    residuals: Array
    converged: list[bool]
    smallest: float | None
    smallest_residual: float | None
    smallest_vector: Array
    products: int
    gradient_norm: float


def top_eigenpairs(
    objective: Objective,
    k: int = 1,
    method: Method = "lanczos",
    *,
    tol: float = 1e-3,
    max_products: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """Find the `k` top eigenvalues of the Hessian at θ, stopping on the residual ‖Hv - λv‖ <= tol |λ|.

    Args:
        k: how many; at most all of them are returned.
        method: `lanczos` (with full reorthogonalization; gives the smallest eigenvalue too) or `power`
            (iteration with deflation; keeps no basis).
        tol: relative; below 1e-6 a float32 objective cannot converge.
        max_products: where to stop at the latest, by default after 100 (k + 1); what has not converged
            by then says so.

    Raises:
        InputError: k or tol is not positive, or a product of the Hessian is not finite.
    """
    if k < 1 or tol <= 0:
        raise InputError(f"k is {k} and tol is {tol:g}; both must be positive")
    started = time.perf_counter()
    limit = 100 * (k + 1) if max_products is None else max_products
    both_ends = method == "lanczos"
    with progress.bar(method, limit) as advance:
        solve = lanczos if both_ends else power_iteration
        found = solve(objective.hvp, objective.theta, k, tol, limit, seed, advance)
    gradient_norm = float(objective.grad().double().norm())
    seconds = time.perf_counter() - started
    return Eigenpairs(
        eigenvalues=found.values[: found.k],
        eigenvectors=found.vectors[: found.k].cpu().numpy(),
        residuals=found.residuals[: found.k],
        converged=[bool(c) for c in found.residuals[: found.k] <= tol],
        smallest=float(found.values[-1]) if both_ends else None,
        smallest_residual=float(found.residuals[-1]) if both_ends else None,
        smallest_vector=found.vectors[-1].cpu().numpy() if both_ends else np.empty(0),
        products=found.products,
        gradient_norm=gradient_norm,
        settings={"k": k, "method": method, "tol": tol, "max_products": limit, "seed": seed},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=seconds,
    )

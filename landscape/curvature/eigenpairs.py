"""Top eigenvalues of a symmetric matrix, by either solver, under one stopping rule."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np

from landscape.curvature.basis import Place, norm
from landscape.curvature.budget import bytes_of, check_room, planned
from landscape.curvature.lanczos import lanczos
from landscape.curvature.linear import LinearOperator, vector_of
from landscape.curvature.matrix import Operator
from landscape.curvature.operators import described, operator_of
from landscape.curvature.power import power_iteration
from landscape.curvature.solver import Found, rounding
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.shards import Shard
from landscape.runtime import progress
from landscape.runtime.arguments import Count, CountOrZero, Positive, Seed, checks_arguments
from landscape.runtime.devices import need_room
from landscape.runtime.rounding import UNSURE, ZERO
from landscape.storage.display import Drawn
from landscape.storage.ranges import FINITE, NOT_NEGATIVE
from landscape.storage.results import Array, Result, agree, need_numbers, surroundings

Method = Literal["lanczos", "power"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Eigenpairs(Drawn, Result):
    """Eigenvalues at θ, each with the residual that was measured, not estimated.

    Attributes:
        eigenvalues: Lanczos: the largest, descending. Power iteration: the largest in magnitude,
            descending in it, with their sign. Shape (k,).
        eigenvectors: one per row, of unit norm. The largest entry is positive, so two runs never mirror each
            other. Shape (k, numel).
        residuals: ‖Hv - λv‖ / |λ|, from the solver's products; of `zero` eigenvalues ‖Hv - λv‖ / ‖H‖. In
            Lanczos one product more, of all vectors together, confirms them to a twentieth of them or of the
            tolerance. Where it does not, each vector is multiplied once more. Shape (k,).
        converged: whether each residual is within the tolerance.
        smallest_eigenvalues: the most negative first. Shape (smallest,).
        smallest_eigenvectors: theirs, oriented like the others. Shape (smallest, numel).
        smallest_residuals: theirs, relative to ‖H‖, since λ may be next to zero. Shape (smallest,).
        products: matrix-vector products in all.
        gradient_norm: ‖∇L(θ)‖; NaN for an operator without an objective. Where it is not small, or `smallest`
            is negative, θ is not a minimum of this loss; a checkpoint trained with dropout is usually
            not a minimum of the loss without.
    """

    eigenvalues: Annotated[Array, FINITE]
    eigenvectors: Array
    residuals: Annotated[Array, NOT_NEGATIVE]
    converged: list[bool]
    smallest_eigenvalues: Annotated[Array, FINITE]
    smallest_eigenvectors: Array
    smallest_residuals: Annotated[Array, NOT_NEGATIVE]
    products: Annotated[int, NOT_NEGATIVE]
    gradient_norm: Annotated[float, NOT_NEGATIVE]

    def check(self) -> None:
        for values, vectors, residuals in (
            (self.eigenvalues, self.eigenvectors, self.residuals),
            (self.smallest_eigenvalues, self.smallest_eigenvectors, self.smallest_residuals),
        ):
            agree(values.ndim == 1, values.shape == residuals.shape, vectors.ndim == 2)
            agree(len(vectors) in (0, len(values)))  # a small file may leave them out
        agree(len(self.converged) == len(self.eigenvalues) > 0, isinstance(self.settings["matrix"], str))
        need_numbers(self.settings, "tol", known=["norm", "rounding"])

    def written(self, number: Callable[[float], str] = "{:.4g}".format) -> tuple[list[str], list[str]]:
        """Return the largest and the smallest eigenvalues as texts; what has not converged says so.

        Args:
            number: writes one.
        """

        def marked(values: Array, converged: list[bool]) -> list[str]:
            pairs = zip(values.tolist(), converged, strict=True)
            return [number(value) + ("" if sure else UNSURE) for value, sure in pairs]

        top = marked(self.eigenvalues, self.converged)
        low = marked(self.smallest_eigenvalues, self.smallest_converged)
        return [text + ZERO * zero for text, zero in zip(top, self.zero, strict=True)], low

    @property
    def zero(self) -> list[bool]:
        """Whether each of `eigenvalues` is zero to the rounding of a product: its digits say nothing.

        In float32 that is below 6e-6 ‖H‖. H has an eigenvalue within ‖Hv - λv‖ of λ, which may exceed |λ|; in
        float64 there are nine digits more.
        """
        small = np.abs(self.eigenvalues) <= self.settings.get("rounding", 0.0)
        return [bool(z) for z in small & np.array(self.converged)]

    @property
    def errors(self) -> Array:
        """‖Hv - λv‖ of each of `eigenvalues`, in units of λ: H has an eigenvalue no further from it."""
        largest = np.maximum(np.abs(self.eigenvalues), self.residuals * self._norm)
        of_norm = largest <= self.settings.get("rounding", 0.0)  # as the solvers' `scales` has it
        return self.residuals * np.where(of_norm, self._norm, np.abs(self.eigenvalues))

    @property
    def smallest(self) -> float | None:
        """λmin, or None if no smallest eigenvalue was asked for."""
        return float(self.smallest_eigenvalues[0]) if len(self.smallest_eigenvalues) else None

    @property
    def smallest_converged(self) -> list[bool]:
        """Whether the residual of each smallest eigenvalue is within the tolerance."""
        return [bool(c) for c in self.smallest_residuals <= self.settings["tol"]]

    @property
    def smallest_errors(self) -> Array:
        """‖Hv - λv‖ of each smallest eigenvalue, in units of λ: H has an eigenvalue no further from it."""
        return self.smallest_residuals * self._norm

    @property
    def _norm(self) -> float:
        """‖H‖; in a file of an earlier version, of which the listed eigenvalues tell."""
        listed = np.abs(np.concatenate([self.eigenvalues, self.smallest_eigenvalues])).max()
        return float(self.settings.get("norm", listed))

    @property
    def copies_may_be_missing(self) -> bool:
        """Whether an eigenvalue may occur more often than it is listed, see `landscape.curvature.copies`."""
        return self.settings.get("copies_excluded") is False

    @property
    def why_not_a_minimum(self) -> str | None:
        """Why θ is not a minimum of the measured loss, in words; None if there is no such reason.

        A gradient counts if ‖∇L‖ / ‖H‖, the length of a step against it, exceeds a thousandth; a negative
        eigenvalue of the Hessian counts if it exceeds its residual.
        """
        reasons = []
        values = np.concatenate([self.eigenvalues, self.smallest_eigenvalues])
        errors = np.concatenate([self.errors, self.smallest_errors])
        if self.gradient_norm > 1e-3 * self._norm:
            reasons.append(f"‖∇L‖ = {self.gradient_norm:.3g}")
        if self.settings["matrix"] == "hessian" and (values < -errors).any():
            sure = [*self.converged, *self.smallest_converged][int(values.argmin())]
            reasons.append(f"λmin = {values.min():.3g}{'' if sure else UNSURE}")
        return ", ".join(reasons) or None


@checks_arguments
def top_eigenpairs(
    target: Objective | LinearOperator,
    k: Count = 1,
    method: Method = "lanczos",
    *,
    smallest: CountOrZero = 1,
    tol: Positive = 1e-3,
    max_products: Count | None = None,
    block: Count = 1,
    basis: CountOrZero | None = None,
    memory: int | str | None = None,
    seed: Seed = 0,
) -> Eigenpairs:
    """Find the `k` top eigenvalues at θ, stopping on the residual ‖Hv - λv‖ <= tol |λ|.

    A multiple eigenvalue is listed as often as it occurs. Lanczos looks for the copies that its basis
    lacks, at up to a quarter more products; where they cannot be excluded, `copies_may_be_missing` says so.

    Args:
        target: an objective, for its Hessian; another of its matrices (see `landscape.gauss_newton`); or any
            symmetric `LinearOperator`: `shape`, `dtype`, `device`, and a product with a vector.
        k: number of eigenvalues; at most all of them are returned.
        method: `lanczos` (with full reorthogonalization), or `power` (iteration with deflation, no basis).
        smallest: number of the smallest eigenvalues to find too, to within tol ‖H‖. On SASRec (Beauty), five
            top ones took 49 products, and 54 with λmin.
        tol: relative; below 1e-6 a float32 objective cannot converge.
        max_products: stop at this number of products, or a few more (default: 100 per eigenvalue). There may
            be fewer pairs then, and those that have not converged are marked.
        block: number of vectors that Lanczos multiplies at once. More of them take 1.6 to 2.9 times the
            products, which only a GPU makes up for, where several at once cost little more than one.
        basis: number of vectors that Lanczos may keep, by default what half of the free memory holds, at most
            about 300; in a file, about four times the wanted ones. When it is full, Lanczos restarts from its
            best vectors.
        memory: what Lanczos may take on the device, in bytes or as "8 GB": kept graphs, products, and the
            basis. If that is too little for a basis that converges well, the basis lies in the host's memory
            or in a temporary file; `settings["place"]` says where. The check of derivatives, which comes once
            before, is not counted.
        seed: random seed of the starting vector.

    Returns:
        The pairs that were found, λ in units of the loss (θ has none), each with its residual.

    Raises:
        InputError: k or tol is not positive, `smallest` is negative, a product is not finite, or `memory` is
            less than a product and the eigenvectors take (the message says how much), or given for `power`;
            memory does not hold the vectors; the target is something else; and as `landscape.hessian`.
    """
    budget = None if memory is None else bytes_of(memory)
    if budget and method != "lanczos":
        raise InputError("memory is for lanczos; power iteration keeps no basis")
    started = time.perf_counter()
    operator = operator_of(target, budget)
    limit = 100 * (k + smallest) if max_products is None else max_products
    like = vector_of(operator)
    wanted = min(k, like.numel()) + min(smallest, like.numel())
    if method != "lanczos":
        need_room(2 * wanted, like, f"k = {k:,}")  # each vector and its product
    elif budget is None:
        check_room(like, wanted, block, f"k = {k:,}")
    # Gradients lie largely in the space of the top eigenvectors (Gur-Ari et al. 2018, arXiv 1812.04754).
    gradient = operator.objective.grad() if isinstance(operator, Operator) else None
    slope = np.nan if gradient is None else norm(gradient)
    start = None if gradient is None else iter([gradient])  # the solver takes it, and nobody holds it
    del gradient
    solve: Callable[..., Found] = partial(power_iteration, start=start)
    place: Place | None = None
    if method == "lanczos":
        place, capacity = "device", basis
        if budget:
            place, capacity = planned(operator, like, budget, wanted, block, basis)
        solve = partial(lanczos, start=start, block=block, capacity=capacity, place=place)
    with progress.bar(method, limit) as advance:
        found = solve(operator, like, k, smallest, tol, limit, seed, advance)
    seconds = time.perf_counter() - started
    top, low = slice(0, found.k), slice(found.k, None)
    # of a sharded model no rank holds whole ones
    vectors = np.empty((0, like.numel())) if isinstance(like, Shard) else found.vectors.cpu().numpy()
    told, provenance = described(operator)
    return Eigenpairs(
        eigenvalues=found.values[top],
        eigenvectors=vectors[top],
        residuals=found.residuals[top],
        converged=[bool(c) for c in found.residuals[top] <= tol],
        smallest_eigenvalues=found.values[low],
        smallest_eigenvectors=vectors[low],
        smallest_residuals=found.residuals[low],
        products=found.products + (budget is not None),  # one to see what it takes
        gradient_norm=slope,
        settings={
            **told,
            "k": k,
            "method": method,
            "smallest": smallest,
            "tol": tol,
            "max_products": limit,
            "block": block if method == "lanczos" else 1,
            "basis": basis,
            "memory": budget,
            "place": place,
            "seed": seed,
            "copies_excluded": found.copies,
            "norm": found.norm,
            "rounding": rounding(found.norm, like.dtype),
        },
        provenance=provenance | surroundings(like.device),
        seconds=seconds,
    )

"""All that is known of one matrix: both ends of its spectrum, its trace, its density, and its blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from landscape.curvature.budget import for_graphs
from landscape.curvature.density import SpectralDensity, spectral_density
from landscape.curvature.eigenpairs import Eigenpairs, Method, top_eigenpairs
from landscape.curvature.operators import MATRICES
from landscape.curvature.trace import Method as TraceMethod
from landscape.curvature.trace import Trace
from landscape.curvature.trace import trace as estimate_trace
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime.arguments import Count, CountOrZero, Positive, Seed, checks_arguments
from landscape.runtime.rounding import UNSURE
from landscape.storage.display import Drawn

Matrix = Literal["hessian", "gauss-newton", "fisher"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Spectrum(Drawn):
    """What was measured of one matrix.

    Attributes:
        parameters: its order n.
        pairs: the largest and the smallest eigenvalues.
        trace, density: None where they were not asked for.
        blocks: by group of parameters, the spectrum of its diagonal block; empty if not asked for.
    """

    parameters: int
    pairs: Eigenpairs
    trace: Trace | None = None
    density: SpectralDensity | None = None
    blocks: Mapping[str, "Spectrum"] = field(default_factory=dict)

    def save(self, folder: Path, name: str) -> list[Path]:
        """Save each part as NAME.hessian.npz, NAME.trace.npz, NAME.density.npz; of a block, NAME.GROUP.…

        Returns:
            The files.
        """
        parts = {"hessian": self.pairs, "trace": self.trace, "density": self.density}
        files = [r.save(folder / f"{name}.{part}.npz") for part, r in parts.items() if r is not None]
        blocks = (block.save(folder, f"{name}.{group}") for group, block in self.blocks.items())
        return [*files, *(file for of_block in blocks for file in of_block)]

    @property
    def doubt(self) -> str:
        """What stands after the trace: nothing, or that its tolerance was not reached."""
        return UNSURE if self.trace and self.trace.settings.get("reached") is False else ""

    def facts(self, ridge: float | None = None, gamma: float | None = None) -> dict[str, Any]:
        """Return what was found, without eigenvectors: numbers that JSON holds.

        Args:
            ridge, gamma: as for `density_facts`.
        """
        pairs = self.pairs
        return {
            "matrix": pairs.settings["matrix"],
            "parameters": self.parameters,
            "eigenvalues": pairs.eigenvalues.tolist(),
            "residuals": pairs.residuals.tolist(),
            "errors": pairs.errors.tolist(),
            "converged": pairs.converged,
            "zero": pairs.zero,
            "smallest": pairs.smallest,
            "smallest_eigenvalues": pairs.smallest_eigenvalues.tolist(),
            "smallest_residuals": pairs.smallest_residuals.tolist(),
            "smallest_errors": pairs.smallest_errors.tolist(),
            "smallest_converged": pairs.smallest_converged,
            "copies_may_be_missing": pairs.copies_may_be_missing,
            "products": pairs.products,
            "strategy": pairs.settings["strategy"],
            "gradient_norm": pairs.gradient_norm,
            "why_not_a_minimum": pairs.why_not_a_minimum,
            "seconds": pairs.seconds,
            "trace": self.trace and self.trace.value,
            "trace_se": self.trace and self.trace.standard_error,
            "trace_reached": self.trace and self.trace.settings.get("reached"),
            "trace_interval": self.trace and list(self.trace.interval),
            "density": self.density and self.density_facts(ridge, gamma),
            "groups": {group: block.facts() for group, block in self.blocks.items()},
        }

    def density_facts(self, ridge: float | None = None, gamma: float | None = None) -> dict[str, Any]:
        """Return what the density tells, each number with its standard error under the name NAME_se.

        Args:
            ridge: ridge of the effective dimension, in units of λ; the largest eigenvalue by default.
            gamma: γ of the local entropy, in units of λ; the largest eigenvalue by default.

        Returns:
            `trace`, `frobenius`, `effective_dimension`, `local_entropy` and `moment_error`. A number is None
            where the matrix has an eigenvalue below -ridge or -gamma, or the density has one step. Empty
            without a density.
        """
        if self.density is None:
            return {}
        largest = float(self.pairs.eigenvalues.max())
        ridge, gamma = ridge or largest, gamma or largest
        squares, error = self.density.moment(2)
        norm = squares**0.5
        found: dict[str, tuple[float | None, float | None]] = {
            "trace": self.density.moment(1),
            "frobenius": (norm, error / (2 * norm) if norm else 0.0),
        }
        for name, measure, scale in (
            ("effective_dimension", self.density.effective_dimension, ridge),
            ("local_entropy", self.density.local_entropy, gamma),
        ):
            try:
                found[name] = measure(scale)
            except InputError:
                found[name] = (None, None)
        errors = {f"{name}_se": error for name, (_, error) in found.items()}
        values = {name: value for name, (value, _) in found.items()}
        missed = {"moment_error": max(self.density.moment_error)}
        return {"ridge": ridge, "gamma": gamma, **values, **errors, **missed}


@checks_arguments
def spectrum(
    objective: Objective,
    *,
    matrix: Matrix = "hessian",
    top: Count = 5,
    smallest: CountOrZero = 1,
    method: Method = "lanczos",
    tol: Positive = 1e-3,
    max_products: Count | None = None,
    memory: int | str | None = None,
    trace: bool = False,
    trace_method: TraceMethod = "hutchinson",
    trace_tol: Positive | None = None,
    probes: Count = 30,
    density: bool = False,
    steps: Count = 80,
    by_group: bool = False,
    seed: Seed = 0,
) -> Spectrum:
    """Measure the spectrum of the Hessian at θ, or of a matrix akin to it.

    Args:
        objective: L, at θ.
        matrix: `hessian`, `gauss-newton` (generalized), or `fisher` (empirical).
        top, smallest, method, tol, max_products, memory: as for `top_eigenpairs`.
        trace, trace_method, trace_tol, probes: whether to estimate the trace, and how: see `trace`.
        density, steps: whether to estimate the density of all eigenvalues, and in how many Lanczos steps.
        by_group: measure the diagonal block of each group of parameters too: its largest and smallest
            eigenvalue, and its trace if that is asked for.
        seed: random seed of all vectors.

    Returns:
        What was measured, λ in units of the loss (θ has none).

    Raises:
        InputError: as `top_eigenpairs`, `trace` and `spectral_density`, or the objective does not give what
            the matrix needs.
    """

    def measured(of: Objective, top: int, smallest: int, with_density: bool) -> Spectrum:
        operator = MATRICES[matrix](of, memory=for_graphs(memory))
        pairs = top_eigenpairs(
            operator,
            top,
            method,
            smallest=smallest,
            tol=tol,
            max_products=max_products,
            memory=memory,
            seed=seed,
        )
        estimate = spread = None
        if trace:
            estimate = estimate_trace(operator, method=trace_method, probes=probes, tol=trace_tol, seed=seed)
        if with_density:
            spread = spectral_density(operator, steps=steps, seed=seed)
        return Spectrum(parameters=of.params.numel, pairs=pairs, trace=estimate, density=spread)

    whole = measured(objective, top, smallest, density)
    groups = objective.params.groups if by_group else ()
    parts = {group: objective.restrict(group=group) for group in groups}
    blocks = {group: measured(part, 1, min(smallest, 1), False) for group, part in parts.items()}
    return replace(whole, blocks=blocks)

"""The spectral density of a matrix, by stochastic Lanczos quadrature."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, hessenberg

from landscape.curvature.basis import Basis, fetched, grams, norms, project_out, unit
from landscape.curvature.linear import LinearOperator
from landscape.curvature.probes import Probes, check
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime import progress
from landscape.runtime.arguments import Count, Seed, checks_arguments
from landscape.runtime.devices import need_room
from landscape.statistics import interval, mean
from landscape.storage.display import Drawn
from landscape.storage.ranges import FINITE, POSITIVE, Range
from landscape.storage.results import Array, Result, agree

CLOSED = 2e-14
"""Share of the longest product below which what is left of one says that the Krylov space has closed.

In float32 it is one rounding. What is longer may be small eigenvalues next to one 10⁵ times as large, which
further steps tell from each other. Where it was rounding after all, they add nodes that weigh nothing.
"""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SpectralDensity(Drawn, Result):
    """The distribution of the eigenvalues λ of A, as a quadrature from each random probe.

    n Σ_j w_j f(λ_j) estimates tr f(A) = Σ f(λ): without bias where f is a polynomial of a degree below twice
    the number of nodes, and nearly so where f is smooth. It cannot resolve what is finer than the
    distance of the nodes. Errors are therefore the probes' standard error and, unless f is a polynomial, what
    the steps leave open: with A positive semidefinite, that is a bound.

    Attributes:
        nodes: λ_j of each probe, ascending. Shape (steps,), or fewer where the Krylov space closed.
        weights: w_j of each probe, which sum to 1. Shaped as `nodes`.
        moments: zᵀAz and ‖Az‖² of each probe z, taken from the product itself. Shape (2, probes).
        dimension: n, the number of eigenvalues.
    """

    nodes: Annotated[tuple[Array, ...], FINITE]
    weights: Annotated[tuple[Array, ...], Range(-1e-6, 1 + 1e-6, finite=True)]
    moments: Annotated[Array, FINITE]
    dimension: Annotated[int, POSITIVE]

    def check(self) -> None:
        probes = len(self.nodes)
        agree(probes > 0, self.dimension > 0, self.moments.shape == (2, probes), len(self.weights) == probes)
        agree(
            *(
                nodes.ndim == 1 and nodes.shape == w.shape
                for nodes, w in zip(self.nodes, self.weights, strict=True)
            )
        )
        agree(*(abs(w.sum() - 1) < 1e-6 for w in self.weights))
        agree(*(nodes.size > 0 for nodes in self.nodes), isinstance(self.settings["steps"], int))

    @property
    def moment_error(self) -> tuple[float, float]:
        """By how much tr A and tr A² miss the means in `moments`, relative to Σ |λ| and Σ λ²."""
        scales = self._sum(np.abs)[0], self._sum(np.square)[0]
        missed = [abs(self.moment(k)[0] - float(m.mean())) for k, m in enumerate(self.moments, start=1)]
        return missed[0] / (scales[0] or 1.0), missed[1] / (scales[1] or 1.0)

    def at(self, x: Array, width: float) -> Array:
        """Return the probability density of λ at `x`, of any shape, with each node broadened to a Gaussian.

        Args:
            width: standard deviation of the Gaussian, in units of λ.

        Raises:
            InputError: the width is not positive.
        """
        if not width > 0:
            raise InputError(f"width is {width:g}; it must be positive")
        points = np.asarray(x, np.float64)[..., None]
        density = np.zeros(points.shape[:-1])
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            density += np.exp(-(((points - nodes) / width) ** 2) / 2) @ weights
        return np.asarray(density / (len(self.nodes) * width * (2 * np.pi) ** 0.5))

    def moment(self, k: int) -> tuple[float, float]:
        """Return tr A^k and its standard error; without bias for k below twice the number of nodes.

        Raises:
            InputError: `k` is not a whole number, or negative.
        """
        if not (k >= 0 and k % 1 == 0):
            raise InputError(f"k is {k}; it must be a whole number, 0 or more")
        return self._sum(lambda nodes: nodes**k)

    def effective_dimension(self, ridge: float) -> tuple[float, float]:
        """Return Σ λ / (λ + ridge) and its error: about how many λ are above the ridge.

        It is tr A (A + ridge I)⁻¹, the number of well-determined parameters (MacKay 1992). A + ridge I is the
        precision of a Gaussian posterior, so it must be positive definite: with a Gauss-Newton matrix it is
        for any ridge > 0, with a Hessian for one above -λmin. A negative λ then lowers the sum.

        Raises:
            InputError: A + ridge I is not positive definite, or the density has one step alone.
        """
        self._check_definite("ridge", ridge)
        return self._resolved(lambda nodes: nodes / (nodes + ridge))

    def local_entropy(self, gamma: float) -> tuple[float, float]:
        """Return -½ Σ ln(1 + λ/γ), in nats, and its error.

        Local entropy is ln ∫ exp(-L(θ') - γ ‖θ' - θ‖² / 2) dθ' (Chaudhari et al. 2017, arXiv 1611.01838).
        Around a minimum, the quadratic model of L gives it this much more than a flat loss of that height.
        Where the gradient g is not zero, as at a checkpoint trained with dropout, the model's linear term
        adds ½ gᵀ(A + γI)⁻¹g to that, which is not included: a density of eigenvalues does not know g.

        Raises:
            InputError: γ <= 0 or λ <= -γ somewhere, where the integral diverges; or the density has one step
                alone.
        """
        self._check_definite("gamma", gamma)
        return self._resolved(lambda nodes: -np.log1p(nodes / gamma) / 2)

    def interval(self, found: tuple[float, float]) -> tuple[float, float]:
        """Return the 95% interval of a value and its error, as the methods above return them, by Student's t.

        There are as many degrees of freedom as probes, less one.
        """
        return interval(*found, len(self.nodes))

    def _check_definite(self, name: str, shift: float) -> None:
        least = max(0.0, *(-float(nodes[0]) for nodes in self.nodes))
        if not shift > least:
            raise InputError(
                f"{name} is {shift:g}; it must be above {least:g}, for A + {name} I to be definite"
            )

    def _sum(self, function: Callable[[Array], Array]) -> tuple[float, float]:
        """Return Σ f(λ) over all eigenvalues, and its standard error."""
        pairs = zip(self.nodes, self.weights, strict=True)
        samples = np.array([self.dimension * float(w @ function(x)) for x, w in pairs])
        return mean(samples)

    def _resolved(self, function: Callable[[Array], Array]) -> tuple[float, float]:
        """Return the same, with what the steps leave open as part of the error.

        The derivatives of the function alternate in sign. The Gauss-Radau quadrature with a node below all λ
        therefore lies on the other side of each probe's zᵀ f(A) z (Golub & Meurant 1994, "Matrices, moments
        and quadrature"). That node is 0, or the least of all where that is negative. Since λ may be less, the
        most that the second half of the steps changed counts too.

        Raises:
            InputError: there is one step, and it changed nothing that is known.
        """
        value, error = self._sum(function)
        steps = self.settings["steps"]
        if steps == 1 < self.dimension:
            raise InputError("one step leaves no error of this; take a density of two steps or more")
        least = min(0.0, *(float(nodes[0]) for nodes in self.nodes))
        changes = [partial(_shortened, steps=fewer) for fewer in range(steps - steps // 2, steps)]
        if steps > 1:
            changes.append(partial(_bordered, end=least))
        others = (self._changed(change)._sum(function)[0] for change in changes)
        changed = max((abs(value - other) for other in others), default=0.0)
        return value, float(np.hypot(error, changed))

    def _changed(self, change: Callable[[Array, Array], tuple[Array, Array]]) -> "SpectralDensity":
        """Return another quadrature for each probe whose Krylov space has not closed."""
        steps = self.settings["steps"]
        pairs = [
            change(x, w) if len(x) == steps < self.dimension else (x, w)
            for x, w in zip(self.nodes, self.weights, strict=True)
        ]
        nodes, weights = zip(*pairs, strict=True)
        return replace(self, nodes=nodes, weights=weights)


@checks_arguments
def spectral_density(
    target: Objective | LinearOperator, *, probes: Count = 8, steps: Count = 80, seed: Seed = 0
) -> SpectralDensity:
    """Estimate the density of the eigenvalues of A by stochastic Lanczos quadrature (Lin, Saad & Yang 2016).

    From each random vector of signs, scaled to norm 1, Lanczos makes a tridiagonal matrix. Its eigenvalues
    are the nodes, and the squared first components of its eigenvectors the weights (Golub & Welsch 1969;
    Ghorbani et al. 2019, arXiv 1901.10159). Every vector is projected twice against all before it: otherwise
    eigenvalues appear that are copies of others.

    Args:
        target: an objective, for its Hessian, or any symmetric `LinearOperator`.
        probes: random vectors; those of `landscape.trace` with the same seed.
        steps: products for each of them, and vectors in memory; at most n.
        seed: random seed of the signs.

    Returns:
        The density, λ in units of the loss (θ has none).

    Raises:
        InputError: fewer than two probes, which leave no standard error; no steps; a product is not finite;
            memory does not hold the vectors; the target is something else; and as `landscape.hessian`.
    """
    check(probes, 2)
    with progress.bar("spectral density", probes * steps) as advance:
        source = Probes(target, seed, advance)
        n = source.like.numel()
        need_room(min(steps, n), source.like, f"steps = {steps:,}")
        found = [_quadrature(source, min(steps, n)) for _ in range(probes)]
    nodes, weights, moments = zip(*found, strict=True)
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        moments=np.array(moments).T,
        dimension=n,
        **source.account(probes=probes, steps=steps),
    )


def _quadrature(probes: Probes, steps: int) -> tuple[Array, Array, tuple[float, float]]:
    """Return nodes and weights from the next probe z, and zᵀAz and ‖Az‖²."""
    n = probes.like.numel()
    basis = Basis(probes.like)
    alphas: list[float] = []
    betas: list[float] = []
    newest = probes.draw(1)[0].mul_(n**-0.5)
    basis.append(newest[None])
    moments: tuple[float, float] | None = None
    norm, eps = 0.0, torch.finfo(newest.dtype).eps  # the longest product of a unit vector so far
    least = max(eps, CLOSED)
    while True:
        image = probes.multiply(newest[None])[0]
        measured = grams(newest[None], image[None])[0], norms(image[None])
        ahead = project_out(image, basis.blocks)
        (alpha,), (length,), (beta,) = map(np.ndarray.tolist, fetched(*measured, norms(ahead[None])))
        moments, norm = moments or (n * alpha, n * length**2), max(norm, length)
        alphas.append(alpha)
        if beta <= least * norm or len(alphas) == steps:  # nothing but rounding is left of the space
            break
        betas.append(beta)
        newest = ahead / beta
        if beta <= eps**0.5 * norm:  # rounding has turned it back to those before
            newest = unit(project_out(newest, basis.blocks))
        basis.append(newest[None])
    return *_gauss(np.array(alphas), np.array(betas)), moments


def _gauss(alphas: Array, betas: Array) -> tuple[Array, Array]:
    """Return nodes and weights from a tridiagonal matrix."""
    nodes, vectors = (np.asarray(a, np.float64) for a in eigh_tridiagonal(alphas, betas))
    return nodes, vectors[0] ** 2


def _shortened(nodes: Array, weights: Array, steps: int) -> tuple[Array, Array]:
    """Return the quadrature as it was after fewer steps."""
    alphas, betas = _tridiagonal(nodes, weights)
    return _gauss(alphas[:steps], betas[: steps - 1])


def _bordered(nodes: Array, weights: Array, end: float) -> tuple[Array, Array]:
    """Return the Gauss-Radau quadrature of as many nodes, two or more: one at an `end` below the others."""
    alphas, betas = _tridiagonal(nodes, weights)
    before, vectors = (np.asarray(a, np.float64) for a in eigh_tridiagonal(alphas[:-1], betas[:-1]))
    far = np.maximum(before - end, np.finfo(np.float64).eps * np.abs(nodes).max())
    alphas[-1] = end + betas[-1] ** 2 * (vectors[-1] ** 2 / far).sum()
    found, shares = _gauss(alphas, betas)
    return np.maximum(found, end), shares


def _tridiagonal(nodes: Array, weights: Array) -> tuple[Array, Array]:
    """Return the diagonal of the Lanczos matrix, and the one beside it, from its quadrature.

    A reduction to tridiagonal form that keeps the first vector makes one from the other.
    """
    bordered = np.diag(np.concatenate([np.zeros(1), nodes]))
    bordered[0, 1:] = bordered[1:, 0] = np.sqrt(weights)
    matrix = hessenberg(bordered)[1:, 1:]
    return np.diag(matrix).astype(np.float64), np.diag(matrix, 1).astype(np.float64)

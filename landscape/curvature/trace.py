"""Trace, Frobenius norm and diagonal of a matrix from random probes, with standard errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from landscape.curvature.basis import dot
from landscape.curvature.linear import LinearOperator
from landscape.curvature.operators import of_same_diagonal
from landscape.curvature.probes import Probes, check, meets
from landscape.curvature.sketch import Estimator, HutchPlusPlus, XTrace, budgets, exact
from landscape.objective.objective import Objective
from landscape.runtime import progress
from landscape.runtime.arguments import Count, Positive, Seed, checks_arguments
from landscape.runtime.devices import need_room
from landscape.statistics import interval, mean
from landscape.storage.ranges import NOT_NEGATIVE
from landscape.storage.results import Array, Result, agree

Method = Literal["hutchinson", "hutch++", "xtrace"]
PROJECTING: Mapping[str, type[Estimator]] = {"hutch++": HutchPlusPlus, "xtrace": XTrace}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Trace(Result):
    """An estimate of tr A, with A the Hessian ∇²L(θ) or another matrix.

    Attributes:
        value: mean of `samples`.
        standard_error: standard error of that mean.
        samples: an unbiased estimate from each probe; zᵀAz for Hutchinson's method. A single one is exact.
    """

    value: float
    standard_error: Annotated[float, NOT_NEGATIVE]
    samples: Array

    def check(self) -> None:
        agree(self.samples.ndim == 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `value`, by Student's t: as many degrees of freedom as samples, less one."""
        return interval(self.value, self.standard_error, len(self.samples))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FrobeniusNorm(Result):
    """An estimate of ‖A‖_F.

    Attributes:
        value: root of the mean of `samples`.
        standard_error: standard error of `value`, by the delta method.
        samples: ‖Az‖² of each probe, shape (probes,).
    """

    value: float
    standard_error: Annotated[float, NOT_NEGATIVE]
    samples: Array

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `value`, by Student's t: as many degrees of freedom as probes, less one."""
        return interval(self.value, self.standard_error, len(self.samples))


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Diagonal(Result):
    """An estimate of the diagonal of A.

    Attributes:
        values: A_ii, in the order of θ. Shape (n,).
        standard_errors: standard error of each entry. Shape (n,).
    """

    values: Array
    standard_errors: Annotated[Array, NOT_NEGATIVE]


@checks_arguments
def trace(
    target: Objective | LinearOperator,
    *,
    method: Method = "hutchinson",
    probes: Count = 30,
    tol: Positive | None = None,
    seed: Seed = 0,
) -> Trace:
    """Estimate tr A from products with random signs z, without bias.

    The trace of a Hessian is that of its Gauss-Newton part where outputs are piecewise affine in each tensor
    of weights, as in a ResNet with ReLU and BatchNorm. Products with that are taken then: they have far less
    noise.

    Args:
        target: an objective, for its Hessian, or any symmetric `LinearOperator`.
        method: `hutchinson` takes the mean of zᵀAz (Hutchinson 1989); the variance of a sample is
            2 Σ_{i≠j} A_ij², so a diagonal matrix takes one probe. `hutch++` (Meyer et al. 2021, arXiv
            2010.09649) and `xtrace` (Epperly, Tropp & Webber 2024, arXiv 2301.07825) project out what is
            large first, and win where few eigenvalues make up most of ‖A‖_F. They keep about 2 `probes`
            vectors in memory, and are exact where `probes` is n or more.
        probes: products with A, at most.
        tol: stop as soon as the standard error is at most `tol` times |value|. Stopping on an estimate makes
            that estimate slightly optimistic.
        seed: random seed of the signs.

    Returns:
        The trace, in units of the loss (θ has none), with its standard error over the probes.

    Raises:
        InputError: fewer than two probes (six for the methods that project), which leave no standard error;
            no such method; `tol` is not positive; a product is not finite; memory does not hold the vectors;
            the target is something else; and as `landscape.hessian`.
    """
    check(probes, 6 if method in PROJECTING else 2)
    with progress.bar("trace", probes) as advance:
        source = Probes(of_same_diagonal(target), seed, advance)
        if method == "hutchinson":
            samples = source.sample(dot, probes, tol)
            error = mean(samples)[1]
        elif probes >= source.like.numel():
            samples, error = np.array([exact(source)]), 0.0
        else:
            need_room(2 * probes, source.like, f"{method} with probes = {probes:,}")
            estimator = PROJECTING[method](source)
            for budget in budgets(PROJECTING[method], probes, tol):
                samples, error = estimator.spend(budget)
                if meets(float(samples.mean()), error, tol):
                    break
    value = float(samples.mean())
    return Trace(
        value=value,
        standard_error=error,
        samples=samples,
        **source.account(method=method, probes=probes, tol=tol, reached=meets(value, error, tol)),
    )


@checks_arguments
def frobenius_norm(
    target: Objective | LinearOperator, *, probes: Count = 30, tol: Positive | None = None, seed: Seed = 0
) -> FrobeniusNorm:
    """Estimate ‖A‖_F as the root of the mean of ‖Az‖² over random signs z, since E ‖Az‖² = tr A².

    Args:
        target: an objective, for its Hessian, or any symmetric `LinearOperator`.
        probes: products with A, at most.
        tol: stop as soon as the standard error is at most `tol` times the value.
        seed: random seed of the signs; those of `trace` with the same seed.

    Returns:
        The norm, in units of the loss, with its standard error.

    Raises:
        InputError: fewer than two probes, `tol` is not positive, a product is not finite, the target is
            something else, and as `landscape.hessian`.
    """
    check(probes, 2)
    under = tol and 2 * tol  # the relative error of a root is half of that under it
    with progress.bar("Frobenius norm", probes) as advance:
        source = Probes(target, seed, advance)
        samples = source.sample(lambda _, image: dot(image, image), probes, under)
    square, error = mean(samples)
    return FrobeniusNorm(
        value=square**0.5,
        standard_error=error / (2 * square**0.5) if square else 0.0,
        samples=samples,
        **source.account(probes=probes, tol=tol, reached=meets(square, error, under)),
    )


@checks_arguments
def diagonal(target: Objective | LinearOperator, *, probes: Count = 30, seed: Seed = 0) -> Diagonal:
    """Estimate the diagonal of A as the mean of z ⊙ Az over random signs z (Bekas, Kokiopoulou & Saad 2007).

    Unbiased; the variance of a sample of A_ii is Σ_{j≠i} A_ij². The values sum to Hutchinson's trace, whose
    products these are.

    Args:
        target: an objective, for its Hessian, or any symmetric `LinearOperator`.
        probes: products with A.
        seed: random seed of the signs; those of `trace` with the same seed.

    Returns:
        The diagonal, in units of the loss, with a standard error for each entry.

    Raises:
        InputError: fewer than two probes, a product is not finite, the target is something else, and as
            `landscape.hessian`.
    """
    check(probes, 2)
    with progress.bar("diagonal", probes) as advance:
        source = Probes(of_same_diagonal(target), seed, advance)
        values = torch.zeros_like(source.like, dtype=torch.float64)
        squares = torch.zeros_like(values)  # Σ (sample - mean)², carried on as Welford does
        for count, (signs, image) in enumerate(source.pairs(probes, probes), start=1):
            sample = signs.double() * image.double()
            before = sample - values
            values += before / count
            squares += before * (sample - values)
    return Diagonal(
        values=values.cpu().numpy(),
        standard_errors=(squares / (probes * (probes - 1))).sqrt().cpu().numpy(),
        **source.account(probes=probes),
    )

"""The trace of the Hessian, with a standard error."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from landscape import progress
from landscape.curvature.solver import dot
from landscape.errors import InputError
from landscape.objective import Objective
from landscape.results import Array, Result, surroundings


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace(Result):
    """An estimate of tr ∇²L(θ).

    Attributes:
        value: mean of `samples`.
        standard_error: of that mean.
        samples: zᵀHz of each probe, shape (probes,).
    """

    value: float
    standard_error: float
    samples: Array


def trace(objective: Objective, *, probes: int = 30, seed: int = 0) -> Trace:
    """Estimate tr H as the mean of zᵀHz over random signs z (Hutchinson 1989).

    Unbiased; the variance of a sample is 2 Σ_{i≠j} H_ij², so a diagonal Hessian takes one probe.

    Raises:
        InputError: fewer than two probes, which leave no standard error.
    """
    if probes < 2:
        raise InputError(f"{probes} probe leaves no standard error; use 2 or more")
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    samples = np.empty(probes)
    with progress.bar("trace", probes) as advance:
        for i in range(probes):
            signs = rng.integers(0, 2, objective.params.numel, dtype=np.int8) * 2 - 1
            z = torch.from_numpy(signs).to(objective.theta)
            samples[i] = dot(z, objective.hvp(z))
            advance()
    return Trace(
        value=float(samples.mean()),
        standard_error=float(samples.std(ddof=1) / probes**0.5),
        samples=samples,
        settings={"probes": probes, "seed": seed, "method": "hutchinson"},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )

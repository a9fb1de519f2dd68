"""One θ under measurement: what several measures need of it is computed once."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import dot
from landscape.curvature.matrix import Operator
from landscape.curvature.operators import hessian, of_same_diagonal
from landscape.curvature.probes import Probes
from landscape.flatness.noise import Noise
from landscape.objective.derivatives import leaves_of
from landscape.objective.objective import Objective
from landscape.objective.structure import Entry
from landscape.objective.supervised import need_objective
from landscape.runtime import progress
from landscape.statistics import standard_error
from landscape.storage.results import Array

ROUNDINGS = 4
"""By how many roundings of the loss a rise may be wrong: it is of two losses, each the sum of others."""


@dataclass(frozen=True)
class Settings:
    """What the measures depend on: the arguments of `sharpness`, which says what they mean."""

    rho: float = 0.1
    sigma: float = 0.01
    epsilon: float = 1e-3
    steps: int = 20
    samples: int = 20
    probes: int = 20
    rise: float = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Estimate:
    """A measured value, and what it varies with.

    Attributes:
        value: value of the measure.
        by_draw: pseudo-values, whose mean is `value`, of each independent draw; empty where nothing is drawn.
        by_unit: the same for each unit of the objective (each user); empty where that is not known.
        shown: what else the row says.
    """

    value: float
    by_draw: Array = field(default_factory=lambda: np.empty(0))
    by_unit: Array = field(default_factory=lambda: np.empty(0))
    shown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def standard_error(self) -> float | None:
        """Over draws and units, as if the two were independent; None where neither is known."""
        return standard_error(self.by_draw, self.by_unit)


class Point:
    """The weights of an objective, under some settings. Everything is computed where it is first asked."""

    def __init__(self, objective: Objective, settings: Settings) -> None:
        need_objective(objective)
        self.objective = objective
        self.settings = settings

    @property
    def theta(self) -> Tensor:
        """Shape (numel,)."""
        return self.objective.theta

    @cached_property
    def ones(self) -> Tensor:
        """The C of plain measures, as a diagonal."""
        return torch.ones_like(self.theta)

    @cached_property
    def magnitudes(self) -> Tensor:
        """The C of measures that a rescaling of weights leaves alone, |θ|. A weight of 0 stays 0."""
        return self.theta.abs()

    @cached_property
    def loss(self) -> float:
        """L(θ)."""
        return self.objective.value()

    @cached_property
    def gradient(self) -> Tensor:
        """∇L(θ)."""
        return self.objective.grad()

    @cached_property
    def read(self) -> list[Entry]:
        """The tensors of θ that the loss depends on, by its first batch."""
        leaves, total = self.objective.traced(self.objective.batches[0])
        used = {id(leaf) for leaf in leaves_of(total)}
        pairs = zip(self.objective.params.entries, leaves, strict=True)
        found = [entry for entry, leaf in pairs if id(leaf) in used]
        return self.objective.ranks.gathered(found)[0]

    @cached_property
    def units(self) -> tuple[Array, Array]:
        """Each unit's sum of the loss and its weight."""
        return self.objective.per_example()

    @cached_property
    def precision(self) -> torch.dtype:
        """That of the loss: of θ, or a lower one in which the loss is returned."""
        of, found = self.objective, [self.theta.dtype]
        with suppress(RuntimeError):  # it needs copies of the model, or has other parts on other ranks
            found.append(of.summed(of.params.split(of.theta), of.batches[0]).dtype)
        return max((kind for kind in found if kind.is_floating_point), key=lambda kind: torch.finfo(kind).eps)

    @cached_property
    def least_rise(self) -> float:
        """What the loss rounds off: a smaller difference of two losses may be one of rounding alone."""
        sums, weights = self.units
        return ROUNDINGS * torch.finfo(self.precision).eps * float(np.abs(sums).sum() / weights.sum())

    def resolves(self, rise: float) -> bool:
        """Tell whether a rise of the loss is more than what the loss rounds off."""
        return not abs(rise) < self.least_rise

    @cached_property
    def noise(self) -> Noise:
        """L under noise σ z."""
        return self._noise(self.ones)

    @cached_property
    def adaptive_noise(self) -> Noise:
        """L under noise σ |θ| z."""
        return self._noise(self.magnitudes)

    def _noise(self, scale: Tensor) -> Noise:
        return Noise(self.objective, scale, self.units, self.settings.samples, self.settings.seed)

    @cached_property
    def hessian(self) -> Operator:
        """∇²L(θ)."""
        return hessian(self.objective)

    @cached_property
    def traced(self) -> Array:
        """The samples of `landscape.trace`, which may be those of another matrix with H's diagonal."""
        target = of_same_diagonal(self.hessian)
        if target is self.hessian:
            return self.probed[0]
        with progress.bar("trace", self.settings.probes) as advance:
            return Probes(target, self.settings.seed, advance).sample(dot, self.settings.probes)

    @cached_property
    def probed(self) -> tuple[Array, Array]:
        """zᵀHz and ‖Hz‖² of random signs z, the latter the samples of `landscape.frobenius_norm`."""
        probes = self.settings.probes
        with progress.bar("Hessian probes", probes) as advance:
            source = Probes(self.hessian, self.settings.seed, advance)
            found = [(dot(z, image), dot(image, image)) for z, image in source.pairs(probes, probes)]
        along, squares = np.array(found).T
        return along, squares

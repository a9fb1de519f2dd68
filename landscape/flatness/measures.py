"""Sharpness measures: one core, δ = C u, with C the identity or diag |θ|."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import progress
from landscape.errors import InputError
from landscape.flatness.ascent import one_step, projected_ascent
from landscape.objective import Objective
from landscape.results import Result, surroundings


@dataclass(frozen=True, eq=False, kw_only=True)
class Sharpness(Result):
    """Sharpness measures of one θ.

    Attributes:
        loss: L(θ), a mean over positions; every measure is a rise of this mean.
        weight_norm: ‖θ‖, because a drop of a measure that does not scale with the weights can be
            nothing but larger weights.
        measures: for each measure its `value`, standard error `se` (None where nothing is drawn), and
            the settings it depends on.
    """

    loss: float
    weight_norm: float
    measures: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What the measures depend on.

    Attributes:
        rho: radius ρ of the ball, Euclidean.
        sigma: standard deviation σ of the average-case noise, per coordinate (relative to |θ| in the
            adaptive measure).
        steps: of projected ascent.
        samples: antithetic pairs of the average.
        seed: of all draws.
    """

    rho: float = 0.1
    sigma: float = 0.01
    steps: int = 20
    samples: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Measure:
    """One entry of the table: what it is, where it is from, how it is computed.

    `compute` maps (objective, settings) to (value, standard error or None); `uses` names the settings
    it depends on.
    """

    formula: str
    source: str
    uses: tuple[str, ...]
    compute: Callable[[Objective, Settings], tuple[float, float | None]]


def sharpness(
    objective: Objective,
    measures: Sequence[str] = ("sam", "worst", "asam", "average", "average-adaptive", "gradient-norm"),
    *,
    rho: float = 0.1,
    sigma: float = 0.01,
    steps: int = 20,
    samples: int = 20,
    seed: int = 0,
) -> Sharpness:
    """Measure the sharpness of L at θ; see `MEASURES` for what each name means, `Settings` for the rest.

    The draws depend on `seed` alone, so two checkpoints of one model are perturbed alike.

    Raises:
        InputError: a name that is no measure, a ρ or σ that is not positive and finite, fewer than two
            samples, or no steps.
    """
    if unknown := [name for name in measures if name not in MEASURES]:
        raise InputError(f"no sharpness measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if not (0 < rho < np.inf and 0 < sigma < np.inf and samples >= 2 and steps >= 1):
        raise InputError("rho and sigma must be positive and finite, samples at least 2, steps at least 1")
    started = time.perf_counter()
    settings = Settings(rho, sigma, steps, samples, seed)
    rows: dict[str, dict[str, Any]] = {}
    with progress.bar("sharpness", len(measures)) as advance:
        for name in measures:
            value, error = MEASURES[name].compute(objective, settings)
            rows[name] = {
                "value": value,
                "se": error,
                **{setting: getattr(settings, setting) for setting in MEASURES[name].uses},
            }
            advance()
    return Sharpness(
        loss=objective.value(),
        weight_norm=float(objective.theta.double().norm()),
        measures=rows,
        settings={**vars(settings), "norm": 2, "reduction": "mean", "m": "all frozen batches"},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )


def _identity(objective: Objective) -> Tensor:
    return torch.ones_like(objective.theta)


def _weights(objective: Objective) -> Tensor:
    return objective.theta.abs()


Scale = Callable[[Objective], Tensor]


def _one_step_rise(scale: Scale) -> Callable[[Objective, Settings], tuple[float, None]]:
    def compute(objective: Objective, settings: Settings) -> tuple[float, None]:
        delta = one_step(objective, settings.rho, scale(objective))
        return objective.value(objective.theta + delta) - objective.value(), None

    return compute


def _worst_rise(objective: Objective, settings: Settings) -> tuple[float, None]:
    _, highest = projected_ascent(
        objective, settings.rho, _identity(objective), settings.steps, settings.seed
    )
    return highest - objective.value(), None


def _average_rise(scale: Scale) -> Callable[[Objective, Settings], tuple[float, float]]:
    """Antithetic pairs θ ± δ: what is odd in δ, the gradient above all, cancels within each pair."""

    def compute(objective: Objective, settings: Settings) -> tuple[float, float]:
        rng = np.random.default_rng(settings.seed)
        factor = settings.sigma * scale(objective)
        center = objective.value()
        rises = np.empty(settings.samples)
        for i in range(settings.samples):
            delta = factor * torch.from_numpy(rng.standard_normal(objective.params.numel)).to(factor)
            pair = objective.value(objective.theta + delta), objective.value(objective.theta - delta)
            rises[i] = (pair[0] + pair[1]) / 2 - center
        return float(rises.mean()), float(rises.std(ddof=1) / len(rises) ** 0.5)

    return compute


def _gradient_norm(objective: Objective, settings: Settings) -> tuple[float, None]:
    return float(objective.grad().double().norm()), None


MEASURES: Mapping[str, Measure] = {
    "sam": Measure(
        "L(θ + ρ g/‖g‖) - L(θ)",
        "Foret et al. 2021, arXiv 2010.01412, eq. 2",
        ("rho",),
        _one_step_rise(_identity),
    ),
    "worst": Measure(
        "max over ‖δ‖ <= ρ of L(θ + δ) - L(θ), by projected ascent",
        "Foret et al. 2021, eq. 1",
        ("rho", "steps", "seed"),
        _worst_rise,
    ),
    "asam": Measure(
        "L(θ + ρ θ² g/‖|θ| g‖) - L(θ); unchanged by a rescaling of weights that keeps the loss",
        "Kwon et al. 2021, arXiv 2102.11600, eq. 6",
        ("rho",),
        _one_step_rise(_weights),
    ),
    "average": Measure(
        "E L(θ + σ z) - L(θ), z standard normal",
        "Andriushchenko et al. 2023, arXiv 2302.07011, eq. 1",
        ("sigma", "samples", "seed"),
        _average_rise(_identity),
    ),
    "average-adaptive": Measure(
        "E L(θ + σ |θ| z) - L(θ); unchanged by a rescaling of weights that keeps the loss",
        "Andriushchenko et al. 2023, eq. 2",
        ("sigma", "samples", "seed"),
        _average_rise(_weights),
    ),
    "gradient-norm": Measure("‖∇L(θ)‖", "Zhao et al. 2022, arXiv 2202.03599", (), _gradient_norm),
}

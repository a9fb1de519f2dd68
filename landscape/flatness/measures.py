"""Sharpness measures: one core, δ = C u, with u the worst or the average of what C makes of it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from landscape.errors import InputError
from landscape.flatness import average_case, first_order, second_order, worst_case
from landscape.flatness.point import Estimate, Point, Settings
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_objective
from landscape.runtime.arguments import Count, Names, Positive, Seed, Several, checks_arguments
from landscape.statistics import influences
from landscape.storage.display import Brief, Drawn
from landscape.storage.ranges import NOT_NEGATIVE
from landscape.storage.results import Array, Result, agree, surroundings


@dataclass(frozen=True, repr=False)
class Measurement(Brief):
    """The value of one measure.

    Attributes:
        value: value of the measure.
        standard_error: over the draws, if there are any, and over the units (users), with δ held fixed where
            it was found by ascent. None where neither is known.
        settings: those that the value depends on, and what the measure chose (a layer, a σ).
    """

    value: float
    standard_error: float | None
    settings: Mapping[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        """What `--json` prints: `value`, `se` and the settings, side by side."""
        return {"value": self.value, "se": self.standard_error, **self.settings}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Sharpness(Drawn, Result):
    """Sharpness measures of one θ.

    Attributes:
        loss: L(θ), a mean (over positions, for a recommender); every rise is a rise of it.
        weight_norm: ‖θ‖: a measure that depends on the scale of the weights can drop because they grew.
        measures: by name.
        by_draw: for each measure, in this order, a pseudo-value of each draw (an antithetic pair, a
            probe); their mean is the value. Empty where nothing is drawn.
        by_unit: the same for each unit, in the order of `Objective.per_example`. Empty where the measure is
            not a mean over units, or there is one unit alone. The squared standard error of a measure is the
            sum of the variances of both means.
            Equal seeds and units pair the pseudo-values of two checkpoints.
        loss_by_unit: the same for L(θ). Shape (units,), or empty.
    """

    loss: float
    weight_norm: Annotated[float, NOT_NEGATIVE]
    measures: Mapping[str, Measurement]
    by_draw: tuple[Array, ...] = ()
    by_unit: tuple[Array, ...] = ()
    loss_by_unit: Array = field(default_factory=lambda: np.empty(0))

    @property
    def entry(self) -> dict[str, Any]:
        """What `--json` prints."""
        measures = {name: found.entry for name, found in self.measures.items()}
        return {"loss": self.loss, "weight_norm": self.weight_norm, "measures": measures}

    def check(self) -> None:
        parts = (self.by_draw, self.by_unit)
        agree(*(len(part) in (0, len(self.measures)) for part in parts), self.loss_by_unit.ndim == 1)
        agree(*(values.ndim == 1 for part in parts for values in part))


@dataclass(frozen=True)
class Measure:
    """One entry of the table: what it is, where it is from, how it is computed.

    Attributes:
        formula: with g = ∇L(θ), H = ∇²L(θ), s_u the summed loss and w_u the weight of a unit.
        source: the paper.
        uses: what its row shows: the settings it depends on, and what it chose.
        compute: the estimate at a point.
        invariant: whether a rescaling of single hidden units that keeps the function keeps the value.
        needs: raises `InputError` where the measure does not apply.
    """

    formula: str
    source: str
    uses: tuple[str, ...]
    compute: Callable[[Point], Estimate]
    invariant: bool = False
    needs: Callable[[Point], Any] | None = None


@checks_arguments
def sharpness(
    objective: Objective,
    measures: Names | None = None,
    *,
    rho: Positive = 0.1,
    sigma: Positive = 0.01,
    epsilon: Positive = 1e-3,
    steps: Count = 20,
    samples: Several = 20,
    probes: Several = 20,
    rise: Positive = 0.1,
    seed: Seed = 0,
) -> Sharpness:
    """Measure the sharpness of L at θ; see `MEASURES` for what each name means.

    The draws depend on `seed` alone, so two checkpoints of one model are perturbed alike. What several
    measures need is computed once.

    Args:
        objective: L, at θ.
        measures: names; by default all that apply to this objective.
        rho: radius ρ of the ball, Euclidean, in units of θ.
        sigma: standard deviation σ of the average-case noise, per coordinate (relative to |θ| in the
            adaptive measure).
        epsilon: half the width of Keskar's box, where a weight is 0.
        steps: number of steps of projected ascent.
        samples: number of antithetic pairs for an average.
        probes: number of random vectors for a trace.
        rise: rise of the mean loss at which the PAC-Bayes σ is read.
        seed: random seed of all draws.

    Returns:
        The measures, each with its value and standard error; a rise of the loss is in units of L.

    Raises:
        InputError: an unknown measure, or one that does not apply; ρ, σ, ε or the rise is not
            positive and finite; fewer than two samples or probes; no steps; and as `landscape.hessian`.
    """
    if unknown := [name for name in measures or () if name not in MEASURES]:
        raise InputError(f"no sharpness measure {unknown[0]!r}; measures: {', '.join(MEASURES)}")
    started = time.perf_counter()
    settings = Settings(rho, sigma, epsilon, steps, samples, probes, rise, seed)
    point = Point(objective, settings)
    estimates = {name: MEASURES[name].compute(point) for name in _applying(point, measures)}
    return Sharpness(
        loss=point.loss,
        weight_norm=float(point.theta.double().norm()),
        measures={name: _measurement(MEASURES[name], found, settings) for name, found in estimates.items()},
        by_draw=tuple(estimate.by_draw for estimate in estimates.values()),
        by_unit=tuple(estimate.by_unit for estimate in estimates.values()),
        loss_by_unit=point.loss + influences(*point.units),
        settings={**vars(settings), "norm": 2, "reduction": "mean", "m": "all frozen batches"},
        provenance=objective.provenance | surroundings(objective.theta.device),
        seconds=time.perf_counter() - started,
    )


@checks_arguments
def sharpness_by_group(
    objective: Objective, measures: Names | None = None, **settings: Any
) -> dict[str, Sharpness]:
    """Measure each group of parameters separately, with all others held fixed (see `ParamSpace.groups`).

    The traces of the groups add up to the trace of all. Other measures do not: each group has its own worst
    direction, and the interaction of two groups is in neither. A measure that does not apply to a group (the
    relative flatness of norms) is left out of it.

    Args:
        objective: L, at θ.
        measures: names; by default all that apply.
        settings: as for `sharpness`: `rho`, `sigma`, `seed`, …

    Returns:
        By name of the group, its measures.

    Raises:
        InputError: as `sharpness`.
    """
    need_objective(objective)
    found = {}
    for group in objective.params.groups:
        part = objective.restrict(group=group)
        names = None
        if measures is not None:
            any_rise = Point(part, Settings(rise=math.inf))  # `sharpness` refuses one that is too small
            names = [m for m in measures if m not in MEASURES or _applies(any_rise, m)]
        found[group] = sharpness(part, names, **settings)
    return found


def _applying(point: Point, names: Sequence[str] | None) -> list[str]:
    """Return the names that were asked for, checked before anything is measured, or all that apply."""
    if names is None:
        return [name for name in MEASURES if _applies(point, name)]
    for name in names:
        if needs := MEASURES[name].needs:
            needs(point)
    return list(dict.fromkeys(names))


def _applies(point: Point, name: str) -> bool:
    try:
        if needs := MEASURES[name].needs:
            needs(point)
    except InputError:
        return False
    return True


def _measurement(measure: Measure, estimate: Estimate, settings: Settings) -> Measurement:
    chosen = {**vars(settings), **estimate.shown}
    used = {name: chosen[name] for name in measure.uses}
    return Measurement(estimate.value, estimate.standard_error, {**used, **estimate.shown})


_NOISE = ("sigma", "samples", "seed")
_RISEN = ("rise", "samples", "seed")

MEASURES: Mapping[str, Measure] = {
    "sam": Measure(
        "L(θ + ρ g/‖g‖) - L(θ)",
        "Foret et al. 2021, arXiv 2010.01412, eq. 2",
        ("rho",),
        worst_case.sam,
    ),
    "m-sharpness": Measure(
        "the same with a δ for each batch b of m units: mean of L_b(θ + ρ g_b/‖g_b‖) - L_b(θ)",
        "Foret et al. 2021, section 4.1",
        ("rho", "m"),
        worst_case.m_sharpness,
    ),
    "worst": Measure(
        "max over ‖δ‖ <= ρ of L(θ + δ) - L(θ), by projected ascent",
        "Foret et al. 2021, eq. 1",
        ("rho", "steps", "seed"),
        worst_case.worst,
    ),
    "keskar": Measure(
        "100 (max L(θ + δ) - L(θ)) / (1 + L(θ)) over |δ_i| <= ε (|θ_i| + 1), by projected ascent",
        "Keskar et al. 2017, arXiv 1609.04836, eq. 3 and metric 2.1",
        ("epsilon", "steps", "seed"),
        worst_case.keskar,
        needs=worst_case.loss_above_minus_one,
    ),
    "asam": Measure(
        "L(θ + ρ θ² g/‖|θ| g‖) - L(θ)",
        "Kwon et al. 2021, arXiv 2102.11600, eq. 6",
        ("rho",),
        worst_case.asam,
        invariant=True,
    ),
    "worst-adaptive": Measure(
        "max over ‖u‖ <= ρ of L(θ + |θ| u) - L(θ), by projected ascent",
        "Kwon et al. 2021, eq. 3",
        ("rho", "steps", "seed"),
        worst_case.worst_adaptive,
        invariant=True,
    ),
    "average": Measure(
        "E L(θ + σ z) - L(θ), z standard normal",
        "Andriushchenko et al. 2023, arXiv 2302.07011, eq. 1",
        _NOISE,
        average_case.average,
    ),
    "lpf": Measure(
        "E L(θ + σ z), the loss after a Gaussian low-pass filter",
        "Bisla et al. 2022, arXiv 2201.08025",
        _NOISE,
        average_case.low_pass,
    ),
    "average-adaptive": Measure(
        "E L(θ + σ |θ| z) - L(θ)",
        "Andriushchenko et al. 2023, eq. 2",
        _NOISE,
        average_case.average_adaptive,
        invariant=True,
    ),
    "pac-bayes-sigma": Measure(
        "1/σ² at E L(θ + σ z) - L(θ) = rise",
        "Neyshabur et al. 2017, arXiv 1706.08947; Jiang et al. 2020, arXiv 1912.02178",
        _RISEN,
        average_case.pac_bayes_sigma,
        needs=average_case.rise_resolved,
    ),
    "pac-bayes-sigma-adaptive": Measure(
        "1/σ² at E L(θ + σ |θ| z) - L(θ) = rise",
        "Jiang et al. 2020, magnitude-aware, without its prior and its floor under |θ|",
        _RISEN,
        average_case.pac_bayes_sigma_adaptive,
        invariant=True,
        needs=average_case.rise_resolved,
    ),
    "gradient-norm": Measure("‖g‖", "Zhao et al. 2022, arXiv 2202.03599", (), first_order.gradient_norm),
    "fisher-rao": Measure(
        "θᵀFθ = Σ_u ⟨∇s_u, θ⟩² / Σ_u w_u, F the empirical Fisher matrix",
        "Liang et al. 2019, arXiv 1711.01530",
        (),
        first_order.fisher_rao,
        invariant=True,
        needs=first_order.units_given,
    ),
    "lambda-max": Measure(
        "the largest eigenvalue of H, by Lanczos",
        "Dinh et al. 2017, arXiv 1703.04933",
        ("seed",),
        second_order.lambda_max,
    ),
    "trace": Measure(
        "tr H = E zᵀHz, z random signs (Hutchinson 1989)",
        "Dinh et al. 2017",
        ("probes", "seed"),
        second_order.trace,
    ),
    "frobenius": Measure(
        "‖H‖_F = √(E ‖Hz‖²), z random signs",
        "Wu et al. 2022, arXiv 2207.02628",
        ("probes", "seed"),
        second_order.frobenius,
    ),
    "relative-flatness-embedding": Measure(
        "Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{s,s'} over the rows w_s of the largest embedding",
        "Petzka et al. 2021, arXiv 2001.00939",
        ("layer", "probes", "seed"),
        second_order.relative_flatness_embedding,
        needs=second_order.embedding,
    ),
    "relative-flatness-last": Measure(
        "the same over the filters of the last layer",
        "Petzka et al. 2021",
        ("layer", "probes", "seed"),
        second_order.relative_flatness_last,
        needs=second_order.last_layer,
    ),
}

"""PAC-Bayes bounds on the loss of noisy weights on new units (users)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import rel_entr
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_objective
from landscape.runtime import progress
from landscape.runtime.arguments import Count, Positive, Seed, Share, checks_arguments
from landscape.runtime.rounding import at_least, between
from landscape.storage.ranges import NOT_NEGATIVE, POSITIVE
from landscape.storage.results import Array, Result, agree, need_numbers, surroundings

SIGMAS = tuple(2.0**k for k in range(-6, 4))
EPSILON = 1e-3
"""The least s of a magnitude-aware posterior, where θ has not moved: as Jiang et al. have it."""
POSTERIORS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "plain": torch.full_like,
    "magnitude-aware": lambda moved, sigma: ((sigma * moved) ** 2 + EPSILON**2).sqrt(),
}
"""The standard deviation s of each coordinate, from θ - θ0 and σ."""
LARGEST, PRECISION = 100.0, 100
_J = np.arange(1, 3001)
VARIANCES = LARGEST * np.exp(-_J / PRECISION)
"""Variances of the priors to choose from: α_j² = c exp(-j/b)."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The posterior of one kind whose bound is the lowest.

    Attributes:
        sigma, prior_sigma: σ, and the prior's α.
        kl: KL(Q‖P) in nats; `kl_per_unit` is KL/m.
        kl_distance, kl_variance: the two parts of KL: ‖θ - θ0‖²/2α², and the rest.
        loss, loss_limit: the expected loss on the units: the mean of the draws, and the most it can be.
        bound: on the expected loss on new units.
        vacuous: whether the bound is not below the loss of a guess.
        trivial: whether the bound is 1 (in float64).
        excess: how many times too large KL is, at the best σ, for any bound of this kind to be below the loss
            of a guess. Inf where even KL = 0 would not be small enough.
        excess_sigma: that σ.
    """

    sigma: float
    prior_sigma: float
    kl: float
    kl_per_unit: float
    kl_distance: float
    kl_variance: float
    loss: float
    loss_limit: float
    bound: float
    vacuous: bool
    trivial: bool
    excess: float
    excess_sigma: float


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Bound(Result):
    """Bounds on the expected loss of random weights, for kinds of posterior (rows) and values of σ (columns).

    Attributes:
        loss: L(θ) on the units of the bound, without noise.
        units: number of units m.
        guess: the loss of a random guess; a bound that is not below it is vacuous.
        distance: ‖θ - θ0‖, θ0 the prior's mean.
        kinds: names of the rows.
        sigmas: σ, shape (S,).
        prior_sigmas, kls: the prior's α, and KL(Q‖P) in nats, shape (kinds, S).
        losses, loss_limits: the expected loss on the units: the mean of the draws, and the most it can be.
            Shape (kinds, S).
        bounds: on the expected loss on new units; all of them hold at once. Shape (kinds, S).
        kl_allowed: below this KL the bound would be below `guess`; 0 if no KL will do. Shape (kinds, S).
    """

    loss: float
    units: Annotated[int, POSITIVE]
    guess: float
    distance: Annotated[float, NOT_NEGATIVE]
    kinds: Sequence[str]
    sigmas: Annotated[Array, POSITIVE]
    prior_sigmas: Annotated[Array, POSITIVE]
    kls: Annotated[Array, NOT_NEGATIVE]
    losses: Array
    loss_limits: Array
    bounds: Array
    kl_allowed: Annotated[Array, NOT_NEGATIVE]

    def check(self) -> None:
        grid = (len(self.kinds), self.sigmas.size)
        tables = self.prior_sigmas, self.kls, self.losses, self.loss_limits, self.bounds, self.kl_allowed
        agree(self.sigmas.ndim == 1, min(grid) > 0, *(table.shape == grid for table in tables))
        need_numbers(self.settings, "delta")

    @property
    def posteriors(self) -> dict[str, Posterior]:
        """For each kind, the posterior with the lowest bound; of equal ones, that with the least excess."""
        return {kind: self._best(row) for row, kind in enumerate(self.kinds)}

    def _best(self, row: int) -> Posterior:
        kls, allowed = self.kls[row], self.kl_allowed[row]
        excess = np.divide(kls, allowed, out=np.full(allowed.shape, np.inf), where=allowed > 0)
        nearest = int(np.argmin(excess))
        best = int(np.lexsort((excess, self.bounds[row]))[0])
        kl, prior_sigma, bound = (
            float(table[row, best]) for table in (self.kls, self.prior_sigmas, self.bounds)
        )
        by_distance = self.distance**2 / (2 * prior_sigma**2)
        return Posterior(
            sigma=float(self.sigmas[best]),
            prior_sigma=prior_sigma,
            kl=kl,
            kl_per_unit=kl / self.units,
            kl_distance=by_distance,
            kl_variance=kl - by_distance,
            loss=float(self.losses[row, best]),
            loss_limit=float(self.loss_limits[row, best]),
            bound=bound,
            vacuous=bound >= self.guess,
            trivial=bound >= 1,
            excess=float(excess[nearest]),
            excess_sigma=float(self.sigmas[nearest]),
        )

    @property
    def vacuous(self) -> bool:
        """Whether no bound is below `guess`."""
        return bool(self.bounds.min() >= self.guess)

    @property
    def statement(self) -> str:
        """One sentence: what the lowest bound says, and whether it is vacuous."""
        rows = self.posteriors
        kind, best = min(rows.items(), key=lambda item: item[1].bound)
        sure = 1 - Decimal(str(self.settings["delta"]))
        bound = between(0, best.bound, 4)[1]
        said = (
            f"With probability {sure:f} over the draw of {self.units:,} units, "
            f"weights with {kind} noise of σ = {best.sigma:g} have an expected loss of at most {bound}, "
        )
        if not self.vacuous:
            return said + f"below the {self.guess:g} of a random guess: not vacuous."
        said += f"which is vacuous, since a random guess has {self.guess:g}; "
        kind, nearest = min(rows.items(), key=lambda item: item[1].excess)
        if not np.isfinite(nearest.excess):
            return said + "even KL(Q‖P) = 0 would not be small enough at any σ."
        factor = at_least(nearest.excess, 3)
        return said + (
            f"for a bound below that, KL(Q‖P) is too large by a factor of {factor} at best "
            f"({kind}, σ = {nearest.excess_sigma:g})."
        )


@checks_arguments
def pac_bayes_bound(
    objective: Objective,
    prior: Tensor | None = None,
    *,
    sigmas: Sequence[Positive] = SIGMAS,
    delta: Share = 0.05,
    samples: Count = 400,
    guess: Share = 0.5,
    seed: Seed = 0,
) -> Bound:
    """Bound the expected loss of weights drawn from Q = N(θ, diag s²), for a loss in [0, 1].

    With probability 1 - δ over m independent units and the draws from Q, for all posteriors at once,

        kl(Ê_Q ‖ E_Q) <= (KL(Q‖P) + ln(π²j²/6) + ln(4√m/δ)) / m,   P = N(θ0, α_j² I)

    where Ê_Q and E_Q are the expected loss on these units and on new ones, and kl is that of two coins
    (Seeger 2002; Maurer 2004, arXiv cs/0411099; for every m by Germain et al. 2015, arXiv 1503.08329).
    The prior's variance is the best of α_j² = c exp(-j/b), and ln(π²j²/6) pays for the choice (Langford &
    Caruana 2001; Dziugaite & Roy 2017, arXiv 1703.11008, section 3). That of the posterior is free, since the
    inequality holds for all at once. Ê_Q is known from draws alone: n of them, of mean X, leave
    kl(X ‖ Ê_Q) <= ln(2K/δ) / n for all K posteriors (Langford & Caruana 2001; Chernoff's bound of one side).
    Each of the two inequalities takes half of δ. Each batch has its own draws, so that a pass over B batches
    is B draws and not one, and all posteriors share them.

    Posteriors are `plain`, s = σ, and `magnitude-aware`, s_i² = σ² (θ_i - θ0_i)² + ε² with ε = 0.001
    (Neyshabur et al. 2017, arXiv 1706.08947; Jiang et al. 2020, arXiv 1912.02178).

    The bound is on the loss of the random weights, not on that of θ. The units must be independent, and new
    units must come from the same distribution. Neither θ0 nor anything else that the loss reads outside θ
    (parameters held fixed, running means of BatchNorm) may depend on them.

    Args:
        objective: its loss has units in [0, 1], each of weight 1.
        prior: θ0, shape (numel,); zero if not given.
        sigmas: σ of the posteriors.
        delta: the probability δ with which the bound may fail.
        samples: draws from each Q, at least; as many passes over the batches as that takes.
        guess: the loss of a random guess: 1/2 for two classes, or for a pair.
        seed: random seed of the draws.

    Returns:
        The bounds, on the same scale as the loss, of both kinds of posterior and all σ.

    Raises:
        InputError: δ or `guess` is not between 0 and 1, a σ is not positive and finite or there is none,
            there are no samples, θ0 is not finite or not of θ's shape, a unit's loss is not in [0, 1] or
            its weight not 1, at θ or at a draw, or depends on other units, or ranks share the batches.
    """
    need_objective(objective)
    if objective.ranks.size > 1:
        raise InputError("a bound takes all units; give the objective that is not distributed to ranks")
    told = objective.provenance
    if told.get("mode", "").startswith("training") or told.get("statistics") == "recomputed":
        raise InputError(
            "in training mode, and with recomputed statistics, a unit's loss depends on the units beside it; "
            "a bound needs the model in eval mode, with statistics that are kept"
        )
    _check(objective.theta, prior)
    started, theta = time.perf_counter(), objective.theta
    at_theta = [_losses(batch, theta) for batch in objective.per_batch()]
    sizes = np.array([len(losses) for losses in at_theta])
    m, passes = int(sizes.sum()), ceil(samples / len(sizes))

    moved = theta if prior is None else theta - prior.to(theta)
    losses = _sums(objective, moved, sigmas, passes, seed) / (passes * m)
    # A smaller batch is a draw of a smaller stake. Chernoff's bound then holds with the number of times that
    # the largest stake goes into the whole, as ln E exp(tX) grows at least in proportion to |t|.
    draws = passes * m / int(sizes.max())
    limits = kl_inverse(losses, np.log(2 * losses.size / delta) / draws)

    fees = np.log(np.pi**2 * _J**2 / 6) + np.log(4 * m**0.5 / delta)
    kls, chosen = _divergences(moved, sigmas, fees)
    allowed = np.maximum(m * binary_kl(limits, guess) - fees[chosen], 0)
    return Bound(
        loss=float(np.concatenate(at_theta).mean()),
        units=m,
        guess=guess,
        distance=float(moved.double().norm()),
        kinds=list(POSTERIORS),
        sigmas=np.array(sigmas, float),
        prior_sigmas=VARIANCES[chosen] ** 0.5,
        kls=kls,
        losses=losses,
        loss_limits=limits,
        bounds=kl_inverse(limits, (kls + fees[chosen]) / m),
        kl_allowed=np.where(limits < guess, allowed, 0),
        settings={
            "delta": delta,
            "samples": samples,
            "passes": passes,
            "draws": draws,
            "prior": "zero" if prior is None else "given",
            "prior_variances": {"largest": LARGEST, "precision": PRECISION, "count": len(VARIANCES)},
            "epsilon": EPSILON,
            "seed": seed,
        },
        provenance=objective.provenance | surroundings(theta.device),
        seconds=time.perf_counter() - started,
    )


def _check(theta: Tensor, prior: Tensor | None) -> None:
    if prior is None:
        return
    if not (isinstance(prior, Tensor) and prior.shape == theta.shape and prior.isfinite().all()):
        raise InputError(f"the prior's mean must be a finite tensor of shape ({len(theta)},), as θ is")


def binary_kl(p: Array | float, q: Array | float) -> Array:
    """Return kl(p‖q) = p ln(p/q) + (1 - p) ln((1 - p)/(1 - q)), of two coins."""
    return np.asarray(rel_entr(p, q) + rel_entr(np.subtract(1, p), np.subtract(1, q)))


def kl_inverse(p: Array | float, c: Array | float) -> Array:
    """Return the largest q with kl(p‖q) <= c, rounded up: what an expectation is at most, given a mean p."""
    low, c = np.broadcast_arrays(np.asarray(p, float), np.asarray(c, float))
    high = np.ones_like(low)
    for _ in range(100):  # halvings: to the last bit, and far below it for a p near 0
        middle = (low + high) / 2
        inside = binary_kl(p, middle) <= c
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def gaussian_kl(moved: Tensor, scale: Tensor, variances: Array) -> Array:
    """Return KL(N(θ, diag s²) ‖ N(θ0, α²I)) = ½ Σ [(s_i² + (θ_i - θ0_i)²)/α² - 1 - ln(s_i²/α²)], in nats.

    Args:
        moved: θ - θ0, shape (numel,).
        scale: s, shape (numel,).
        variances: α² of priors; any shape, which is that of the result.
    """
    s = scale.double()
    squares = float(s.square().sum() + moved.double().square().sum())
    logs = 2 * float(s.log().sum())
    found: Array = (squares / variances + len(moved) * (np.log(variances) - 1) - logs) / 2
    return found


def _divergences(moved: Tensor, sigmas: Sequence[float], fees: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return KL(Q‖P) with the best prior for each posterior, and which that is, shape (kinds, S) both.

    Args:
        fees: what choosing each of `VARIANCES` costs.
    """
    kls = np.array(
        [
            [gaussian_kl(moved, scale(moved, sigma), VARIANCES) for sigma in sigmas]
            for scale in POSTERIORS.values()
        ]
    )
    chosen = np.argmin(kls + fees, axis=2)
    return np.take_along_axis(kls, chosen[..., None], 2)[..., 0], chosen


def _sums(objective: Objective, moved: Tensor, sigmas: Sequence[float], passes: int, seed: int) -> Array:
    """Sum the losses of all units at draws from each posterior, over all passes. Shape (kinds, S)."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(POSTERIORS), len(sigmas)))
    with progress.bar("draws", passes * len(objective.batches)) as advance:
        for _ in range(passes):
            for batch in objective.per_batch():
                z = torch.from_numpy(rng.standard_normal(len(moved))).to(moved)
                for row, scale in enumerate(POSTERIORS.values()):
                    for column, sigma in enumerate(sigmas):
                        theta = torch.addcmul(objective.theta, scale(moved, sigma), z)
                        sums[row, column] += _losses(batch, theta).sum()
                advance()
    return sums


def _losses(objective: Objective, theta: Tensor) -> Array:
    """Return each unit's loss, shape (units,), if they are what is bounded."""
    sums, weights = objective.per_example(theta)
    if len(other := weights[weights != 1]):
        raise InputError(f"a bound needs units of weight 1; one here has weight {other[0]:g}")
    if len(outside := sums[~((sums >= 0) & (sums <= 1))]):
        raise InputError(f"a bound needs a loss in [0, 1]; one unit here has {outside[0]:g}")
    return sums

"""Variants of SAM: which direction is climbed, and which gradient drives the step. One class each."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samrec.sam.vectors import Vector, combined, copies, dot, norm, where

ROUNDINGS = 4
"""What is left where a vector cancels is rounding up to this many eps of its length: twice what was seen."""


@dataclass(frozen=True)
class Variant:
    """SAM itself: climb along the gradient g at w, step by the gradient g⁺ above w.

    A variant changes one or more of the three methods. What it has to remember from one step to the next
    travels through them as `memory` and is saved by `SAM.state_dict`.
    """

    name: ClassVar[str] = "sam"
    every: ClassVar[int] = 1  # SAM's `every`, where none is given
    compares: ClassVar[bool] = False  # whether `descent` needs the gradient at w beside that above
    mixes: ClassVar[bool] = False  # whether gradients at w are added to others, which must have their scale
    moves_between: ClassVar[bool] = True  # with `every`: whether steps between climb by the kept direction

    def check(self, every: int) -> None:
        """Raise ValueError if `every` does not suit the variant."""

    def ascent(self, gradient: Vector, memory: Vector) -> tuple[Vector, Vector]:
        """Return the direction to climb, of any length, and the new memory."""
        return gradient, memory

    def descent(self, above: Vector, below: Vector) -> tuple[Vector, Vector]:
        """Return the gradient to step by, and the new memory; called if `compares`."""
        raise NotImplementedError

    def between(self, gradient: Vector, memory: Vector) -> Vector:
        """Return the gradient to step by where w did not move; called unless `moves_between`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Friendly(Variant):
    """F-SAM (Li et al., CVPR 2024, arXiv 2403.12350): climb by the noise of the batch's gradient.

    m ← λ m + (1 - λ) g with m = 0 at first; e = ρ d/‖d‖ with d = g - σ m. The mean m stands for the
    gradient of all data.

    Args:
        sigma: σ, how much of the mean is taken off (the paper: 1).
        decay: λ, at least 0 and below 1; the authors' runs have 0.6 and 0.95. Not 0 with σ = 1, where d is 0.
    """

    sigma: float = 1.0
    decay: float = 0.9
    name: ClassVar[str] = "friendly"
    mixes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must be at least 0 and below 1")
        if self.sigma * (1 - self.decay) == 1:
            raise ValueError(
                f"sigma {self.sigma} with decay {self.decay} leaves nothing of the first gradient"
            )

    def ascent(self, gradient: Vector, memory: Vector) -> tuple[Vector, Vector]:
        kept = combined({}, memory, self.decay)
        mean = combined(kept, gradient, 1 - self.decay)
        of_batch = {p: mean[p] for p in gradient}
        return _beyond_rounding(combined(gradient, of_batch, -self.sigma), gradient), mean


@dataclass(frozen=True)
class GSAM(Variant):
    """GSAM (Zhuang et al., ICLR 2022, arXiv 2203.08065): lower the gap L(w + e) - L(w) as well.

    Step by g⁺ - α g⊥, where g⊥ = g - (⟨g, g⁺⟩ / ‖g⁺‖²) g⁺ is the part of g across g⁺ (algorithm 1).

    Args:
        alpha: α, the weight of the gap; 0 is SAM. To be tuned.
    """

    alpha: float = 0.4
    name: ClassVar[str] = "gsam"
    compares: ClassVar[bool] = True
    mixes: ClassVar[bool] = True

    def check(self, every: int) -> None:
        if every > 1:
            raise ValueError(f"every is {every}; GSAM needs the gradient at w in each step, so it must be 1")

    def descent(self, above: Vector, below: Vector) -> tuple[Vector, Vector]:
        return combined(above, across(below, above), -self.alpha), {}


@dataclass(frozen=True)
class LookSAM(Variant):
    """LookSAM (Liu et al., CVPR 2022, arXiv 2203.02714): SAM in one step of k, which is `every`.

    SAM's step keeps gᵥ = g⁺ - (⟨g⁺, g⟩ / ‖g‖²) g, the part of g⁺ across g; a step between costs one pass,
    at w, and is by g + α (‖g‖ / ‖gᵥ‖) gᵥ (algorithm 1), over the parameters that have a gradient: one that
    the batch does not use, or that is frozen by now, stays as it is. Where nothing of g⁺ is across g but
    rounding, as where the radius is 0, gᵥ is 0: it would be scaled up to α ‖g‖.

    Args:
        alpha: α (the paper: 0.7, with k = 5, which is `every` where none is given).
    """

    alpha: float = 0.7
    name: ClassVar[str] = "looksam"
    every: ClassVar[int] = 5
    compares: ClassVar[bool] = True
    moves_between: ClassVar[bool] = False

    def check(self, every: int) -> None:
        if every == 1:
            raise ValueError(
                "every is 1; LookSAM climbs in one step of several, and each is SAM's own otherwise"
            )

    def descent(self, above: Vector, below: Vector) -> tuple[Vector, Vector]:
        alone = {p: g for p, g in above.items() if p not in below}  # has another owner, and nothing to cross
        return above, _beyond_rounding(across(above, below) | copies(alone), above)

    def between(self, gradient: Vector, memory: Vector) -> Vector:
        kept = {p: memory[p] for p in gradient if p in memory}
        return combined(gradient, kept, self.alpha * _ratio(norm(gradient.values()), norm(kept.values())))


VARIANTS: dict[str, type[Variant]] = {kind.name: kind for kind in (Variant, Friendly, GSAM, LookSAM)}


def variant_of(choice: str | Variant) -> Variant:
    """Return the variant, or that of this name with the paper's settings.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(choice, Variant):
        return choice
    if choice not in VARIANTS:
        raise ValueError(f"variant is {choice!r}; choose from {', '.join(map(repr, VARIANTS))}")
    return VARIANTS[choice]()


def across(a: Vector, b: Vector) -> Vector:
    """Return the part of `a` that is orthogonal to `b`; all of it where b is 0."""
    return combined(a, b, -_ratio(dot(a, b), dot(b, b)))


def _beyond_rounding(part: Vector, whole: Vector) -> Vector:
    """Return what is left of a vector; 0 where that is no longer than rounding leaves."""
    eps = max((torch.finfo(t.dtype).eps for t in whole.values()), default=0.0)
    length = norm(part.values())
    rounded = length <= ROUNDINGS * eps * norm(whole.values()).to(length.device)
    return {p: where(~rounded, t) for p, t in part.items()}  # a NaN stays


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above.to(below.device) / below, 0.0)

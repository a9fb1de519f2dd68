"""The worst perturbation within a ball: δ = C u with ‖u‖ <= r, C diagonal."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.flatness.point import Point
from landscape.runtime import progress

SHORT = 1e-30
"""Below this, the square of a length, or a radius over it, may be no number in its precision."""


class Ball(Protocol):
    """Where u may lie."""

    def furthest(self, along: Tensor) -> Tensor:
        """Return the point of the ball that is furthest along a vector; 0 where that is 0."""
        ...

    def project(self, u: Tensor) -> Tensor:
        """Return the point of the ball that is nearest to u."""
        ...


@dataclass(frozen=True)
class Sphere:
    """‖u‖₂ <= radius."""

    radius: float

    def furthest(self, along: Tensor) -> Tensor:
        length = float(along.double().norm())
        if length < SHORT and along.any():
            return self.furthest(along / along.abs().max())
        return along * (self.radius / length) if length else along

    def project(self, u: Tensor) -> Tensor:
        length = float(u.double().norm())
        return u * (self.radius / length) if length > self.radius else u


@dataclass(frozen=True)
class Box:
    """max |u_i| <= 1, which C gives its sides."""

    def furthest(self, along: Tensor) -> Tensor:
        return along.sign()  # 0 where that is no number

    def project(self, u: Tensor) -> Tensor:
        return u.clamp(-1, 1)


def one_step(gradient: Tensor, rho: float, scale: Tensor) -> Tensor:
    """Return SAM's perturbation, to first order the worst: δ = ρ C² g / ‖C g‖, g = ∇L(θ).

    With C = I it is SAM's (Foret et al. 2021, eq. 2), with C = diag |θ| ASAM's (Kwon et al. 2021, eq. 6).
    Where the gradient is zero, so is δ; where it is no number, neither is δ.
    """
    return scale * Sphere(rho).furthest(scale * gradient)


def projected_ascent(point: Point, ball: Ball, scale: Tensor) -> tuple[Tensor, float]:
    """Return the best δ met by projected gradient ascent on L(θ + C u), and L there.

    u <- P(u + s), s the point of the ball furthest along the gradient with respect to u, and P the projection
    on the ball: unit gradients times ρ in a sphere, signs in a box. It starts from s, or from a random point
    of the boundary where the gradient is zero, so a saddle or an exact minimum is left as well. It ends where
    L is not finite: then there is no worst, and that L is returned.
    """
    steps = point.settings.steps
    u = ball.furthest(scale * point.gradient)
    if not u.any():
        drawn = np.random.default_rng(point.settings.seed).standard_normal(u.numel())
        u = ball.furthest(torch.from_numpy(drawn).to(u))
    best, highest = torch.zeros_like(u), point.loss
    with progress.bar("projected ascent", steps + 1) as advance:
        for step in range(steps + 1):
            value, grad = point.objective.value_and_grad(point.theta + scale * u)
            if value > highest or not math.isfinite(value):
                best, highest = u, value
            if not math.isfinite(highest):
                break
            if step < steps:
                u = ball.project(u + ball.furthest(scale * grad).nan_to_num())  # without a gradient, no step
            advance()
    return scale * best, highest

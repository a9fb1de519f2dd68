"""The worst perturbation within a ball: δ = C u with ‖u‖ <= ρ, C diagonal."""

import numpy as np
import torch
from torch import Tensor

from landscape.objective import Objective


def one_step(objective: Objective, rho: float, scale: Tensor) -> Tensor:
    """Return SAM's perturbation, to first order the worst: δ = ρ C² g / ‖C g‖, g = ∇L(θ).

    With C = I it is SAM's (Foret et al. 2021, eq. 2), with C = diag |θ| ASAM's (Kwon et al. 2021, eq. 6).
    Where the gradient is zero, so is δ.
    """
    return scale * _on_sphere(scale * objective.grad(), rho)


def projected_ascent(
    objective: Objective, rho: float, scale: Tensor, steps: int, seed: int
) -> tuple[Tensor, float]:
    """Return the best δ met by projected gradient ascent on L(θ + C u), and L there.

    u <- P(u + ρ ĝ), ĝ the unit gradient with respect to u and P the projection on the ball of radius ρ.
    It starts from SAM's step, or from a random point of the sphere where the gradient is zero, so a
    saddle or an exact minimum is left as well.
    """
    u = _on_sphere(scale * objective.grad(), rho)
    if not u.any():
        drawn = np.random.default_rng(seed).standard_normal(objective.params.numel)
        u = _on_sphere(torch.from_numpy(drawn).to(u), rho)
    best, highest = torch.zeros_like(u), objective.value()
    for step in range(steps + 1):
        value, grad = objective.value_and_grad(objective.theta + scale * u)
        if value > highest:
            best, highest = u, value
        if step < steps:
            u = u + _on_sphere(scale * grad, rho)
            length = float(u.double().norm())
            u = u * (rho / length) if length > rho else u
    return scale * best, highest


def _on_sphere(vector: Tensor, rho: float) -> Tensor:
    length = float(vector.double().norm())
    return vector * (rho / length) if length > 0 else torch.zeros_like(vector)

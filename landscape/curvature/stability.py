"""The sharpness at which an optimizer's steps stop being stable, from its settings and its state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.objective.params import ParamSpace
from landscape.runtime.arguments import LARGEST

ADAMS = (torch.optim.Adam, torch.optim.AdamW)


@dataclass(frozen=True)
class Edge:
    """Where the edge of stability is.

    Attributes:
        threshold: on a quadratic loss, steps are stable while λmax of P⁻¹H is below it.
        scale: P^(-1/2), shape (n,); P⁻¹H has the eigenvalues of the symmetric P^(-1/2) H P^(-1/2). None
            where P is the identity.
    """

    threshold: float
    scale: Tensor | None = None


def edge_of(optimizer: Optimizer, model: nn.Module, space: ParamSpace, gradient_norm: float) -> Edge | None:
    """Return the edge of stability of an optimizer at its present state.

    | optimizer | P | threshold |
    |---|---|---|
    | gradient descent | I | 2/η |
    | with momentum β and dampening d | I | (2 + 2β) / ((1 - d) η) |
    | Nesterov's | I | (2 + 2β) / ((1 + 2β) η) |
    | SAM of radius ρ around gradient descent | I | ‖∇L‖/(2ρ) (√(1 + 8ρ/(η‖∇L‖)) - 1) |
    | Adam, AdamW | (1 - β₁ᵗ) (√(v/(1 - β₂ᵗ)) + ε) | (2 + 2β₁) / ((1 - β₁) η) |

    Cohen et al. 2021 (arXiv 2103.00065, momentum in appendix B); Cohen et al. 2022 (arXiv 2207.14484),
    for P, and 38/η where β₁ = 0.9; Long & Bartlett 2024 (arXiv 2309.12488) for SAM, which is recognized
    by the name of its class, a `base` or `base_optimizer`, and a radius `rho`. If groups of parameters have
    different η, their ratios to that of the first are part of P. Weight decay is not part of L, and shifts λ
    by its strength.

    Args:
        optimizer: torch's `SGD`, `Adam` or `AdamW`, or SAM around one. It is only read.
        model: whose parameters it steps.
        space: the parameters that take part in L, in the order of θ.
        gradient_norm: ‖∇L(θ)‖, for SAM.

    Returns:
        The edge; None for another optimizer, for settings without a known one (groups with different betas
        or momenta, SAM around anything but plain gradient descent, its variants, SAM of some parameters,
        ascent), an η that is not a number from 1e-100 to 1e100, and Adam before its first step.
    """
    inner = getattr(optimizer, "base", getattr(optimizer, "base_optimizer", optimizer))
    radius = 0.0 if inner is optimizer else _radius(optimizer)
    groups, rate = inner.param_groups, float(inner.param_groups[0]["lr"])
    if not 1 / LARGEST < rate < LARGEST or radius is None or any(group.get("maximize") for group in groups):
        return None
    if isinstance(inner, torch.optim.SGD) and _equal(groups, "momentum", "dampening", "nesterov"):
        threshold = _of_descent(groups[0], rate)
        if radius and (groups[0]["momentum"] or not gradient_norm):
            return None
        if radius:
            root = math.sqrt(1 + 8 * radius / (rate * gradient_norm))
            threshold = gradient_norm / (2 * radius) * (root - 1)
        inverse = {p: p.new_tensor(1.0) for group in groups for p in group["params"]}
    elif isinstance(inner, ADAMS) and not radius and _equal(groups, "betas", "eps", "amsgrad"):
        beta = float(groups[0]["betas"][0])
        threshold = (2 + 2 * beta) / ((1 - beta) * rate)
        inverse = {
            p: _adam(inner.state[p], group)
            for group in groups
            for p in group["params"]
            if inner.state.get(p)  # without a gradient so far it does not move
        }
    else:
        return None
    if not inverse:
        return None
    rates = {p: float(group["lr"]) / rate for group in groups for p in group["params"]}
    return Edge(threshold, _scale(inverse, rates, dict(model.named_parameters()), space))


def _scale(
    inverse: Mapping[Tensor, Tensor],
    rates: Mapping[Tensor, float],
    named: Mapping[str, Tensor],
    space: ParamSpace,
) -> Tensor | None:
    """Return P^(-1/2) from the parts of P⁻¹, 0 where a parameter stands still; None if all are 1."""

    def part(p: Tensor, like: Tensor) -> Tensor:
        return inverse[p].to(like).expand(like.shape) * rates[p] if p in inverse else torch.zeros_like(like)

    whole = space.flat(part(named[name], like) for name, like in space.split(space.theta).items())
    return None if bool((whole == 1).all()) else whole.sqrt()


def _equal(groups: Sequence[Mapping[str, Any]], *names: str) -> bool:
    return all(group[name] == groups[0][name] for group in groups for name in names)


def _of_descent(group: Mapping[str, Any], rate: float) -> float:
    beta = group["momentum"]
    shrunk = 1 + 2 * beta if group["nesterov"] else 1 - group["dampening"] if beta else 1.0
    return float((2 + 2 * beta) / (shrunk * rate))


def _radius(optimizer: Any) -> float | None:
    """Return the radius of what wraps an optimizer; None if it is not 0, and that is not SAM itself."""
    groups = optimizer.param_groups
    radii = {float(group["rho"]) for group in groups if "rho" in group}
    if len(radii) != 1:
        return None
    itself = (
        any(kind.__name__ == "SAM" for kind in type(optimizer).__mro__)
        and getattr(getattr(optimizer, "variant", None), "name", "sam") == "sam"
        and getattr(optimizer, "every", 1) == 1
        and not getattr(optimizer, "adaptive", False)
        and all(group.get("perturb", True) and not group.get("adaptive", False) for group in groups)
    )
    radius = radii.pop()
    return radius if itself or not radius else None


def _adam(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """Return 1 / P of a parameter; its shape."""
    (first, second), step = group["betas"], float(state["step"])
    squares: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    preconditioner: Tensor = (1 - first**step) * ((squares / (1 - second**step)).sqrt() + group["eps"])
    return preconditioner.detach().reciprocal()

"""Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412), for any torch optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT


class SAM(Optimizer):
    """Minimizes the worst loss within a ball of radius rho: min_w max_{‖e‖ <= rho} L(w + e).

    The inner maximum is taken to first order, e = rho g / ‖g‖ with g the gradient over all parameters
    (eq. 2); the gradient at w + e then drives the wrapped optimizer at w.

        optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.1, lr=1e-3)
        loss = optimizer.step(closure)      # closure: zero_grad, loss, backward, return loss

    or, in two steps, `loss.backward(); optimizer.first_step()`, and after the same on the moved weights
    `optimizer.second_step()`. `step` replays the random numbers of the first pass in the second, so both
    see one dropout mask; a closure must see to it that both see one batch.

    Args:
        params: as for any torch optimizer.
        base_optimizer: the class of the optimizer to wrap; `defaults` are its arguments.
        rho: radius of the ball, in the Euclidean norm of all parameters together; 0 is the plain optimizer.

    Raises:
        ValueError: rho is negative or not finite.
    """

    def __init__(
        self, params: ParamsT, base_optimizer: Callable[..., Optimizer], rho: float = 0.05, **defaults: Any
    ) -> None:
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho is {rho}; it must be a finite number, at least 0")
        super().__init__(params, dict(defaults))
        self.rho = rho
        self.base = base_optimizer(self.param_groups, **defaults)
        # One set of groups and one state: schedulers, state_dict and load_state_dict see the wrapped
        # optimizer's own, moments included.
        self.param_groups = self.base.param_groups
        self.state = self.base.state
        self._saved: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def first_step(self) -> None:
        """Move the weights uphill, to w + rho g / ‖g‖, and clear the gradients.

        Where the gradient is zero nothing moves.
        """
        with_grad = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in with_grad])
        scale = torch.where(norm > 0, self.rho / norm, 0.0)
        for p in with_grad:
            self._saved.append((p, p.detach().clone()))
            p.add_(p.grad * scale.to(p.device))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Put the weights back, bit for bit, and let the wrapped optimizer step with the new gradients."""
        self._restore()
        self.base.step()

    def _restore(self) -> None:
        for p, before in self._saved:
            p.copy_(before)
        self._saved.clear()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """Take both passes; return the loss at w (not at w + e).

        If the second pass raises, the weights are back at w before the exception leaves.
        """
        if closure is None:
            raise ValueError("SAM evaluates the loss twice: step needs a closure that does the backward pass")
        with torch.enable_grad():
            if self.rho == 0:
                loss = closure()
            else:
                device = self.param_groups[0]["params"][0].device
                random = _random_state(device)
                loss = closure()
                self.first_step()
                _set_random_state(device, random)
                try:
                    closure()
                except BaseException:
                    with torch.no_grad():
                        self._restore()
                    raise
        self.second_step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapped optimizer's state and groups, and rho."""
        return {**self.base.state_dict(), "rho": self.rho}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.rho = state_dict["rho"]
        self.base.load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        self.param_groups = self.base.param_groups
        self.state = self.base.state


def _random_state(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)

"""Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412), for any torch optimizer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

Closure = Callable[[], Tensor]


class SAM(Optimizer):
    """Minimizes the worst loss within a ball of radius rho: min_w max_{‖e‖ <= rho} L(w + e).

    The inner maximum is taken to first order, e = rho g / ‖g‖ with g the gradient over all parameters
    (eq. 2); the gradient at w + e then drives the wrapped optimizer at w.

        optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.1, lr=1e-3)
        loss = optimizer.step(closure)      # closure: zero_grad, loss, backward, return loss

    or in two steps:

        loss.backward()
        optimizer.first_step()              # to w + e, gradients cleared
        loss_above.backward()
        optimizer.second_step()             # back to w, and the wrapped optimizer's step from there

    `step` replays the random numbers of the first pass in the second, so both see one dropout mask; a
    closure must see to it that both see one batch.

    - *A choice of parameters*: a group with `"perturb": False` is optimized, and not moved by e.
    - *m-sharpness* (section 4.1): `step([closure, …])`, one closure a micro-batch. Each climbs by its own
      gradient, and the gradients above are added up, so the losses should be shares of the batch's.
    - *Accumulation*: a closure that calls backward for several micro-batches climbs by their sum.
    - *Clipping* belongs to the gradient above w, since e does not depend on the gradient's length:
      `optimizer.base.register_step_pre_hook(lambda *_: clip_grad_norm_(parameters, 1.0))`.
    - *bfloat16*: put `torch.autocast` into the closure; weights and e stay in float32.
    - *A schedule for rho*: set `optimizer.rho` between steps.

    Args:
        params: as for any torch optimizer.
        base_optimizer: the class of the optimizer to wrap; `defaults` are its arguments.
        rho: radius of the ball, in the Euclidean norm of all perturbed parameters together; 0 is the
            plain optimizer. A tensor on the parameters' device may be given, to be set without a wait.
        adaptive: measure the ball in units of the weights' own size (ASAM: Kwon et al., ICML 2021,
            arXiv 2102.11600): e = rho T² g / ‖T g‖ with T = diag(|w| + 0.01).
        every: compute the direction of e in one step of so many, and use it again in those between,
            which then cost no more than a plain step.

    Raises:
        ValueError: rho is negative or not finite, or `every` is less than 1.
    """

    ETA = 0.01  # of ASAM's T, the paper's: weights at 0 can move too

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: Callable[..., Optimizer],
        rho: float | Tensor = 0.05,
        *,
        adaptive: bool = False,
        every: int = 1,
        **defaults: Any,
    ) -> None:
        radii = torch.as_tensor(rho)
        if not (radii.isfinite() & (radii >= 0)).all():
            raise ValueError(f"rho is {rho}; it must be a finite number, at least 0")
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        super().__init__(params, dict(defaults))
        self.rho = rho
        self.adaptive = adaptive
        self.every = every
        self.base = base_optimizer(self.param_groups, **defaults)
        # One set of groups and one state: schedulers, state_dict and load_state_dict see the wrapped
        # optimizer's own, moments included.
        self.param_groups = self.base.param_groups
        self.state = self.base.state
        self._steps = 0
        self._directions: list[Tensor | None] = []  # of every perturbed parameter; None without a gradient
        self._inverse = torch.zeros(())
        self._saved: list[tuple[Tensor, Tensor]] = []

    @property
    def climbs(self) -> bool:
        """Whether the next step needs a gradient at w: not where the radius is 0 or a direction is kept."""
        return not self._plain and (self._steps % self.every == 0 or not self._directions)

    @property
    def reuses(self) -> bool:
        """Whether the next step takes the kept direction again, and so never sees the loss at w."""
        return not self._plain and not self.climbs

    @property
    def _plain(self) -> bool:
        return not isinstance(self.rho, Tensor) and self.rho == 0  # to look at a tensor would wait for it

    @torch.no_grad()
    def first_step(self) -> None:
        """Move the weights uphill, to w + e, and clear the gradients.

        Where `climbs` is false the kept direction is taken, and no gradient is needed. Where the gradient
        is zero, or there is none, nothing moves.
        """
        if self.climbs:
            self._find_direction()
        self._move()
        if self.every == 1:
            self._directions = []  # lets go of the gradients before the second pass makes its own
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Put the weights back, bit for bit, and let the wrapped optimizer step with the new gradients."""
        self._restore()
        self.base.step()
        self._steps += 1

    def step(self, closure: Closure | Sequence[Closure] | None = None) -> Tensor:  # type: ignore[override] # closures
        """Take both passes; return the loss at w, or above it in a step that uses a kept direction again.

        If a pass raises, the weights are back at w before the exception leaves.

        Raises:
            ValueError: there is no closure, or several with `every` above 1.
        """
        if closure is None:
            raise ValueError("SAM evaluates the loss twice: step needs a closure that does the backward pass")
        closures = [closure] if callable(closure) else closure
        if len(closures) > 1 and self.every > 1:
            raise ValueError("every keeps one direction; with several closures each has its own")
        with torch.enable_grad():
            if len(closures) > 1:
                self.zero_grad()
            losses = [self._evaluate(closures[0])]
            if len(closures) > 1:
                gradients = self._take_gradients()
                for other in closures[1:]:
                    losses.append(self._evaluate(other))
                    gradients = [_sum(*pair) for pair in zip(gradients, self._take_gradients(), strict=True)]
                for p, gradient in zip(self._parameters(), gradients, strict=True):
                    p.grad = gradient
        self.second_step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(0)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _take_gradients(self) -> list[Tensor | None]:
        """Take the gradients away, so that the next pass starts without any."""
        taken = [p.grad for p in self._parameters()]
        self.zero_grad()
        return taken

    def _evaluate(self, closure: Closure) -> Tensor:
        """Leave the gradient that drives the step in the parameters, which are back at w."""
        if self._plain:
            return closure()
        loss = None
        if self.climbs:
            device = self.param_groups[0]["params"][0].device
            random = _random_state(device)
            loss = closure()
            self.first_step()
            _set_random_state(device, random)
        else:
            self.first_step()
        try:
            above = closure()
        finally:
            with torch.no_grad():
                self._restore()
        return above if loss is None else loss

    def _find_direction(self) -> None:
        """Keep e / rho, as a vector and the inverse of its length, which need not meet before the move."""
        perturbed = self._perturbed()
        scales = [p.abs() + self.ETA if self.adaptive else None for p in perturbed]
        gradients = [
            p.grad if p.grad is None or scale is None else p.grad * scale
            for p, scale in zip(perturbed, scales, strict=True)
        ]
        norm = self._norm(gradients)
        self._inverse = torch.where(norm > 0, 1 / norm, 0.0)
        self._directions = [
            g if g is None or scale is None else g * scale for g, scale in zip(gradients, scales, strict=True)
        ]

    def _move(self) -> None:
        """Let the parameters hold w + e; w itself stays where it is, to be taken up again."""
        scale = self.rho * self._inverse
        for p, direction in zip(self._perturbed(), self._directions, strict=True):
            if direction is not None:
                self._saved.append((p, p.data))
                p.data = torch.addcmul(p.data, direction, self._along(scale, p))

    def _restore(self) -> None:
        for p, before in self._saved:
            p.data = before
        self._saved.clear()

    def _perturbed(self) -> list[Tensor]:
        return [p for group in self.param_groups if group.get("perturb", True) for p in group["params"]]

    def _norm(self, gradients: list[Tensor | None]) -> Tensor:
        """Return the norm of all perturbed parameters' gradients (or of what stands for them) together."""
        return torch.nn.utils.get_total_norm([g for g in gradients if g is not None])

    def _along(self, scale: Tensor, p: Tensor) -> Tensor:
        return scale.to(p.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapped optimizer's state and groups, and where the ascent stands."""
        ascent: dict[str, Any] = {"rho": self.rho, "steps": self._steps}
        if self._directions:
            ascent |= {"directions": self._directions, "inverse": self._inverse}
        return {**self.base.state_dict(), **ascent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.rho, self._steps = state_dict["rho"], int(state_dict["steps"])
        self.base.load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        self.param_groups = self.base.param_groups
        self.state = self.base.state
        self._directions = []
        if "directions" in state_dict:
            pairs = zip(state_dict["directions"], self._perturbed(), strict=True)
            self._directions = [None if d is None else d.to(p).view_as(p) for d, p in pairs]
            self._inverse = state_dict["inverse"].to(self._perturbed()[0].device)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _random_state(device: torch.device) -> list[Tensor]:
    # A graph that is being captured cannot be asked; it gets its random numbers as inputs, or not at all.
    cuda = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if cuda else [])]


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for on_device in state[1:]:
        torch.cuda.set_rng_state(on_device, device)

"""The optimizer: it climbs, comes back, and lets the one it wraps step."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from samrec.sam import vectors
from samrec.sam.checks import check_radius, closures_of, total, wrapped
from samrec.sam.leftovers import MIXED, NO_BACKWARD, Leftovers, mark
from samrec.sam.randomness import capturing, random_states, set_random_states
from samrec.sam.scaling import Scaler
from samrec.sam.states import by_parameter, listed
from samrec.sam.statistics import RunningStatistics
from samrec.sam.variants import Variant, variant_of
from samrec.sam.vectors import Vector
from samrec.sam.wrapper import Wrapper

Closure = Callable[[], Tensor]


class SAM(Wrapper):
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
    closure must make sure that both see one batch. Either way the running statistics of BatchNorm and its
    kin are those of the first pass alone. Schedulers take SAM itself.

    - *Groups*: each may have its own `rho`: e_i = rho_i g_i / ‖g‖ in group i, with ‖g‖ over all perturbed
      parameters (so ‖e‖ is at most the largest rho). A group with `"perturb": False` is optimized, not
      moved, and not in ‖g‖; one of radius 0 is not moved either, and in ‖g‖. With `maximize` a group
      climbs down: e_i = -rho_i g_i / ‖g‖. Where the wrapped optimizer has a `rho` of its own (Adadelta),
      groups hold SAM's as `sam_rho`.
    - *m-sharpness* (section 4.1): `step([closure, …])`, one closure a micro-batch. Each climbs by its own
      gradient, and the gradients above are added up, so the losses should be shares of the batch's.
    - *Accumulation*: a closure that calls backward for several micro-batches climbs by their sum.
    - *Clipping* belongs to the gradient above w, since e does not depend on the gradient's length:
      `optimizer.base.register_step_pre_hook(clip)`, a function `clip(*_)` that returns nothing.
    - *bfloat16*: put `torch.autocast` into the closure; weights and e stay in float32.
    - *GradScaler*: in two steps, both losses scaled, with `scaler.step(optimizer)` in place of
      `second_step`; `scaler.unscale_(optimizer)` before it, to clip. After an overflow w stays as it is.
      Friendly and GSAM also need `first_step(scale=scaler.get_scale())`.
    - *A schedule for rho*: set `optimizer.rho`, or a group's, between steps.

    Args:
        params: as for any torch optimizer.
        base_optimizer: the class of the optimizer to wrap; `defaults` are its arguments.
        rho: radius of the ball, in the Euclidean norm of all perturbed parameters together; 0 is the
            plain optimizer. A tensor on the parameters' device may be given, to be set without a wait.
        adaptive: measure the ball in units of the weights' own size (ASAM: Kwon et al., ICML 2021,
            arXiv 2102.11600): e = rho T² g / ‖T g‖ with T = diag(|w| + 0.01).
        every: compute the direction of e in every `every`-th step, and use it again in the steps
            between, which then cost no more than a plain step (default: 1; for LookSAM 5).
        variant: "sam", "friendly", "gsam", "looksam", or a `Variant` with settings of its own:
            `samrec.sam.Friendly`, `GSAM`, `LookSAM`, whose docstrings have the formulas.

    Raises:
        ValueError: rho is negative or not finite, `every` is less than 1 or does not suit the variant, there
            is no variant of this name, parameters share their storage, or the wrapped optimizer needs a
            closure (LBFGS).
        TypeError: `base_optimizer` is an optimizer, not a class.
    """

    ETA = 0.01  # of ASAM's T, the paper's: weights at 0 can move too
    _step_supports_amp_scaling = True  # GradScaler then calls `step` after an overflow too, to come back to w

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: Callable[..., Optimizer],
        rho: float | Tensor = 0.05,
        *,
        adaptive: bool = False,
        every: int | None = None,
        variant: str | Variant = "sam",
        **defaults: Any,
    ) -> None:
        check_radius(rho)
        self.variant = variant_of(variant)
        self.every = self.variant.every if every is None else every
        if self.every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        self.variant.check(self.every)
        super().__init__(wrapped(base_optimizer, params, defaults), rho, adaptive)
        self._steps = 0
        self._inverse = torch.zeros(())  # of that length
        self._memory: Vector = {}  # the variant's
        self._new_memory: Vector | None = None  # the variant's, once this step is taken
        self._below: Vector = {}  # gradients at w, for a variant that compares
        self._norm_below: Tensor | None = None
        self._scale: float | Tensor | None = None  # of the gradients at w, if it was said
        self._saved: list[tuple[Tensor, Tensor]] = []
        self._above = False  # between first_step and second_step
        self._statistics = RunningStatistics()

    @property
    def climbs(self) -> bool:
        """Whether the next step needs a gradient at w: not where the radius is 0 or a direction is kept."""
        kept = self._directions if self.variant.moves_between else self._memory
        return not self._plain and (self._steps % self.every == 0 or not kept)

    @property
    def reuses(self) -> bool:
        """Whether the next step takes the kept direction again, and so never sees the loss at w."""
        return not self._plain and not self.climbs and self.variant.moves_between

    @torch.no_grad()
    def first_step(self, zero_grad: bool = True, scale: float | Tensor | None = None) -> None:
        """Move the weights uphill, to w + e, and clear the gradients.

        Where `climbs` is false the kept direction is taken, and no gradient is needed. Where the gradient
        is zero or not finite, there is none, or the radius is 0, nothing moves.

        Args:
            zero_grad: clear the gradients; else the second pass adds to them.
            scale: what the loss was multiplied by, such as a GradScaler's `get_scale()`.

        Raises:
            RuntimeError: the last first_step was not followed by a second_step.
        """
        if self._above:
            raise RuntimeError("the weights are at w + e: call second_step before first_step again")
        self._scale = scale
        self._ascend(guarded=True, zero_grad=zero_grad)
        self._above = True

    def second_step(self, zero_grad: bool = False) -> None:
        """Put the weights back, bit for bit, and let the wrapped optimizer step with the new gradients.

        Where a gradient, of either pass, is not finite, the weights are back at w, and the step is skipped
        with a warning. To see that, it waits for the device; `step` with a closure does not.

        Args:
            zero_grad: clear the gradients after the step.

        Raises:
            RuntimeError: there was no first_step, and rho is not 0.
        """
        if not self._above and not self._plain:
            raise RuntimeError("second_step comes after first_step and the backward pass at w + e")
        if not self._above:
            self.first_step(zero_grad=False)
        self.step()  # which schedulers and hooks watch
        if zero_grad:
            self.zero_grad()

    @overload  # type: ignore[override] # closures
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure | Sequence[Closure]) -> Tensor: ...

    def step(self, closure: Closure | Sequence[Closure] | None = None) -> Tensor | None:
        """Take both passes; return the loss at w, or above it in a step that uses a kept direction again.

        If a pass raises, the weights are back at w before the exception leaves. After first_step no closure
        is needed, as it is second_step then: for GradScaler, and for Lightning, which counts its own `step`
        (there, first_step is of `self.optimizers().optimizer`).

        Raises:
            ValueError: there is no closure, or several with `every` above 1 or a variant; a closure left no
                gradient, or one of several no loss; gradients from before it were added to those of its first
                pass; or the variant needs the scale of a GradScaler, which first_step was not given.
        """
        if self._above:
            return self._second(closure)
        closures = closures_of(closure)
        if Scaler(self):
            raise ValueError("GradScaler takes no closure: call first_step, then scaler.step(optimizer)")
        if len(closures) > 1 and self.every > 1:
            raise ValueError("every reuses one direction, but several closures have several; use every=1")
        if len(closures) > 1 and type(self.variant) is not Variant:
            raise ValueError(f"only plain SAM takes several closures, not variant {self.variant.name}")
        with torch.enable_grad():
            if len(closures) > 1:
                self.zero_grad()
            losses = [self._evaluate(closures[0])]
            if len(closures) > 1:
                summed = vectors.copies(self._take_gradients())
                for other in closures[1:]:
                    losses.append(self._evaluate(other))
                    vectors.add(summed, self._take_gradients())
                for p, gradient in summed.items():
                    p.grad = gradient
            loss = losses[0] if len(losses) == 1 else total(losses)
        self._descend()
        return loss

    def _second(self, closure: Closure | Sequence[Closure] | None) -> Tensor | None:
        """Finish what first_step began; a closure, if there is one, is the pass at w + e."""
        loss = None
        try:
            if closure is not None:
                if not callable(closure):
                    raise ValueError("after first_step, step takes one closure, not several")
                with torch.enable_grad():
                    loss = closure()
        finally:
            self._restore()
        if not self._overflows():
            self._descend()
        return loss

    def _overflows(self) -> bool:
        """Whether this step has to be skipped, as what it saw is not finite."""
        if capturing(self._device):
            return False
        asked = Scaler(self)
        if asked and self._climbed and self.variant.mixes and self._scale is None:
            raise ValueError(f"variant {self.variant.name} needs first_step(scale=scaler.get_scale())")
        gradients = vectors.gradients(self._parameters())
        finite = self._norm_below is None or bool(self._norm_below.isfinite())
        finite = finite and bool(vectors.norm(gradients.values()).isfinite())
        if not finite:
            if self._climbed:
                self._directions = {}  # of this step, which is to be taken anew
            if not asked:
                warnings.warn(
                    "a gradient is not finite: the step is skipped, and w is as it was", stacklevel=4
                )
        elif asked:
            asked.unscale(gradients)
        return not finite or asked.overflowed

    def _evaluate(self, closure: Closure) -> Tensor:
        """Leave the gradient that drives the step in the parameters, which are back at w."""
        if self._plain:
            self._begin()
            return self._called(closure)
        loss = self._scale = None
        left = Leftovers([] if capturing(self._device) else self._parameters())
        if self.climbs:
            random = random_states(p.device for p in self._parameters())
            self._cleared = False
            loss = self._called(closure)
            left.check(self._cleared)
            self._ascend()
            set_random_states(random)
        else:
            self._ascend()
        self._cleared = False
        try:
            above = self._called(closure)
        finally:
            self._restore()
        if loss is not None:
            return loss
        if left and not self._cleared:
            raise ValueError(MIXED)
        return above

    def _called(self, closure: Closure) -> Tensor:
        loss = closure()
        if all(p.grad is None for p in self._parameters()):
            raise ValueError(NO_BACKWARD)
        return loss

    @torch.no_grad()
    def _ascend(self, guarded: bool = False, zero_grad: bool = True) -> None:
        """Let the parameters hold w + e, and let go of the gradients at w.

        Args:
            guarded: move nothing where the gradient is not finite; else it shows in the weights.
            zero_grad: clear the gradients.
        """
        self._begin()
        if self._climbed:
            self._find_direction(guarded)
        if self._climbed or self.reuses:
            self._move()
        if not self._keeps_direction:
            self._directions = {}  # lets go of the gradients before the second pass makes its own
        if zero_grad:
            self.zero_grad()

    def _begin(self) -> None:
        self._climbed = self.climbs
        self._below, self._new_memory, self._norm_below = {}, None, None

    @property
    def _keeps_direction(self) -> bool:
        return self.every > 1 and self.variant.moves_between

    def _find_direction(self, guarded: bool) -> None:
        """Keep e / rho, as a vector and the inverse of its length, which need not meet before the move."""
        perturbed = self._perturbed()
        gradient = vectors.gradients(perturbed, self._scale)
        self._statistics.hold(gradient)
        if self.variant.compares:
            self._below = vectors.copies(vectors.gradients(self._parameters(), self._scale))
        direction, self._new_memory = self.variant.ascent(gradient, self._memory)
        scales = {p: p.abs() + self.ETA for p in direction} if self.adaptive else {}
        scaled = {p: d * scales[p] for p, d in direction.items()} if self.adaptive else direction
        norm = self._norm([scaled.get(p) for p in perturbed])
        self._inverse = torch.where(norm > 0, 1 / norm, 0.0)
        self._norm_below = norm
        if self.adaptive:
            self._directions = {p: s * scales[p] for p, s in scaled.items()}
        elif self._keeps_direction:  # what is a gradient still has another owner
            self._directions = {p: d.clone() if d is p.grad else d for p, d in direction.items()}
        else:
            self._directions = direction
        if guarded:
            self._directions = {p: vectors.where(norm.isfinite(), d) for p, d in self._directions.items()}

    def _move(self) -> None:
        """Let the parameters hold w + e; w itself stays where it is, to be taken up again."""
        scales: dict[tuple[int, bool], Tensor] = {}
        for group in self.param_groups:
            rho, down = group[self._radius], bool(group.get("maximize"))
            if not group.get("perturb", True) or (not isinstance(rho, Tensor) and rho == 0):
                continue
            if (id(rho), down) not in scales:
                scales[id(rho), down] = (-rho if down else rho) * self._inverse
            for p in group["params"]:
                if (direction := self._directions.get(p)) is not None:
                    self._saved.append((p, p.data))
                    p.data = vectors.moved(p.data, direction, self._along(scales[id(rho), down], p))

    def _restore(self) -> None:
        for p, before in self._saved:
            p.data = before
        self._saved.clear()
        self._above = False
        self._statistics.restore()

    @torch.no_grad()
    def _descend(self) -> None:
        """Let the wrapped optimizer step, by what the variant makes of the gradients."""
        if self.variant.compares and not self._plain:
            above = vectors.gradients(self._parameters())
            if self._climbed:
                driving, self._new_memory = self.variant.descent(above, self._below)
            else:
                driving = self.variant.between(above, self._memory)
            for p, gradient in driving.items():
                vectors.replace(p, gradient)
        self.base.step()
        if self._new_memory is not None:
            self._memory = self._new_memory
        self._below = {}
        self._steps += 1
        mark(self._parameters())

    def _norm(self, gradients: list[Tensor | None]) -> Tensor:
        """Return the norm of all perturbed parameters' gradients (or of what stands for them) together."""
        return vectors.norm(g for g in gradients if g is not None)

    def _along(self, scale: Tensor, p: Tensor) -> Tensor:
        return scale.to(p.device)

    def _ascent(self) -> dict[str, Any]:
        """Return where the ascent stands, for the state dict."""
        found: dict[str, Any] = {"steps": self._steps}
        if self._directions:
            found["directions"] = listed(self._directions, self._perturbed())
            found["inverse"] = self._inverse
        if self._memory:
            found[self.variant.name] = listed(self._memory, self._parameters())
        return found

    def _ascent_in(self, found: dict[str, Any]) -> dict[str, Any]:
        read: dict[str, Any] = {"_steps": int(found.get("steps", 0)), "_directions": {}, "_memory": {}}
        if "directions" in found:
            perturbed = self._perturbed(found["param_groups"])
            read["_directions"] = by_parameter(found["directions"], perturbed)
            read["_inverse"] = found["inverse"].to(perturbed[0].device)
        if self.variant.name in found:
            read["_memory"] = by_parameter(found[self.variant.name], self._parameters())
        return read

    def __getstate__(self) -> dict[str, Any]:
        if self._above:
            raise RuntimeError("the weights are at w + e: call second_step before SAM is copied or pickled")
        dropped = ("step", "_above", "_statistics")  # a scheduler's, and what is of a moment
        return {k: v for k, v in vars(self).items() if k not in dropped and not k.startswith("_optimizer_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._above, self._statistics = False, RunningStatistics()

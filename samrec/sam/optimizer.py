"""The optimizer: it climbs, comes back, and lets the one it wraps step."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from samrec.sam import vectors
from samrec.sam.ascent import Ascent
from samrec.sam.checks import check_radius, closures_of, total, wrapped
from samrec.sam.leftovers import MIXED, NO_BACKWARD, Leftovers, mark
from samrec.sam.randomness import capturing, random_states, set_random_states
from samrec.sam.scaling import Scaler
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
            is no variant of this name, parameters share their storage or are sharded (FSDP2), or the wrapped
            optimizer needs a closure (LBFGS).
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
        kind = variant_of(variant)
        self.every = kind.every if every is None else every
        if self.every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        kind.check(self.every)
        super().__init__(wrapped(base_optimizer, params, defaults), rho, adaptive, kind)
        self._above: Ascent | None = None  # between first_step and second_step
        self._statistics = RunningStatistics()

    @property
    def climbs(self) -> bool:
        """Whether the next step needs a gradient at w: not where the radius is 0 or a direction is kept."""
        kept = self._kept.directions if self.variant.moves_between else self._kept.memory
        return not self._plain and (self._kept.steps % self.every == 0 or not kept)

    @property
    def reuses(self) -> bool:
        """Whether the next step takes the kept direction again, and so never sees the loss at w."""
        return not self._plain and not self.climbs and self.variant.moves_between

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
        self._above = self._ascend(scale, guarded=True)
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Put the weights back, bit for bit, and let the wrapped optimizer step with the new gradients.

        Where a gradient, of either pass, is not finite, the weights are back at w, and the step is skipped
        with a warning. To see that, it waits for the device; `step` with a closure does not.

        Args:
            zero_grad: clear the gradients after the step.

        Raises:
            RuntimeError: there was no first_step, and rho is not 0.
        """
        if not self._above:
            if not self._plain:
                raise RuntimeError("second_step comes after first_step and the backward pass at w + e")
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
            return self._second(self._above, closure)
        closures = closures_of(closure)
        if Scaler(self):
            raise ValueError("GradScaler takes no closure: call first_step, then scaler.step(optimizer)")
        with torch.enable_grad():
            loss, ascent = self._evaluate(closures[0]) if len(closures) == 1 else self._evaluate_all(closures)
        self._descend(ascent)
        return loss

    def _second(self, ascent: Ascent, closure: Closure | Sequence[Closure] | None) -> Tensor | None:
        """Finish what first_step began; a closure, if there is one, is the pass at w + e."""
        loss = None
        try:
            if closure is not None:
                if not callable(closure):
                    raise ValueError("after first_step, step takes one closure, not several")
                with torch.enable_grad():
                    loss = closure()
        finally:
            self._restore(ascent)
        if not self._overflows(ascent):
            self._descend(ascent)
        return loss

    def _overflows(self, ascent: Ascent) -> bool:
        """Whether the step is to be skipped, as a gradient is not finite; else unscale for a GradScaler."""
        if capturing(self._device):
            return False
        asked = Scaler(self)
        if asked and ascent.climbed and self.variant.mixes and ascent.scale is None:
            raise ValueError(f"variant {self.variant.name} needs first_step(scale=scaler.get_scale())")
        gradients = vectors.gradients(self._parameters())
        finite = ascent.norm is None or bool(ascent.norm.isfinite())
        finite = finite and bool(vectors.norm(gradients.values()).isfinite())
        if not finite:
            if ascent.climbed:
                self._kept.directions = {}  # of this step, which is to be taken anew
            if not asked:
                warnings.warn(
                    "a gradient is not finite: the step is skipped, and w is as it was", stacklevel=4
                )
        elif asked:
            asked.unscale(gradients)
        return not finite or asked.overflowed

    def _evaluate_all(self, closures: Sequence[Closure]) -> tuple[Tensor, Ascent]:
        """Add up the gradients above w of micro-batches, and their losses; each climbs by itself."""
        if self.every > 1:
            raise ValueError("every reuses one direction, but several closures have several; use every=1")
        if type(self.variant) is not Variant:
            raise ValueError(f"only plain SAM takes several closures, not variant {self.variant.name}")
        losses: list[Tensor] = []
        summed: Vector = {}
        self.zero_grad()
        for closure in closures:
            loss, ascent = self._evaluate(closure)
            losses.append(loss)
            vectors.add(summed, vectors.gradients(self._parameters()))
            self.zero_grad()
        for p, gradient in summed.items():
            p.grad = gradient
        return total(losses), ascent

    def _evaluate(self, closure: Closure) -> tuple[Tensor, Ascent]:
        """Leave the gradient that drives the step in the parameters, which are back at w."""
        if self._plain:
            return self._called(closure), self._ascend()
        loss = None
        left = Leftovers([] if capturing(self._device) else self._parameters())
        if self.climbs:
            random = random_states(p.device for p in self._parameters())
            self._cleared = False
            loss = self._called(closure)
            left.check(self._cleared)
            ascent = self._ascend()
            set_random_states(random)
        else:
            ascent = self._ascend()
        self.zero_grad()
        self._cleared = False
        try:
            above = self._called(closure)
        finally:
            self._restore(ascent)
        if loss is None and left and not self._cleared:
            raise ValueError(MIXED)
        return above if loss is None else loss, ascent

    def _called(self, closure: Closure) -> Tensor:
        loss = closure()
        if all(p.grad is None for p in self._parameters()):
            raise ValueError(NO_BACKWARD)
        return loss

    @torch.no_grad()
    def _ascend(self, scale: float | Tensor | None = None, guarded: bool = False) -> Ascent:
        """Let the parameters hold w + e; w itself stays where it is, to be taken up again.

        Args:
            scale: of the gradients at w, if it was said.
            guarded: move nothing where the gradient is not finite; else it shows in the weights.
        """
        ascent = Ascent(self.climbs, self._kept.memory, scale)
        directions = self._found(ascent, guarded) if ascent.climbed else self._kept.directions
        for group in self.param_groups:
            rho = group[self._radius]
            if not group.get("perturb", True) or (not isinstance(rho, Tensor) and rho == 0):
                continue
            factor = (-rho if group.get("maximize") else rho) * self._kept.inverse
            for p in group["params"]:
                if (direction := directions.get(p)) is not None:
                    ascent.weights.append((p, p.data))
                    p.data = vectors.moved(p.data, direction, self._along(factor, p))
        return ascent

    def _found(self, ascent: Ascent, guarded: bool) -> Vector:
        """Return the direction to climb; keep the inverse of its length, and itself for steps between."""
        gradient = vectors.gradients(self._perturbed(), ascent.scale)
        self._statistics.hold(gradient)
        if self.variant.compares:
            ascent.below = vectors.copies(vectors.gradients(self._parameters(), ascent.scale))
        direction, ascent.memory = self.variant.ascent(gradient, ascent.memory)
        scaled = direction
        if self.adaptive:
            T = {p: p.abs() + self.ETA for p in direction}
            scaled = {p: d * T[p] for p, d in direction.items()}
            direction = {p: d * T[p] for p, d in scaled.items()}
        ascent.norm = norm = self._norm(scaled)
        if guarded:
            direction = {p: vectors.where(norm.isfinite(), d) for p, d in direction.items()}
        self._kept.inverse = torch.where(norm > 0, 1 / norm, 0.0)
        self._kept.directions = {}
        if self.every > 1 and self.variant.moves_between:  # what is a gradient still has another owner
            self._kept.directions = {p: d.clone() if d is p.grad else d for p, d in direction.items()}
        return direction

    def _restore(self, ascent: Ascent) -> None:
        for p, before in ascent.weights:
            p.data = before
        self._above = None
        self._statistics.restore()

    @torch.no_grad()
    def _descend(self, ascent: Ascent) -> None:
        """Let the wrapped optimizer step, by what the variant makes of the gradients."""
        if self.variant.compares and not self._plain:
            above = vectors.gradients(self._parameters())
            if ascent.climbed:
                driving, ascent.memory = self.variant.descent(above, ascent.below)
            else:
                driving = self.variant.between(above, ascent.memory)
            for p, gradient in driving.items():
                vectors.replace(p, gradient)
        self.base.step()
        self._kept.memory = ascent.memory
        self._kept.steps += 1
        mark(self._parameters())

    def _norm(self, vector: Vector) -> Tensor:
        """Return the length of the ascent direction, over all perturbed parameters together."""
        return vectors.norm(vector.values())

    def _along(self, scale: Tensor, p: Tensor) -> Tensor:
        return scale.to(p.device)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but hooks, and the `step` that a scheduler has put in place of the class's."""
        if self._above:
            raise RuntimeError("the weights are at w + e: call second_step before SAM is copied or pickled")
        return {k: v for k, v in vars(self).items() if k != "step" and not k.startswith("_optimizer_")}

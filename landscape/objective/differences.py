"""Derivatives against differences of the loss itself, for what autograd hands over may be wrong in silence.

A gradient is compared with differences of L along random directions, and a Hessian product with differences
of the gradient. A kink (ReLU, max) between the points of a difference is not an error: a derivative is called
wrong only where it disagrees at points and along directions that are drawn anew, each time by more than
differences of three step lengths disagree among themselves.

Nearly always a first look is enough: the derivative as it is reported, beside a difference of the loss or of
its gradient. All else is for what does not agree at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.noise import drawn
from landscape.objective.params import ParamSpace


class Differentiable(Protocol):
    """An `Objective`, as far as it is compared with itself: see there."""

    params: ParamSpace
    batches: list[Any]

    @property
    def theta(self) -> Tensor: ...
    def value(self, theta: Tensor | None = None) -> float: ...
    def grad(self, theta: Tensor | None = None) -> Tensor: ...
    def value_and_grad(self, theta: Tensor | None = None) -> tuple[float, Tensor]: ...
    def traced(self, batch: Any) -> tuple[list[Tensor], Tensor]: ...
    def moved(self, theta: Tensor) -> Self: ...
    def first_batch(self) -> Self: ...
    def unchecked(self) -> Self: ...
    def in_float64(self) -> Self: ...


Multiply = Callable[[Any, Tensor], Tensor]
"""Maps an objective of one batch and a vector to ∇²L · vector."""
AROUND = (0.01, 0.03, 0.1)  # distances from θ, in units of the weights, at which a doubt is settled
NOISE = 64  # units in the last place by which a loss or a gradient may err
COARSE = 0.1  # share by which float32 (or a lower precision inside of the model) and float64 may differ
ASYMMETRY = 3e-3  # in units of ‖Hv‖: a hundred times what float32 rounds
ALIKE = 0.05  # share by which the loss itself may differ in float64
ROUNDED = 1e-3  # share by which a product in float32 may differ from differences in float64
LARGE = 2**25  # parameters above which products are first looked at in float32, for the memory's sake


@dataclass
class Trust:
    """What is known of the derivatives of a loss. All views of the loss share it.

    Attributes:
        wanted: whether derivatives are to be checked.
        gradient: what was found of the gradient; empty as long as nothing was differentiated.
        double: the precision of the loss where weights and batches are in float64: float32 where the loss
            rounds to it. `missing` if it has no value there or another one; None if not known yet.
        products: for each strategy of Hessian products that was checked, what is wrong with it, if anything.
        evaluations: of the loss, its gradient or a product, that the checks have taken.
    """

    wanted: bool
    gradient: str = ""
    double: torch.dtype | Literal["missing"] | None = None
    products: dict[str, str | None] = field(default_factory=dict)
    evaluations: int = 0

    def __str__(self) -> str:
        if not self.wanted:
            return "unchecked"
        return self.gradient and f"{self.gradient}, {self.evaluations} evaluations"


def check_gradient(objective: Differentiable, trust: Trust) -> None:
    """Compare ∇L with differences of L, and note the result.

    Raises:
        InputError: they disagree; the message names the parameters. Or L jumps at θ.
    """
    of = objective.unchecked()
    one = len(of.batches) == 1
    own = of.grad()
    for number, differences in enumerate(_precisions(of, trust)):
        if not number and _first_look(differences, trust, lambda d: d.confirms_gradient(own)):
            trust.gradient = "checked against the loss" + differences.said
            return
        try:
            right, wrong = differences.of_loss()
        except (RuntimeError, TypeError):  # float64 lacks the kernel of a derivative
            continue
        finally:
            trust.evaluations += differences.evaluations
        if wrong:
            raise InputError(
                f"autograd's gradient of {_some(wrong)} is not the slope of the loss; mend what changes it "
                "(detach, a hook, a backward of its own), exclude these parameters, or give check=False"
            )
        if right:
            first, precise = (o if one else o.first_batch() for o in (of, differences.of))
            exact = differences.gradient if one else precise.grad()
            if worse := _coarser(first, precise, own if one else first.grad(), exact, lambda o: o.grad()):
                raise InputError(
                    f"the gradient of {_some(worse)} differs from that in float64 by more than a tenth; give "
                    "check=False to measure it nevertheless"
                )
            trust.gradient = "checked against the loss" + differences.said
            return
    trust.gradient = "unchecked: differences of the loss are too coarse"


def check_products(objective: Differentiable, trust: Trust, strategy: str, multiply: Multiply) -> None:
    """Compare a Hessian product of the first batch with differences of its gradient, and note the result.

    Where differences cannot tell, as with a kink in every interval, uᵀHv must be vᵀHu.

    Raises:
        InputError: they disagree; the message names the parameters.
        Exception: whatever the product raises.
    """
    if strategy not in trust.products:
        of = objective.unchecked().first_batch()
        own = multiply(of, drawn(of.params, 0))
        large = of.params.numel > LARGE and of.theta.dtype == torch.float32
        finest = _Differences(of, torch.float32) if large else next(_precisions(of, trust))
        agree = _first_look(finest, trust, lambda d: d.confirms_product(own))
        trust.products[strategy] = None if agree else _wrong_products(of, own, trust, multiply)
    if said := trust.products[strategy]:
        raise InputError(f"{strategy} mode has a derivative of this loss wrong: {said}")


def _wrong_products(of: Differentiable, own: Tensor, trust: Trust, multiply: Multiply) -> str | None:
    for differences in _precisions(of, trust):
        try:
            right, wrong = differences.of_gradient(multiply)
        except (RuntimeError, TypeError):  # float64 lacks the kernel of a second derivative
            continue
        finally:
            trust.evaluations += differences.evaluations
        if wrong:
            return f"Hv differs from differences of the gradient in {_some(wrong)}"
        if right:
            worse = _coarser(
                of, differences.of, own, differences.product, lambda o: multiply(o, drawn(o.params, 0))
            )
            return f"Hv differs from that in float64 in {_some(worse)}" if worse else None
    u, v = drawn(of.params, 1), drawn(of.params, 0)
    hu = multiply(of, u)
    one, other, scale = float(u @ own), float(v @ hu), float(own.norm() * u.norm() + hu.norm() * v.norm())
    if abs(one - other) > ASYMMETRY * scale:
        return f"uᵀHv is {one:g}, vᵀHu {other:g}"
    return None


def _first_look(
    differences: "_Differences", trust: Trust, confirms: Callable[["_Differences"], bool]
) -> bool:
    """Tell whether one difference confirms a derivative; what cannot be evaluated confirms nothing."""
    try:
        return confirms(differences)
    except (RuntimeError, TypeError):  # float64 lacks a kernel
        return False
    finally:
        trust.evaluations += differences.evaluations + 1
        differences.evaluations = 0


def _doubled(of: Differentiable, trust: Trust) -> Differentiable | None:
    """Return the loss with weights and batches in float64, as they may be; None if it is not the same there.

    Whether it is, and how finely the loss itself is rounded then, is found out once and noted.
    """
    if trust.double == "missing":
        return None
    try:
        double = of if of.theta.dtype == torch.float64 else of.in_float64()
        if trust.double is None:
            found = double.traced(double.batches[0])[1]
            own, value = found.item() if double is of else of.first_batch().value(), found.item()
            alike = abs(value - own) <= ALIKE * max(abs(own), abs(value))
            trust.double = found.dtype if alike else "missing"
    except Exception:  # a kernel that float64 does not have, or types that do not mix
        trust.double = "missing"
    return None if trust.double == "missing" else double


class _Differences:
    """Differences of one loss, which is known to a precision: of θ, or what the loss rounds to."""

    def __init__(self, of: Differentiable, precision: torch.dtype) -> None:
        self.of, self.eps = of, torch.finfo(precision).eps
        self.said = "" if precision == torch.float64 else " in float32"
        self.step = self.eps ** (1 / 3)
        self.tol = max(1e-4, 3 * self.step)
        self.directions = 1 if self.tol < 1e-3 else 3  # along one, a wrong slope may come near by chance
        self.evaluations = 0
        self.product = of.theta  # ∇²L d at θ, once that was taken

    @cached_property
    def gradient(self) -> Tensor:
        """∇L at θ."""
        return self._grad(self.of)

    def confirms_gradient(self, own: Tensor) -> bool:
        """Tell whether ∇L, as it is reported, is the slope of the loss along each first direction."""
        along = (drawn(self.of.params, seed) for seed in range(self.directions))
        return all(self._slope(self.of, d, own, steps=1) for d in along)

    def confirms_product(self, own: Tensor) -> bool:
        """Tell whether ∇²L d, as it is reported, is one difference of the gradient, in every tensor."""
        tol = self.tol if own.dtype == torch.float64 else max(self.tol, ROUNDED)
        slopes = islice(self._curvatures(self.of, drawn(self.of.params, 0)), 1)
        return _judged(self.of.params.split(own), slopes, tol)[0] is True

    def of_loss(self) -> tuple[bool, list[str]]:
        """Tell whether the gradient is the slope of the loss, and in which tensors it is not."""
        if self.confirms_gradient(self.gradient):
            return True, []
        verdicts = []
        for of, d in self._around():
            gradient = self._grad(of)
            verdicts.append(self._slope(of, d, gradient))
            if verdicts.count(False) > 1:
                return False, self._blamed(of, d, gradient, [e.name for e in of.params.entries])
        if True in verdicts:
            self._need_continuity(scale=max(float(self._grad(of).mul(d).norm()), 1e-12))
        return True in verdicts, []

    def of_gradient(self, multiply: Multiply) -> tuple[bool, list[str]]:
        """Tell whether products are the slope of the gradient, and in which tensors they are not."""
        verdicts: list[bool | None] = []
        for of, d in ((self.of, drawn(self.of.params, 0)), *self._around()):
            product = multiply(of, d)
            self.evaluations += 1
            if of is self.of:
                self.product = product
            verdict, wrong = _judged(of.params.split(product), self._curvatures(of, d), self.tol)
            if verdict:
                return True, []
            verdicts.append(verdict)
            if verdicts.count(False) > 1:
                return False, wrong
        return False, []

    def _around(self) -> Iterator[tuple[Differentiable, Tensor]]:
        for seed, share in enumerate(AROUND, start=1):
            of = self.of.moved(self.of.theta + share * drawn(self.of.params, 10 + seed))
            yield of, drawn(self.of.params, seed)

    def _grad(self, of: Differentiable, theta: Tensor | None = None) -> Tensor:
        self.evaluations += 1
        return (of if theta is None else of.moved(theta)).grad()

    def _value(self, theta: Tensor) -> float:
        self.evaluations += 1
        return self.of.moved(theta).value()

    def _slope(self, of: Differentiable, d: Tensor, gradient: Tensor, steps: int = 3) -> bool | None:
        """Tell whether ⟨∇L, d⟩ is the slope along d; None if that cannot be told."""
        parts = zip(of.params.split(gradient).values(), of.params.split(d).values(), strict=True)
        shares = (g.double() * p for g, p in parts)
        along = [torch.stack([share.sum(), share.norm()]) for share in shares]
        slope, length = torch.stack([a[0] for a in along]).sum(), torch.stack([a[1] for a in along]).norm()

        def slopes() -> Iterator[tuple[dict[str, Tensor], float]]:
            for step in self.step * 2.0 ** np.arange(steps):
                ahead, behind = (self._value(_moved(of.theta, sign * step, d)) for sign in (1, -1))
                noise = NOISE * self.eps * max(abs(ahead), abs(behind)) / step
                yield {"": torch.tensor((ahead - behind) / (2 * step), dtype=torch.float64)}, noise

        return _judged({"": slope.cpu()}, slopes(), self.tol, float(length))[0]

    def _curvatures(self, of: Differentiable, d: Tensor) -> Iterator[tuple[dict[str, Tensor], float]]:
        """Yield differences of the gradient, by name, with their noise: short steps avoid kinks."""
        least = 10 * NOISE * self.eps / self.tol
        for step in (np.sqrt(self.step * least), least, self.step):
            ahead, behind = (self._grad(of, _moved(of.theta, sign * step, d)) for sign in (1, -1))
            noise = NOISE * self.eps * float(ahead.norm() + behind.norm()) / step
            yield of.params.split(ahead.sub_(behind).div_(2 * step)), noise

    def _blamed(self, of: Differentiable, d: Tensor, gradient: Tensor, names: Sequence[str]) -> list[str]:
        """Return the tensors whose slope is wrong: halves are tried as long as they show it."""
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        found = []
        for half in filter(None, halves if len(names) > 1 else ()):
            parts = of.params.split(d).items()
            alone = of.params.flat(part if name in half else torch.zeros_like(part) for name, part in parts)
            if self._slope(of, alone, gradient) is False:
                found += self._blamed(of, d, gradient, half)
        return found or list(names)

    def _need_continuity(self, scale: float) -> None:
        """Make sure that what differs at θ alone is a kink, with a slope on either side, and not a jump."""
        theta, d = self.of.theta, drawn(self.of.params, 0)
        here = self._value(theta)
        jump = max(abs(self._value(theta + sign * self.step * d) - here) for sign in (1, -1))
        if jump > max(1e3 * self.step * scale, NOISE * self.eps * abs(here) / self.step):
            raise InputError(
                f"the loss jumps by {jump:.2g} at θ, so it has no derivatives there; move the weights off "
                "the jump, or give check=False to measure what autograd makes of it"
            )


def _moved(theta: Tensor, step: float, d: Tensor) -> Tensor:
    return torch.add(theta, d, alpha=step)


def _precisions(of: Differentiable, trust: Trust) -> Iterator[_Differences]:
    """Yield the precisions in which a loss may be differenced, the finest first.

    A loss of `logits.float()`, as Hugging Face's are, has the fine steps of float32 under its sums: weights
    in float64, and differences as coarse as float32.
    """
    double = _doubled(of, trust)
    if double is not None and trust.double == torch.float64:
        yield _Differences(double, torch.float64)
    yield _Differences(double or of, torch.float32)


def _judged(
    claimed: dict[str, Tensor],
    measured: Iterable[tuple[dict[str, Tensor], float]],
    tol: float,
    least: float = 0.0,
) -> tuple[bool | None, list[str]]:
    """Compare tensors with what was measured of them at several steps, each with its noise.

    They are right if they agree at one step, and wrong if at all steps some differ by far more than the
    steps among themselves; otherwise nothing can be told.

    Returns:
        The verdict, and the names of those that are wrong.
    """
    seen: list[dict[str, Tensor]] = []
    gaps: list[dict[str, float]] = []
    allowed: dict[str, float] = {}
    for found, noise in measured:
        sizes = {name: float(tensor.norm()) for name, tensor in found.items()}
        whole = float(np.linalg.norm(list(sizes.values())))
        gap = {name: float((claimed[name] - tensor).norm()) for name, tensor in found.items()}
        if not np.isfinite([whole, *gap.values()]).all():
            return None, []
        limits = {name: tol * (size + 0.01 * whole + least) + noise for name, size in sizes.items()}
        if noise <= tol * (whole + least) and all(gap[name] <= limits[name] for name in gap):
            return True, []
        seen, gaps = [*seen, found], [*gaps, gap]
        allowed = {name: max(limit, allowed.get(name, 0.0)) for name, limit in limits.items()}
    spread = {name: max(float((a[name] - b[name]).norm()) for a in seen for b in seen) for name in claimed}
    wrong = [name for name in claimed if min(g[name] for g in gaps) > allowed[name] + 4 * spread[name]]
    return (False if wrong else None), wrong


def _coarser(
    own: Differentiable,
    precise: Differentiable,
    found: Tensor,
    exact: Tensor,
    derivative: Callable[[Differentiable], Tensor],
) -> list[str]:
    """Return the tensors of a derivative that differ grossly between two precisions, at θ and beside it."""

    def differing(mine: Tensor, fine: Tensor) -> list[str]:
        floor = 0.1 * COARSE * float(fine.norm())
        pairs = zip(own.params.split(mine).items(), own.params.split(fine).values(), strict=True)
        return [n for (n, a), b in pairs if float((a - b).norm()) > COARSE * float(b.norm()) + floor]

    if own.theta.dtype == precise.theta.dtype or not differing(found, exact):
        return []
    beside = own.theta + AROUND[-1] * drawn(own.params, 20)
    return differing(derivative(own.moved(beside)), derivative(precise.moved(beside.double())))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Differences of a loss and of its gradient, by which derivatives are judged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, combinations, islice
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.derivatives import gradient
from landscape.objective.noise import drawn, folded
from landscape.objective.params import ParamSpace
from landscape.objective.shards import peak
from landscape.objective.sums import PIECE, REDUCED


class Differentiable(Protocol):
    """An `Objective`, as far as it is compared with itself: see there."""

    params: ParamSpace
    batches: Sequence[Any]
    weight: float

    @property
    def theta(self) -> Tensor: ...
    def value(self, theta: Tensor | None = None) -> float: ...
    def grad(self, theta: Tensor | None = None) -> Tensor: ...
    def value_and_grad(self, theta: Tensor | None = None) -> tuple[float, Tensor]: ...
    def traced(self, batch: Any) -> tuple[list[Tensor], Tensor]: ...
    def moved(self, theta: Tensor) -> Self: ...
    def first_batch(self) -> Self: ...
    def per_batch(self) -> Iterator[Self]: ...
    def unchecked(self) -> Self: ...
    def in_float64(self) -> Self: ...


Multiply = Callable[[Any, Tensor], Tensor]
"""Maps an objective of one batch and a vector to ∇²L · vector."""
Sizes = NDArray[np.float64]
"""The length of a tensor, and its largest number."""
Verdict = Sequence[str] | None
"""The names of what is wrong, none where all is right; None where that cannot be told."""
AROUND = (0.01, 0.03, 0.1)  # distances from θ, in units of the weights, at which a doubt is settled
NOISE = 64  # units in the last place by which a loss or a gradient may err
SLOPE = 1e-4  # share by which a slope may differ at a first look
ROUGH = 1e-3  # the same, as far as the loss is rounded
UNSETTLED = 0.1  # share by which products of three steps may differ: without a second derivative, by far more


def alike(a: float, b: float) -> bool:
    """Tell whether two values may be those of one loss in two precisions."""
    return abs(a - b) <= 0.05 * max(abs(a), abs(b))


class Differences:
    """Differences of one loss, which is known to a precision: of θ, or what the loss rounds to.

    Args:
        count: is called at each evaluation of the loss or its gradient, and each product.
        like: about the sum of the loss of the first batch, where it is not known yet whether the loss has it,
            and this precision.
        kinked: whether the loss has kinks, millions of them in a convolutional network. `confirms` then takes
            a step so short that rarely one lies within: where its noise is about the tolerance.

    Attributes:
        failures: the errors of a loss that this precision lacks a kernel for; with `like`, all of them.
    """

    def __init__(
        self,
        of: Differentiable,
        precision: torch.dtype,
        count: Callable[[], None],
        like: float | None = None,
        kinked: bool = False,
    ) -> None:
        self.of, self.like, self.eps = of, like, torch.finfo(precision).eps
        self._count = count
        self.failures = (RuntimeError, TypeError) if like is None else (Exception,)
        self.said = "" if precision == torch.float64 else " in float32"
        self.step = self.eps ** (1 / 3)
        self.tol = max(1e-4, 3 * self.step)
        self._least = 10 * NOISE * self.eps / self.tol  # a step at which noise is a tenth of the tolerance
        self._short = (self.step * self._least) ** 0.5
        self._first = self._least / 10 if kinked else self._short
        self.fine = self.tol < 1e-3  # so that steps lie far apart, and a kink differs from step to step
        self.directions = 1 if self.fine else 3  # along one, a wrong slope may come near by chance

    @cached_property
    def gradient(self) -> Tensor:
        """∇L at θ."""
        return self._grad(self.of)

    def confirms_gradient(self, own: Tensor) -> bool:
        """Tell whether ∇L, as it is reported, is the slope of the loss along each first direction."""
        along = (drawn(self.of.params, seed) for seed in range(self.directions))
        return all(self._slope(self.of, d, own, steps=2) for d in along)

    def confirms(
        self, d: Tensor, own: Sequence[Tensor] | None, slope: tuple[float, float] | None, tol: float
    ) -> tuple[bool, bool]:
        """Tell whether one difference of the gradient is ∇²L d, as it is reported, and one of L the slope.

        Little is allowed for noise: what agrees, agrees. The slope between the two points is the mean of the
        gradient there, by Simpson's rule, so that float32 can take points that lie apart. No two of the
        gradients are held at once.

        Args:
            d: the direction, shape (numel,), in the precision of θ. Written over.
            own: ∇²L d, which must agree in every tensor, each one `folded`; None if it is not asked for.
            slope: ⟨∇L, d⟩, as it is reported, and the length of its summands; None if it is not asked for.
            tol: share of a tensor of ∇²L d by which it may differ.
        """
        theta, step, split = self.of.theta, self._first, self.of.params.split
        values, slopes, gradients = [], [], []
        moved = d.mul_(step).add_(theta)
        for sign in (1, -1):
            if sign < 0:
                moved.neg_().add_(theta, alpha=2)
            leaves, total = self.of.moved(moved).traced(self.of.batches[0])
            values.append(float(total.detach()))
            if self.like is not None and not (total.dtype == theta.dtype and alike(values[0], self.like)):
                return False, False
            parts = gradient(total, leaves)
            del leaves, total
            self._count()
            if slope is not None:
                three = pieces_of(parts, split(moved).values(), split(theta).values())
                slopes.append(along((g, (m - t).mul_(sign / step)) for g, m, t in three)[0])
            gradients.append([] if own is None else [folded(part) for part in parts])
            del parts
        sloped = False
        if slope is not None:
            claimed, length = slope
            found = (values[0] - values[1]) / (2 * step)
            size, rounded = abs(found) + length, 4 * self.eps * max(map(abs, values)) / step
            allowed = max(SLOPE * size, min(ROUGH * size, rounded))
            sloped = abs(found - (4 * claimed + sum(slopes)) / 6) <= allowed
        measured = [(a - b) / (2 * step) for a, b in zip(*gradients, strict=True)]
        sizes = list(map(_sizes, measured))
        least = 0.01 * _joint(sizes)
        pairs = zip(own or (), measured, sizes, strict=True)
        agree = all((_sizes(a - b) <= tol * (size + least)).all() for a, b, size in pairs)
        return agree, sloped

    def of_loss(self) -> Verdict:
        """Return the tensors in which the gradient is not the slope of the loss."""
        if self.confirms_gradient(self.gradient):
            return []
        verdicts = []
        here = ((self.of, drawn(self.of.params, seed)) for seed in range(2))
        for of, d in chain(here, self._around()):
            gradient = self.gradient if of is self.of else self._grad(of)
            verdicts.append(self._slope(of, d, gradient))
            if verdicts.count(False) > 1:
                return self._blamed(of, d, gradient, [e.name for e in of.params.entries])
        if verdicts.count(True) <= verdicts.count(False):
            return None
        self._need_continuity(scale=float(self._grad(of).mul(d).norm()))
        return []

    def of_gradient(self, multiply: Multiply) -> Verdict:
        """Return the tensors in which products are not the slope of the gradient."""
        faults = 0
        for of, d in chain([(self.of, drawn(self.of.params, 0))], self._around()):
            product = multiply(of, d)
            self._count()
            wrong = _judged(of.params.split(product), self._curvatures(of, d), self.tol)
            faults += bool(wrong)
            if faults > (not self.fine) or wrong == []:
                return wrong
        return None

    def settles(self) -> bool:
        """Tell whether differences of the gradient are about the same for two lengths of the step."""
        curvatures = self._curvatures(self.of, drawn(self.of.params, 0))
        first, *others = (self.of.params.join(parts) for parts, _ in islice(curvatures, 3))
        size = float(first.norm())
        return any(float((product - first).norm()) <= UNSETTLED * size for product in others)

    def of_coarser(self, coarse: Differentiable, multiply: Multiply, tol: float) -> Verdict:
        """Return the tensors in which products of the same loss in a lower precision are grossly wrong.

        Rounding that grows in a few coordinates, as where a formula cancels near a point, is small beside a
        random direction's product. So it is looked at along the direction of the error itself.
        """
        if not self.fine or coarse.theta.dtype == self.of.theta.dtype:
            return []
        d = drawn(coarse.params, 0)
        right, own = multiply(self.of, d.double()), multiply(coarse, d)
        error = (own.double() - right).mul_(d)  # by the size of each weight
        least = float(right.norm()) / float(d.norm())
        if not (largest := abs(float(peak(error)))):
            return []
        d = error.mul_(d).div_(largest).to(d.dtype)
        own = multiply(coarse, d)
        for _ in range(3):
            self._count()
        ahead = self._curvatures(self.of, d.double())
        return _judged(coarse.params.split(own.double()), ahead, tol, least * float(d.norm()))

    def _around(self) -> Iterator[tuple[Differentiable, Tensor]]:
        for seed, share in enumerate(AROUND, start=1):
            of = self.of.moved(self.of.theta + share * drawn(self.of.params, 10 + seed))
            yield of, drawn(self.of.params, seed)

    def _grad(self, of: Differentiable, theta: Tensor | None = None) -> Tensor:
        self._count()
        return (of if theta is None else of.moved(theta)).grad()

    def _value(self, theta: Tensor) -> float:
        self._count()
        return self.of.moved(theta).value()

    def _slope(self, of: Differentiable, d: Tensor, gradient: Tensor, steps: int = 3) -> bool | None:
        """Tell whether ⟨∇L, d⟩ is the slope along d; None if that cannot be told. Short steps avoid kinks."""
        slope, length = along(pieces_of([gradient], [d]))

        def slopes() -> Iterator[tuple[dict[str, Tensor], Sizes]]:
            both = [(step, -step) for step in (self._short, self.step, 2 * self.step)[:steps]]
            one = [(self._short, 0.0)] if steps > 2 else []  # at a kink, it differs from all of the others
            for ahead, behind in (*both, *one):
                values = [self._value(_moved(of.theta, step, d)) for step in (ahead, behind)]
                noise = np.full(2, 2 * NOISE * self.eps * max(map(abs, values)) / (ahead - behind))
                found = (values[0] - values[1]) / (ahead - behind)
                yield {"": torch.tensor(found, dtype=torch.float64)}, noise

        claimed = torch.tensor(slope, dtype=torch.float64)
        wrong = _judged({"": claimed}, slopes(), self.tol, length)
        return None if wrong is None else not wrong

    def _curvatures(self, of: Differentiable, d: Tensor) -> Iterator[tuple[dict[str, Tensor], Sizes]]:
        """Yield differences of the gradient, by name, with their noise: short steps avoid kinks."""
        both = [(step, -step) for step in (self._short, self._least, self.step)]
        one = [(self._short, 0.0), (0.0, -self._short)] if self.fine else []  # differ where ∇L has a kink
        for ahead, behind in (*both, *one):
            first, second = (self._grad(of, _moved(of.theta, step, d)) for step in (ahead, behind))
            noise = 2 * NOISE * self.eps * (_sizes(first) + _sizes(second)) / (ahead - behind)
            yield of.params.split(first.sub_(second).div_(ahead - behind)), noise

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
                "the jump, or give check=False to use autograd as it is"
            )


def _judged(
    claimed: dict[str, Tensor],
    measured: Iterable[tuple[dict[str, Tensor], Sizes]],
    tol: float,
    least: float = 0.0,
) -> Verdict:
    """Compare tensors with what was measured of them at several steps, each with its noise.

    They are right if they agree at one step, and wrong if at all steps some differ by far more than the
    steps among themselves; otherwise nothing can be told. Where there are five, one of the first three may be
    left out: at a short step rounding may be larger than noise tells, and at a long one the loss may bend.
    """
    seen: list[tuple[dict[str, Tensor], dict[str, Sizes]]] = []
    gaps: list[dict[str, Sizes]] = []
    for found, noise in measured:
        sizes = {name: _sizes(tensor) for name, tensor in found.items()}
        whole = _joint(sizes.values())
        gap = {name: _sizes(claimed[name] - tensor) for name, tensor in found.items()}
        if not np.isfinite([whole, *gap.values()]).all():
            return None
        limits = {name: tol * (size + 0.01 * whole + least) + noise for name, size in sizes.items()}
        quiet = (noise <= tol * (whole + least)).all()
        if quiet and all((gap[name] <= limits[name]).all() for name in gap):
            return []
        seen, gaps = [*seen, (found, limits)], [*gaps, gap]
    chosen = [[*seen[:i], *seen[i + 1 :]] for i in range(3)] if len(seen) > 4 else [seen]

    def allowed(name: str) -> Sizes:
        found: Sizes = np.min([_spread(name, some) for some in chosen], 0)
        return found

    return [n for n in claimed if (np.min([gap[n] for gap in gaps], 0) > allowed(n)).any()] or None


def _spread(name: str, seen: Sequence[tuple[dict[str, Tensor], dict[str, Sizes]]]) -> Sizes:
    """Return by how much a tensor that is right may differ from what was measured, each with its limit."""
    apart = [_sizes(a[name] - b[name]) for (a, _), (b, _) in combinations(seen, 2)]
    found: Sizes = np.max([limits[name] for _, limits in seen], 0) + 4 * np.max(apart, 0, initial=0.0)
    return found


def _sizes(tensor: Tensor) -> Sizes:
    """Return the length of a tensor and its largest number, which shows what is wrong in a few places."""
    return np.array([float(tensor.norm()), abs(float(peak(tensor))) if tensor.numel() else 0.0])


def _joint(sizes: Iterable[Sizes]) -> Sizes:
    """Return the length and the largest number of tensors together."""
    lengths, largest = np.reshape([*sizes], (-1, 2)).T
    return np.array([np.linalg.norm(lengths), largest.max(initial=0.0)])


def _moved(theta: Tensor, step: float, d: Tensor) -> Tensor:
    return torch.add(theta, d, alpha=step)


def pieces_of(*vectors: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Yield pieces of vectors that are given as equal tensors, side by side; they stay in a CPU's cache."""
    for parts in zip(*vectors, strict=True):
        size = PIECE if parts[0].device.type == "cpu" else REDUCED
        yield from zip(*(part.reshape(-1).split(size) for part in parts), strict=True)


def along(pairs: Iterable[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Return ⟨g, d⟩ and the length of its summands, from pieces of g and d."""
    shares = (g.double() * d for g, d in pairs)
    sums, norms = zip(*((share.sum(), share.norm()) for share in shares), strict=True)
    return float(torch.stack(sums).sum()), float(torch.stack(norms).norm())

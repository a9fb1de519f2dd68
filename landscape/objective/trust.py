"""Derivatives are compared with differences of the loss, since those of autograd may be wrong in silence.

A gradient is compared with differences of L along random directions, and a Hessian product with differences
of the gradient. A kink (ReLU, max) between the points of a difference is not an error: a derivative is called
wrong only where it disagrees at points and along directions that are drawn anew, each time by more than
differences of three step lengths disagree among themselves. In float64 these lengths lie so far apart that a
product which they contradict at θ is wrong there, whatever it is elsewhere: a formula cancels near a point.

Nearly always a first look is enough: one difference of the loss, or of its gradient, agrees with what
autograd reports. All else is for what does not agree at once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal, Protocol

import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.derivatives import gradient as gradient_of
from landscape.objective.derivatives import kinked, operations, straight_through
from landscape.objective.differences import (
    AROUND,
    Differences,
    Differentiable,
    Multiply,
    Verdict,
    alike,
    along,
    pieces_of,
)
from landscape.objective.noise import drawn, folded, size_of


class Graph(Protocol):
    """The graph of the gradient of one batch: its loss, its gradient, and products with its Hessian.

    A gradient and a product are one tensor per parameter.
    """

    total: Tensor
    grads: list[Tensor]

    def __call__(self, vector: Sequence[Tensor]) -> Sequence[Tensor]: ...


CHECKED = "checked against the loss"
COARSE = 0.1  # share by which float32 (or a lower precision inside of the model) and float64 may differ
ASYMMETRY = 3e-3  # in units of ‖Hv‖: a hundred times what float32 rounds
ROUNDED = 1e-3  # share by which a product in float32 may differ from differences
LARGE = 2**25  # parameters above which products are first looked at in float32, for the memory's sake
HUGE = 2**29  # parameters above which nothing is looked at in float64


@dataclass
class Trust:
    """What is known of the derivatives of a loss. All views of the loss share it, but for parts of θ.

    Attributes:
        wanted: whether derivatives are to be checked.
        gradient: what was found of the gradient; empty as long as nothing was differentiated.
        double: the precision of the loss where weights and batches are in float64: float32 where the loss
            rounds to it. `missing` if it has no value there or another one; None if not known yet.
        products: for each strategy of Hessian products that was checked, what is wrong with it, if anything.
        evaluations: number of evaluations of the loss, its gradient or a product that the checks have taken.
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

    def count(self) -> None:
        """Count an evaluation."""
        self.evaluations += 1

    def of_part(self) -> "Trust":
        """Return what is known where a part of θ moves: what holds for all of it, but not the reverse."""
        return replace(self, products=dict(self.products)) if str(self) else Trust(True)


def check_gradient(objective: Differentiable, trust: Trust, graph: Graph | None = None) -> None:
    """Compare ∇L with differences of L, unless that was done, and note the result.

    Args:
        graph: the graph of the only batch at θ, where there is one already.

    Raises:
        InputError: they disagree; the message names the parameters. Or L jumps at θ.
    """
    if trust.gradient:
        return
    of = objective.unchecked()
    if _large(of) and _sloped(of.first_batch(), trust):
        trust.gradient = CHECKED
    elif graph:  # which holds the gradient of the sum
        own = of.params.flat(slope.detach() for slope in graph.grads).div_(of.weight)
        trust.gradient = _compared(of, trust, own)
    else:
        trust.gradient = _compared(of, trust, of.grad())


def check_products(
    objective: Differentiable, trust: Trust, strategy: str, multiply: Multiply, graph: Graph | None = None
) -> None:
    """Compare a Hessian product of the first batch with differences of its gradient, and note the result.

    So is each batch that takes another way through the model: whose graph has an operation that those before
    it do not have. Where differences cannot tell, as with a kink in every interval, uᵀHv must be vᵀHu. The
    gradient, if it was not checked yet, is compared with the loss at the same two points, if there is one
    batch, and with more care where the product does not agree.

    Args:
        graph: the graph of the first batch at θ, where there is one already.

    Raises:
        InputError: they disagree; the message names the parameters.
        Exception: whatever the product raises.
    """
    if graph is None or len(objective.batches) > 1:
        check_gradient(objective, trust)
    if strategy not in trust.products:
        of = objective.unchecked()
        doubtful = [] if _confirmed(of.first_batch(), trust, multiply, graph) else [of.first_batch()]
        check_gradient(objective, trust, graph)
        said = (_wrong_products(one, trust, multiply) for one in chain(doubtful, _other_ways(of, trust)))
        trust.products[strategy] = next(filter(None, said), None)
    if wrong := trust.products[strategy]:
        raise InputError(f"{strategy} mode has a derivative of this loss wrong: {wrong}")


def _compared(of: Differentiable, trust: Trust, own: Tensor) -> str:
    """Compare ∇L with differences of L in each precision, and return what is then known of it.

    Raises:
        InputError: as `check_gradient`.
    """
    if infinite := _infinite(of, own):
        raise InputError(
            f"autograd's gradient of {_some(infinite)} is not finite where the loss is: torch.where hides an "
            "infinite slope from the value alone; keep what it leaves out away from the function"
        )
    trust.count()
    for number, differences in enumerate(_precisions(of, trust)):
        said, wrong = CHECKED + differences.said, None
        if differences.said and straight_through(of.traced(of.batches[0])[1]):  # its steps look like a slope
            raise InputError(
                "the loss is a step function of the weights, which fake_quantize rounds, and autograd's "
                "gradient is not its slope; measure it without (torch.ao has disable_fake_quant), "
                "or give check=False"
            )
        with suppress(*differences.failures):
            if not number and differences.confirms_gradient(own):
                return said
            wrong = differences.of_loss()
        if wrong:
            raise InputError(
                f"autograd's gradient of {_some(wrong)} is not the slope of the loss; mend what changes it "
                "(detach, grad without create_graph, a hook, a backward of its own), exclude these "
                "parameters, or give check=False"
            )
        if wrong is not None:
            if worse := _coarser(of, differences.of, lambda o: o.grad()):
                raise InputError(
                    f"the gradient of {_some(worse)} differs from that in float64 by more than a tenth; give "
                    "check=False to measure it anyway"
                )
            return said
    return "unchecked: differences of the loss are too coarse"


def _wrong_products(of: Differentiable, trust: Trust, multiply: Multiply) -> str | None:
    """Compare products with differences of the gradient in each precision, and return what is wrong."""

    def product(of: Differentiable, seed: int = 0) -> Tensor:
        return multiply(of, drawn(of.params, seed))

    infinite = _infinite(of, product(of))
    for differences in _precisions(of, trust):
        wrong = None
        with suppress(*differences.failures):
            if infinite:
                return f"Hv is not finite in {_some(infinite)}" if differences.settles() else None
            wrong = differences.of_gradient(multiply)
        if wrong:
            return f"Hv differs from differences of the gradient in {_some(wrong)}"
        if wrong is not None:
            worse = _coarser(of, differences.of, product) or differences.of_coarser(of, multiply, COARSE)
            return f"Hv differs from that in float64 in {_some(worse)}" if worse else None
    (u, hu), (v, hv) = ((drawn(of.params, seed), product(of, seed)) for seed in (1, 0))
    one, other, scale = float(u @ hv), float(v @ hu), float(hv.norm() * u.norm() + hu.norm() * v.norm())
    if abs(one - other) > ASYMMETRY * scale:
        return f"uᵀHv is {one:g}, vᵀHu {other:g}"
    return None


def _confirmed(of: Differentiable, trust: Trust, multiply: Multiply, graph: Graph | None) -> bool:
    """Look at a product of the first batch, and at its gradient if that was not checked; note what agrees.

    Returns:
        Whether the product agrees with a difference of the gradient.
    """
    d, slope = drawn(of.params, 0), None
    parts = list(of.params.split(d).values())
    own = [folded(t) for t in (graph(parts) if graph else of.params.split(multiply(of, d)).values())]
    if graph and not trust.gradient:
        slope = along(pieces_of([g.detach() for g in graph.grads], parts))
    del d, parts
    for differences, tol in _looks(of, trust, graph):
        trust.count()
        agree = sloped = False
        with suppress(*differences.failures):
            d = drawn(of.params, 0).to(differences.of.theta)  # which is written over
            agree, sloped = differences.confirms(d, own, slope, tol)
        if agree:
            trust.gradient = CHECKED if sloped else trust.gradient
            trust.double = trust.double if differences.like is None else torch.float64
            return True
    return False


def _sloped(of: Differentiable, trust: Trust) -> bool:
    """Tell whether a batch's gradient is seen to be the slope of its loss, in the memory of a product."""
    d = drawn(of.params, 0)
    leaves, total = of.traced(of.batches[0])
    slope = along(pieces_of(gradient_of(total, leaves), of.params.split(d).values()))
    del leaves, total
    trust.count()
    differences = Differences(of, torch.float32, trust.count)
    with suppress(*differences.failures):
        return differences.confirms(d, None, slope, tol=0.0)[1]
    return False


def _looks(of: Differentiable, trust: Trust, graph: Graph | None) -> Iterator[tuple[Differences, float]]:
    """Yield differences at which a product is looked at first, and the share by which it may differ there.

    Those in float32 cost half of those in float64 and are as sharp on a smooth loss. With kinks
    they tell nothing, since kinks lie in every interval of their length.
    """
    single = of.theta.dtype == torch.float32
    if _large(of):
        yield (coarse := Differences(of, torch.float32, trust.count)), coarse.tol
        return
    if single and graph:
        kinks = kinked(graph.grads)
        if not kinks:
            yield Differences(of, torch.float32, trust.count), ROUNDED
        if trust.double is None:  # whether the loss is the same there, the look tells
            with suppress(Exception):  # of `in_float64`, which `_doubled` notes
                yield (
                    Differences(of.in_float64(), torch.float64, trust.count, graph.total.item(), kinks),
                    ROUNDED,
                )
    finest = next(_precisions(of, trust))
    yield finest, max(finest.tol, ROUNDED) if single else finest.tol


def _other_ways(of: Differentiable, trust: Trust) -> Iterator[Differentiable]:
    """Yield the loss of each batch after the first whose graph has an operation that those before lack."""
    known: set[str] = set()
    for number, one in enumerate(of.per_batch() if len(of.batches) > 1 else ()):
        found = operations([one.traced(one.batches[0])[1]])
        trust.count()
        if number and not found <= known:
            yield one
        known |= found


def _precisions(of: Differentiable, trust: Trust) -> Iterator[Differences]:
    """Yield the precisions in which a loss may be differenced, the finest first.

    A loss of `logits.float()`, as Hugging Face's are, has the fine steps of float32 under its sums: weights
    in float64, and differences as coarse as float32.
    """
    double = _doubled(of, trust)
    if double is not None and trust.double == torch.float64:
        yield Differences(double, torch.float64, trust.count)
    yield Differences(double or of, torch.float32, trust.count)


def _doubled(of: Differentiable, trust: Trust) -> Differentiable | None:
    """Return the loss with weights and batches in float64, as they may be; None if it is not the same there.

    Whether it is, and how finely the loss itself is rounded then, is found out once and noted.
    """
    if trust.double == "missing" or (of.params.numel > HUGE and of.theta.dtype != torch.float64):
        return None
    try:
        double = of if of.theta.dtype == torch.float64 else of.in_float64()
        if trust.double is None:
            found = double.traced(double.batches[0])[1]
            own, value = found.item() if double is of else of.first_batch().value(), found.item()
            trust.double = found.dtype if alike(value, own) else "missing"
    except Exception:  # a kernel that float64 does not have, or types that do not mix
        trust.double = "missing"
    return None if trust.double == "missing" else double


def _large(of: Differentiable) -> bool:
    return of.theta.dtype == torch.float32 and of.params.numel > LARGE


def _coarser(
    own: Differentiable, precise: Differentiable, derivative: Callable[[Differentiable], Tensor]
) -> Verdict:
    """Return where the first batch's derivative differs grossly in two precisions, at θ and beside it."""
    if own.theta.dtype == precise.theta.dtype:
        return []
    own, precise, differing = own.first_batch(), precise.first_batch(), list[str]()
    for theta in (own.theta, own.theta + AROUND[-1] * drawn(own.params, 20)):
        mine, fine = derivative(own.moved(theta)), derivative(precise.moved(theta.double()))
        floor = 0.1 * COARSE * float(fine.norm())
        pairs = zip(own.params.split(mine).items(), own.params.split(fine).values(), strict=True)
        differing = [n for (n, a), b in pairs if float((a - b).norm()) > COARSE * float(b.norm()) + floor]
        if not differing:
            break
    return differing


def _infinite(of: Differentiable, vector: Tensor) -> list[str]:
    """Return the tensors in which a vector is not finite."""
    return [name for name, part in of.params.split(vector).items() if not math.isfinite(size_of(part))]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""The second-order matrices of an objective, each known by its products with vectors."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.curvature.budget import for_graphs
from landscape.curvature.linear import LinearOperator
from landscape.curvature.matrix import MOST, Operator
from landscape.curvature.products import (
    BatchProduct,
    Checked,
    EmpiricalFisher,
    GaussNewton,
    HessianForward,
    HessianReverse,
    by_differences,
    is_checked,
)
from landscape.errors import InputError
from landscape.objective.affine import affine_in_each
from landscape.objective.objective import Objective
from landscape.objective.shards import greatest, least
from landscape.objective.supervised import need_objective
from landscape.runtime.arguments import Size, checks_arguments
from landscape.runtime.devices import fastest, free_memory, measured

Kind = Callable[[Objective, Any], BatchProduct]
PARTS = 1e-4  # share by which a loss may differ from what its two parts make
ROUNDED = 1e-6  # the same, of the loss far from θ: what float32 rounds where θ fits nearly all
SAME = 16  # units in the last place by which one loss may differ, computed in two ways
ProductStrategy = Literal["reverse", "forward", "differences"]


@checks_arguments
def hessian(
    objective: Objective,
    strategy: ProductStrategy | None = None,
    tune: bool = False,
    *,
    memory: Size | None = None,
) -> Operator:
    """Return ∇²L(θ), which need not be definite.

    How products are computed follows from a rule, so that equal runs give equal digits:

    1. `reverse` differentiates ∇L · v (Pearlmutter 1994). The graph of ∇L is kept from product to product for
       as many batches as half of the free memory holds, and rebuilt for the others.
    2. `forward` carries v forward through the gradient (forward over reverse), which keeps nothing: where
       `reverse` cannot follow the loss.
    3. `differences` of gradients in float64 (in θ's precision, where the loss works in no other) need one
       derivative only: where neither can follow the loss. A warning says so.

    Whether torch's second derivatives are right is checked first, once for each objective: a product of the
    first batch is compared with differences of its gradient. Where they differ, the next strategy is tried.

    Args:
        objective: L, at θ.
        strategy: `reverse`, `forward` or `differences`, instead of the rule.
        tune: measure the first two, threads, and several vectors at once, and take what is fastest. The last
            digits of results may then differ from run to run.
        memory: bytes that graphs may take which are kept, by default half of the free memory.

    Raises:
        InputError: there is no such strategy, the one asked for cannot follow the loss, the loss has no
            derivatives, its gradient is wrong, or `tune` is for a sharded model.
    """
    need_objective(objective)
    if tune and objective.params.sharded:
        raise InputError("a sharded model has one strategy; leave out tune")
    builders: Mapping[str, Callable[[Objective], Operator]] = {
        "reverse": partial(_reverse, memory=memory),
        "forward": _forward,
        "differences": _differences,
    }
    if strategy is not None:
        found = [builders[strategy](objective)]
    else:
        found, failures = [], []
        for name in ("reverse", "forward"):
            try:
                found.append(builders[name](objective))
            except InputError as error:
                failures.append(str(error))
            if found and not tune:
                break
    if not found:
        found = [_differences(objective)]
        found[0](objective.theta)  # a loss that has no gradient either says so itself, before the warning
        said = "; ".join(dict.fromkeys(failures))
        warnings.warn(f"{said}; products are differences of gradients", stacklevel=2)
    return _tuned(found) if tune else found[0]


def _reverse(objective: Objective, memory: int | None) -> Operator:
    def kind(objective: Objective, batch: Any) -> HessianReverse:
        return HessianReverse(objective.unchecked(), batch)  # checked by then

    with _following("reverse"):
        built = partial(kind, objective, objective.batches[0])
        first = measured(built, objective.theta.device)
        _check("reverse", HessianReverse, objective, first[0])
    return _Graphs(objective, kind, first, memory).operator("hessian", "reverse over reverse")


def _forward(objective: Objective) -> Operator:
    with _following("forward"):
        _check("forward", HessianForward, objective)
    return Operator(objective, "hessian", "forward over reverse", partial(HessianForward, objective))


def _differences(objective: Objective) -> Operator:
    return Operator(objective, "hessian", "differences of gradients", by_differences(objective), at_once=1)


def _check(strategy: str, kind: Kind, objective: Objective, graph: HessianReverse | None = None) -> None:
    """Make sure that a strategy can follow the loss, and that its products are right, by the first batch.

    Args:
        graph: the graph of the first batch, where there is one already.

    Raises:
        InputError: its second derivative is wrong.
        Exception: whatever torch raises where it cannot follow the loss.
    """

    def multiply(of: Objective, vector: Tensor) -> Tensor:
        parts = list(of.params.split(vector).values())
        return of.params.flat(kind(of, of.batches[0])(parts))

    if not objective.check_products(strategy, multiply, graph):
        along = list(objective.params.split(objective.theta).values())
        (graph or kind(objective.first_batch(), objective.batches[0]))(along)


@contextmanager
def _following(strategy: str) -> Iterator[None]:
    """Say which strategy it was that torch could not follow.

    Raises:
        InputError: torch cannot follow the loss.
    """
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(f"{strategy} mode cannot follow this loss ({type(error).__name__})") from None


def _tuned(found: Sequence[Operator]) -> Operator:
    """Return the operator whose product takes the least time, with as many threads and vectors as is best."""
    vector = torch.ones_like(found[0].objective.theta)
    rows, device = vector.expand(4, -1), vector.device

    def product(choice: tuple[Operator, int]) -> int:
        choice[0].threads = choice[1]
        choice[0]._sum(vector)
        return 1

    choices = [(operator, threads) for operator in found for threads in {1, operator.threads}]
    operator, threads = fastest(choices, product, device)
    operator.threads = threads

    def four(at_once: int) -> int:
        for some in torch.split(rows, at_once):
            operator._sum(some if at_once > 1 else some[0], at_once > 1)
        return len(rows)

    with warnings.catch_warnings(action="ignore"):  # vmap warns where it is slow, which is measured
        operator.at_once = min(operator.objective.ranks.gathered(fastest([1, len(rows)], four, device)))
    return operator


@checks_arguments
def gauss_newton(objective: Objective, *, memory: Size | None = None) -> Operator:
    """Return the generalized Gauss-Newton matrix Σ Jᵀ (∇²ℓ) J / Σ weights, never negative for a convex ℓ.

    The loss is ℓ(z(θ)), z the outputs of the objective's `forward` and J their Jacobian (Schraudolph
    2002, "Fast Curvature Matrix-Vector Products"). For a softmax or a logistic loss it is the Fisher matrix.

    Args:
        objective: L, at θ, with its `forward` and `criterion`.
        memory: as for `hessian`.

    Raises:
        InputError: the objective was not given the two parts of its loss, they do not make up its value, the
            first returns something else than a tensor; or a derivative of the outputs, or a second one of the
            criterion, is wrong. Both are checked.
    """
    need_objective(objective)
    first = objective.batches[0]
    outputs = objective.traced(first, "outputs")[1]
    if not isinstance(outputs, Tensor):
        raise InputError(f"forward returns {type(outputs).__name__}, and this matrix takes a tensor")
    whole, both = _by_both(objective, first, outputs)
    if not math.isclose(whole, both, rel_tol=PARTS) and not _rounding(objective, whole - both):
        raise InputError(f"criterion(forward) is {both:g} on the first batch, but the loss is {whole:g}")
    free = Objective(
        _Free(outputs),
        [first],
        lambda free, batch: (objective.criterion(free.outputs, batch), 1),
        check=is_checked(objective),
    )
    with _following("the criterion's reverse"):
        _check("the criterion's reverse", HessianReverse, free)
    return _outer(objective, GaussNewton, memory).operator("gauss-newton", "Jᵀ(Hℓ)J")


def _rounding(objective: Objective, missed: float) -> bool:
    """Tell whether a loss that is nearly 0 at θ may be off by so much, beside what it is far from θ."""
    there = _far(objective).traced(objective.batches[0])[1]
    return abs(missed) <= ROUNDED * abs(float(there.detach()))


def _far(objective: Objective) -> Objective:
    """Return the loss at half of all weights, and at ½ for tensors of zeros."""
    parts = objective.params.split(objective.theta).values()
    return objective.moved(objective.params.flat(part / 2 if part.any() else part + 0.5 for part in parts))


def _outer(objective: Objective, kind: type[GaussNewton | EmpiricalFisher], memory: int | None) -> "_Graphs":
    """Return Jᵀ M J of each batch, whose J is `Checked`.

    Raises:
        InputError: that of the first, or of one that is kept, is wrong.
    """
    build = Checked(kind)
    first = measured(partial(build, objective, objective.batches[0]), objective.theta.device)
    return _Graphs(objective, build, first, memory)


def _by_both(objective: Objective, batch: Any, outputs: Tensor) -> tuple[float, float]:
    """Return the summed loss of a batch as the objective has it, and as its criterion makes it of outputs."""
    whole, made = objective.traced(batch)[1], objective.criterion(outputs, batch)
    return float(whole.detach()), float(made.detach())


class _Free(nn.Module):
    """The outputs of a batch as parameters, so that the criterion is a loss of its own."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs.detach().clone())


@checks_arguments
def empirical_fisher(objective: Objective, *, memory: Size | None = None) -> Operator:
    """Return the empirical Fisher matrix Σ_u ∇ℓ_u ∇ℓ_uᵀ / Σ weights, over the examples u of the objective.

    It takes the gradients at the true labels, and is a Fisher matrix in no other sense (Kunstner et al. 2019,
    arXiv 1905.12558).

    Args:
        objective: L, at θ, with its `per_example`.
        memory: as for `hessian`.

    Raises:
        InputError: the objective was not given its loss per example, or torch has its derivative wrong.
    """
    need_objective(objective)
    return _outer(objective, EmpiricalFisher, memory).operator("fisher", "JᵀJ")


MATRICES: Mapping[str, Callable[..., Operator]] = {
    "hessian": hessian,
    "gauss-newton": gauss_newton,
    "fisher": empirical_fisher,
}


def operator_of(target: Objective | LinearOperator, memory: int | None = None) -> LinearOperator:
    """Return the operator, or the Hessian of an objective, which keeps graphs in its share of the `memory`.

    Raises:
        InputError: it is neither, or it is not square.
    """
    if isinstance(target, Objective):
        return hessian(target, memory=for_graphs(memory))
    if isinstance(target, nn.Module):
        need_objective(target)
    if not isinstance(target, LinearOperator) or len(set(target.shape)) != 1:
        raise InputError(
            f"{type(target).__name__} is neither an objective nor a linear operator: "
            "it needs a square shape, dtype, device, and a product with a vector"
        )
    return target


def of_same_diagonal(target: Objective | LinearOperator) -> Objective | LinearOperator:
    """Return a matrix with the Hessian's diagonal and less beside it, where there is one; else the target.

    ∇²L = Σ Jᵀ(∇²ℓ)J + Σ ∂ℓ/∂z_k ∇²z_k over the examples. Where the outputs z are piecewise affine in each
    tensor of weights, the second sum has zeros on its diagonal (Botev et al. 2017, arXiv 1706.03662), and all
    that it adds to an estimate from random signs is noise: for a ResNet-18 with random weights, 60 times the
    error. What is left is the Gauss-Newton matrix.
    """
    objective, memory = target, None
    if isinstance(target, Operator) and target.name == "hessian":
        objective, memory = target.objective, max(1, 2 * target.held)  # graphs, and a product beside them
    if not isinstance(objective, Objective) or objective.params.sharded:
        return target
    try:
        alike = all(_only_cross_terms(objective, batch) for batch in objective.batches)
        if not all(objective.ranks.gathered(alike)):
            return target
        found = gauss_newton(objective, memory=memory)
    except InputError:  # it has no such parts, or they are not right
        return target
    found.name = "hessian"
    return found


def _only_cross_terms(objective: Objective, batch: Any) -> bool:
    """Tell whether the Gauss-Newton matrix of a batch leaves out zeros of the Hessian's diagonal alone.

    The loss has to be that of the outputs to the last digits, as a small penalty on weights has a large
    trace; and far from θ too, as a penalty on the distance from θ is 0 there.
    """
    leaves, outputs = objective.traced(batch, "outputs")
    if not isinstance(outputs, Tensor) or not affine_in_each(outputs, leaves):
        return False
    there = _far(objective)
    pairs = (objective, outputs), (there, there.traced(batch, "outputs")[1])
    share = SAME * torch.finfo(objective.theta.dtype).eps
    losses = (_by_both(of, batch, made) for of, made in pairs)
    return all(abs(whole - both) <= share * abs(whole) for whole, both in losses)


def described(operator: LinearOperator) -> tuple[dict[str, str], dict[str, str]]:
    """Return what results say of an operator, and of where it came from: settings and provenance."""
    if isinstance(operator, Operator):
        return {"matrix": operator.name, "strategy": operator.strategy}, operator.provenance
    return {"matrix": type(operator).__name__, "strategy": "the operator's own"}, {}


class _Graphs:
    """One product per batch, kept as a graph while half of the free memory lasts, otherwise rebuilt."""

    def __init__(
        self, objective: Objective, kind: Kind, first: tuple[BatchProduct, int], memory: int | None
    ) -> None:
        """Build as many graphs as memory holds.

        Args:
            first: the graph of the first batch, and its size.
            memory: bytes for them and a product; by default half of the free memory.
        """
        self.objective, self.kind = objective, kind
        room = free_memory(objective.theta.device) // 2 + first[1]
        room = least(room if memory is None else min(room, memory), objective.theta)
        self.kept: list[BatchProduct] = []
        used = largest = 1
        for number, batch in enumerate(objective.batches):
            if used + largest > room:
                break
            build = partial(kind, objective, batch)
            graph, size = measured(build, objective.theta.device) if number else first
            size = greatest(size, objective.theta)
            largest = max(largest, size)
            if used + size + largest > room:  # a product takes about as much as the largest graph again
                break
            self.kept.append(graph)
            used += size
        self.held = used - 1
        self.at_once = max(1, min(MOST, int((room - used) / largest)))

    def operator(self, name: str, computed: str) -> Operator:
        """Return the matrix of these products."""
        said = f"{computed}, {len(self.kept)} of {len(self.objective.batches)} graphs kept"
        build = partial(self.kind, self.objective)
        return Operator(self.objective, name, said, build, self.kept, self.at_once, self.held)

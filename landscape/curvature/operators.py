"""The matrices of second order of one objective, each known by its products with vectors."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from landscape.curvature.products import (
    BatchProduct,
    EmpiricalFisher,
    GaussNewton,
    HessianForward,
    HessianReverse,
    Parts,
    by_differences,
)
from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime.devices import free_memory
from landscape.runtime.threads import one_each

Way = Literal["reverse", "forward", "differences"]
ASYMMETRY = 3e-3  # in units of ‖Hv‖, v a standard normal vector: a hundred times what float32 rounds


class Operator:
    """A symmetric matrix A of an objective: `operator(v)` is A v.

    SciPy takes it as it is: it has `shape`, `dtype`, `matvec` and `matmat`, so that
    `scipy.sparse.linalg.eigsh(operator, 5)` and `aslinearoperator(operator)` work.

    Attributes:
        objective: whose matrix it is.
        name: `hessian`, `gauss-newton` or `fisher`.
        way: how a product is computed.
    """

    def __init__(
        self,
        objective: Objective,
        name: str,
        way: str,
        products: Sequence[Callable[[], BatchProduct]],
        kept: int = 0,
    ) -> None:
        self.objective = objective
        self.name = name
        self.way = way
        self._products = products
        self._kept = products[:kept]  # these touch no module, so that threads may have one each
        self._at_once: bool | None = None
        self._threads = self._threads_that_pay()
        if self._threads > 1:
            self.way += f", {self._threads} threads"
        if objective.ranks.size > 1:
            self.way += f", {objective.ranks.size} ranks"

    def __call__(self, vector: Tensor) -> Tensor:
        """Return A v, shape (n,), in the precision of θ. Sums over batches are in float64."""
        return self._sum(vector)

    def many(self, vectors: Tensor) -> Tensor:
        """Return A v of each row of `vectors`, shape (K, n); at once where that was measured as faster."""
        if len(vectors) < 2 or not self.pays(len(vectors)):
            return torch.stack([self(v) for v in vectors]) if len(vectors) else vectors
        with warnings.catch_warnings(action="ignore"):  # vmap warns where it is slow, which was timed
            return self._sum(vectors, at_once=True)

    def _sum(self, vectors: Tensor, at_once: bool = False) -> Tensor:
        theta = self.like
        parts = self._split(vectors.to(theta))
        total = torch.zeros(vectors.shape, dtype=torch.float64, device=theta.device)
        sums = self._split(total)
        for found in self._by_batch(lambda build: build()(parts, at_once)):
            for summed, part in zip(sums, found, strict=True):
                summed.add_(part)
        return (self.objective.ranks.summed(total) / self.objective.weight).to(theta.dtype)

    def _split(self, vectors: Tensor) -> Parts:
        return list(self.objective.params.split(vectors).values())

    def _by_batch(self, compute: Callable[[Callable[[], BatchProduct]], Parts]) -> Iterator[Parts]:
        """Yield what is computed of each batch, in order: of kept graphs in threads, if those pay."""
        threaded = self._kept if self._threads > 1 else []
        if threaded:
            with one_each(self._threads) as pool:
                yield from pool.map(compute, threaded)
        yield from map(compute, self._products[len(threaded) :])

    def _threads_that_pay(self) -> int:
        """Time a batch for each thread of the CPU, side by side and one after another."""
        threads, theta = torch.get_num_threads(), self.like
        if theta.device.type != "cpu" or not 1 < threads <= len(self._kept):
            return 1
        parts = self._split(torch.ones_like(theta))
        some = self._kept[:threads]

        def side_by_side() -> None:
            with one_each(threads) as pool:
                list(pool.map(lambda build: build()(parts), some))

        beside = _seconds(side_by_side, theta.device)
        after = _seconds(lambda: [build()(parts) for build in some], theta.device)
        return threads if beside < after else 1

    def pays(self, count: int) -> bool:
        """Tell whether several vectors at once beat one after another, as measured by the first call."""
        if self._at_once is None:
            product, theta = self._products[0](), self.like
            parts = self._split(torch.ones_like(theta).expand(count, -1))
            try:
                with warnings.catch_warnings(action="ignore"):
                    at_once = _seconds(lambda: product(parts, True), theta.device)
            except Exception:  # what `vmap` cannot follow, or no memory
                self._at_once = False
            else:
                one = _seconds(lambda: product([part[0] for part in parts]), theta.device)
                self._at_once = at_once < count * one
            self._at_once = all(self.objective.ranks.gathered(self._at_once))  # each product is a sum of all
        return self._at_once

    @property
    def like(self) -> Tensor:
        """A vector of the kind that products take: θ."""
        return self.objective.theta

    @property
    def provenance(self) -> dict[str, str]:
        """What results should say of the objective."""
        return self.objective.provenance

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.like.numel(), self.like.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of θ."""
        return np.dtype(str(self.like.dtype).removeprefix("torch."))

    def matvec(self, vector: NDArray[Any]) -> NDArray[Any]:
        """Return A v in NumPy, for SciPy. Shape (n,) or (n, 1), as it is given."""
        return self(self._tensor(vector.reshape(-1))).cpu().numpy().reshape(vector.shape)

    def matmat(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return A V in NumPy, shape (n, K), for SciPy."""
        return self.many(self._tensor(vectors.T)).T.cpu().numpy()

    rmatvec, rmatmat = matvec, matmat  # it is symmetric

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.like)


def hessian(objective: Objective, way: Way | None = None) -> Operator:
    """Return ∇²L(θ), which need not be definite.

    `reverse` differentiates ∇L · v (Pearlmutter 1994), whose graph is kept from product to product for as
    many batches as half of the free memory holds, and built anew for the others. `forward` carries v forward
    through the gradient (forward over reverse); it keeps nothing. `differences` of gradients in float64 (in
    θ's precision, where the loss knows no other) need one derivative alone. By default what is faster on one
    batch of the first two, and the third, with a warning, where neither can follow the loss or both are found
    to be wrong, which torch's second derivatives sometimes are.

    Args:
        objective: L, at θ.
        way: `reverse`, `forward` or `differences`; by default chosen as above.

    Raises:
        InputError: a way was asked for that cannot follow the loss, or the loss has no derivatives.
    """
    kept: list[_Graphs] = []

    def reverse() -> BatchProduct:
        kept.append(_Graphs(objective, HessianReverse))
        return next(iter(kept[0]))()

    def forward() -> BatchProduct:
        return HessianForward(objective, objective.batches[0])

    seconds: dict[Way, float] = {}
    for mode, build in {"reverse": reverse, "forward": forward}.items():
        if way in (None, mode):
            try:
                seconds[cast(Way, mode)] = _tried(mode, build, objective)
            except InputError as error:
                if way:
                    raise
                failure = error
    if not seconds:
        products: Sequence[BatchProduct] = by_differences(objective)
        products[0](list(objective.params.split(objective.theta).values()))
        if way is None:
            warnings.warn(f"{failure}; products are differences of gradients", stacklevel=2)
        return _of_products(objective, "differences of gradients", products)
    if min(seconds, key=lambda mode: seconds[mode]) == "reverse":
        return kept[0].operator("hessian", "reverse over reverse")
    products = [HessianForward(objective, batch) for batch in objective.batches]
    return _of_products(objective, "forward over reverse", products)


def _of_products(objective: Objective, way: str, products: Sequence[BatchProduct]) -> Operator:
    return Operator(objective, "hessian", way, [_given(product) for product in products])


def _tried(mode: str, build: Callable[[], BatchProduct], objective: Objective) -> float:
    """Take products of the first batch along two vectors, and return the seconds of one.

    Raises:
        InputError: torch cannot follow the loss, or its second derivative is none: H is not symmetric.
    """
    theta = objective.theta
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(theta.shape, generator=generator, dtype=theta.dtype).to(theta) for _ in range(2)]
    parts = [list(objective.params.split(vector).values()) for vector in vectors]
    try:
        product = build()
        (u, v), (hu, hv) = vectors, (objective.params.flat(product(part)) for part in parts)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever torch cannot follow
        raise InputError(f"{mode} mode cannot follow this loss ({type(error).__name__})") from None
    one, other, scale = float(u @ hv), float(v @ hu), float(hu.norm() + hv.norm())
    if abs(one - other) > ASYMMETRY * scale:  # torch 2.13 has weight_norm wrong on CPUs
        raise InputError(f"{mode} mode has a derivative of this loss wrong: uᵀHv is {one:g}, vᵀHu {other:g}")
    return _seconds(lambda: product(parts[0]), theta.device)


def gauss_newton(objective: Objective) -> Operator:
    """Return the generalized Gauss-Newton matrix Σ Jᵀ (∇²ℓ) J / Σ weights, never negative for a convex ℓ.

    The loss is ℓ(z(θ)), z the outputs of the objective's `forward` and J their Jacobian (Schraudolph
    2002, "Fast Curvature Matrix-Vector Products"). For a softmax or a logistic loss it is the Fisher matrix.

    Args:
        objective: L, at θ, with its `forward` and `criterion`.

    Raises:
        InputError: the objective was not given the two parts of its loss, or they do not make up its value.
    """
    first = objective.batches[0]
    outputs = objective.traced(first, "outputs")[1]
    whole, both = (
        float(t.detach()) for t in (objective.traced(first)[1], objective.criterion(outputs, first))
    )
    if not np.isclose(whole, both, rtol=1e-4, atol=1e-6):
        raise InputError(f"criterion(forward) is {both:g} on the first batch, and the loss {whole:g}")
    return _Graphs(objective, GaussNewton).operator("gauss-newton", "Jᵀ(Hℓ)J")


def empirical_fisher(objective: Objective) -> Operator:
    """Return the empirical Fisher matrix Σ_u ∇ℓ_u ∇ℓ_uᵀ / Σ weights, over the examples u of the objective.

    It takes the gradients at the true labels, and is a Fisher matrix in no other sense (Kunstner et al. 2019,
    arXiv 1905.12558).

    Args:
        objective: L, at θ, with its `per_example`.

    Raises:
        InputError: the objective was not given its loss per example.
    """
    return _Graphs(objective, EmpiricalFisher).operator("fisher", "JᵀJ")


def unit_slopes(objective: Objective, vector: Tensor) -> NDArray[np.float64]:
    """Return ⟨∇s_u, v⟩, the derivative of each unit's sum of the loss along v, shape (units,).

    Raises:
        InputError: the objective was not given its loss per example.
    """
    parts = list(objective.params.split(vector.to(objective.theta)).values())
    slopes = [EmpiricalFisher(objective, batch).tangent(parts) for batch in objective.batches]
    found: NDArray[np.float64] = np.concatenate(
        objective.of_all([slope.detach().double().cpu().numpy() for slope in slopes])
    )
    return found


MATRICES: Mapping[str, Callable[[Objective], Operator]] = {
    "hessian": hessian,
    "gauss-newton": gauss_newton,
    "fisher": empirical_fisher,
}


def operator_of(target: Objective | Operator) -> Operator:
    """Return the operator, or the Hessian of an objective."""
    return target if isinstance(target, Operator) else hessian(target)


class _Graphs:
    """One product a batch, kept as a graph while half of the free memory lasts, else built when asked."""

    def __init__(self, objective: Objective, kind: Callable[[Objective, Any], BatchProduct]) -> None:
        self.objective, self.kind = objective, kind
        room = free_memory(objective.theta.device) / 2
        saved: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(count, lambda tensor: tensor):
            kind(objective, objective.batches[0])  # as large as any, about; not kept, since counting slows it
        kept = int(room / max(1, sum(saved.values())))
        self.kept = [kind(objective, batch) for batch in objective.batches[:kept]]

    def operator(self, name: str, way: str) -> Operator:
        """Return the matrix of these products."""
        said = f"{way}, {len(self.kept)} of {len(self.objective.batches)} graphs kept"
        return Operator(self.objective, name, said, list(self), len(self.kept))

    def __iter__(self) -> Iterator[Callable[[], BatchProduct]]:
        for product in self.kept:
            yield _given(product)
        for batch in self.objective.batches[len(self.kept) :]:
            yield partial(self.kind, self.objective, batch)


def _given(product: BatchProduct) -> Callable[[], BatchProduct]:
    return lambda: product


def _seconds(task: Callable[[], Any], device: torch.device) -> float:
    """Time a task, after a run that is not counted."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best

"""A matrix of an objective, known by its products with vectors."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.curvature.products import BatchProduct, Parts
from landscape.objective.objective import Objective
from landscape.objective.sums import Sum
from landscape.runtime.precision import full_precision
from landscape.runtime.threads import one_each

MOST = 8  # vectors at once on a GPU


class Operator:
    """A symmetric matrix A of an objective: `operator(v)` is A v.

    SciPy takes it as it is: it has `shape`, `dtype`, `matvec` and `matmat`, so that
    `scipy.sparse.linalg.eigsh(operator, 5)` and `aslinearoperator(operator)` work.

    On a CPU, batches whose graphs are kept are multiplied in one thread each, if there are at least as many
    as threads. On a GPU several vectors are multiplied at once (`many`), up to 8 while memory lasts; one
    after another where `vmap` cannot follow. Sums over batches are in their order, and rounded once (`Sum`).

    Args:
        computed: how a product is computed, for `strategy`.
        build: makes the product of a batch.
        kept: products of the first batches, which are not made anew.

    Attributes:
        objective: whose matrix it is.
        name: `hessian`, `gauss-newton` or `fisher`.
        at_once: the most vectors that `many` multiplies at once.
        threads: the number of threads that work on batches.
        held: bytes that its kept graphs hold.
    """

    def __init__(
        self,
        objective: Objective,
        name: str,
        computed: str,
        build: Callable[[Any], BatchProduct],
        kept: Sequence[BatchProduct] = (),
        at_once: int = MOST,
        held: int = 0,
    ) -> None:
        self.objective = objective
        self.name = name
        self.held = held
        self._computed = computed
        self._build = build
        self._kept = kept  # these touch no module, so that threads may have one each
        on_cpu, threads = self.device.type == "cpu", torch.get_num_threads()
        sharded = objective.params.sharded  # then ranks gather weights in one order
        self.threads = threads if on_cpu and threads <= len(kept) and not sharded else 1
        self.at_once = 1 if on_cpu or sharded else min(objective.ranks.gathered(at_once))

    def __repr__(self) -> str:
        return f"Operator: {self.name} of order {self.shape[0]:,} on {self.device}"

    def __call__(self, vector: Tensor) -> Tensor:
        """Return A v, shape (n,), in the precision of θ."""
        return self._sum(vector).mean(self.objective.weight, self.objective.ranks)

    def many(self, vectors: Tensor) -> Tensor:
        """Return A v for each row of `vectors`, shape (K, n)."""
        if min(len(vectors), self.at_once) > 1:
            sums: list[Sum] | None
            try:
                with warnings.catch_warnings(action="ignore"):  # vmap warns where it is slow
                    sums = [self._sum(some, at_once=True) for some in torch.split(vectors, self.at_once)]
            except Exception:  # what vmap cannot follow, or too little memory
                sums = None
            if all(self.objective.ranks.gathered(sums is not None)) and sums is not None:
                return torch.cat([total.mean(self.objective.weight, self.objective.ranks) for total in sums])
            self.at_once = 1
        return torch.stack([self(v) for v in vectors]) if len(vectors) else vectors

    def _sum(self, vectors: Tensor, at_once: bool = False) -> Sum:
        """Return the sum over the batches of this rank."""
        vectors = vectors.to(self.objective.theta)
        total, parts = Sum(vectors), list(self.objective.params.split(vectors).values())
        for found in self._by_batch(lambda product: product(parts, at_once)):
            total.add(found)
        return total

    def _by_batch(self, compute: Callable[[BatchProduct], Parts]) -> Iterator[Parts]:
        """Yield what is computed for each batch, in order; threads take the kept graphs."""
        if self.threads > 1:
            with full_precision, one_each(self.threads) as pool:
                waiting: deque[Future[Parts]] = deque()
                for product in self._kept:
                    if len(waiting) == self.threads:  # no more are held at once
                        yield waiting.popleft().result()
                    waiting.append(pool.submit(compute, product))
                while waiting:
                    yield waiting.popleft().result()
        else:
            yield from map(compute, self._kept)
        for batch in self.objective.batches[len(self._kept) :]:
            yield compute(self._build(batch))

    @property
    def strategy(self) -> str:
        """How a product is computed."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        size = self.objective.ranks.size
        return self._computed + threads + (f", {size} ranks" if size > 1 else "")

    @property
    def provenance(self) -> dict[str, str]:
        """What results should say of the objective."""
        return self.objective.provenance

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.objective.params.numel, self.objective.params.numel

    @property
    def like(self) -> Tensor | None:
        """Zeros of the kind of vector that it takes, where the model is sharded; else None."""
        return torch.zeros_like(self.objective.theta) if self.objective.params.sharded else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of θ, which SciPy asks for."""
        return np.dtype(str(self.objective.theta.dtype).removeprefix("torch."))

    @property
    def device(self) -> torch.device:
        """The device of θ."""
        return self.objective.theta.device

    def matvec(self, vector: NDArray[Any]) -> NDArray[Any]:
        """Return A v in NumPy, for SciPy, in the shape that was given: (n,) or (n, 1)."""
        return self(self._tensor(vector.reshape(-1))).cpu().numpy().reshape(vector.shape)

    def matmat(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return A V in NumPy, shape (n, K), for SciPy."""
        return self.many(self._tensor(vectors.T)).T.cpu().numpy()

    rmatvec, rmatmat = matvec, matmat  # it is symmetric

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.objective.theta)

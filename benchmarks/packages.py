"""What is measured of each package for second derivatives, ours or a peer, the same way for all.

Peers import this in their own environment, so it needs torch alone.
"""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.models import Batch, cross_entropy, drawn
from landscape.runtime.allocations import Allocations

TOP, PRODUCTS, PROBES = 5, 20, 4
EIGENPAIRS, TRACE = f"top {TOP} in {PRODUCTS} products", f"trace, {PROBES} probes"
T = TypeVar("T")
REPEATED = 3  # products of which the median is taken, after one that is not counted


@dataclass(frozen=True)
class Package:
    """How a package is asked.

    Attributes:
        build: model and batch to the operator.
        product: the operator and v, shape (n,), to Hv.
        eigenpairs: the operator to the five largest eigenvalues that 20 products find, and their vectors,
            shape (5, n).
        trace: the operator to what it estimates from four probes.
    """

    build: Callable[[nn.Module, Batch], Any]
    product: Callable[[Any, Tensor], Tensor]
    eigenpairs: Callable[[Any], tuple[Tensor, Tensor]]
    trace: Callable[[Any], Any]


def measured(package: Package, name: str, counted: bool, eigenvalues: bool) -> dict[str, Any]:
    """Measure a package on a model: CPU seconds of set-up and of each cell, None where memory is short.

    Args:
        counted: measure the peak of memory and the residuals as well, which no other run would change.
        eigenvalues: look for them, which takes most of the time.
    """
    model, batch, along = drawn(name)
    vector = flat(along)
    plain = of_several(lambda: plain_product(model, batch, along))  # and torch is warm
    operator, setup = cpu_seconds(lambda: package.build(model, batch))
    seconds: dict[str, float | None] = {"plain product": plain, "set-up": setup}
    found: dict[str, Any] = {"seconds": seconds}
    seconds["product"] = of_several(lambda: package.product(operator, vector))
    cells: dict[str, Callable[[Any], Any]] = {EIGENPAIRS: package.eigenpairs} if eigenvalues else {}
    cells[TRACE] = package.trace
    pairs = None
    for called, compute in cells.items():
        timed = within_memory(partial(cpu_seconds, partial(compute, operator)))
        seconds[called] = timed and timed[1]
        pairs = timed[0] if timed and called == EIGENPAIRS else pairs
        del timed
    if counted:
        exact = flat(plain_product(model, batch, along))
        differing = package.product(operator, vector) - exact
        found["product differs by"] = float(differing.norm() / exact.norm())
        if pairs:
            found["eigenvalues"] = pairs[0].tolist()
            found["residuals"] = residuals(model, batch, *pairs)
        del operator, pairs, exact, differing
        cells = {"product": lambda operator: package.product(operator, vector)} | cells
        known = [*model.parameters(), *model.buffers(), *batch, *along, vector]
        found["peak / θ"] = peaks(lambda: package.build(model, batch), cells, known, vector.nbytes)
    return found


def plain_product(model: nn.Module, batch: Batch, along: Iterable[Tensor]) -> list[Tensor]:
    """Return the Hessian's product as torch gives it, from a graph that is built anew."""
    leaves = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the only backend with second derivatives
        grads = torch.autograd.grad(cross_entropy(model(batch[0]), batch[1]), leaves, create_graph=True)
        return list(torch.autograd.grad(grads, leaves, list(along)))


def flat(parts: Iterable[Tensor]) -> Tensor:
    """Return tensors end to end."""
    return torch.cat([part.detach().flatten() for part in parts])


def split(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """Return a vector as one tensor per parameter."""
    own = list(model.parameters())
    parts = torch.split(vector, [p.numel() for p in own])
    return [part.view_as(p) for part, p in zip(parts, own, strict=True)]


def residuals(model: nn.Module, batch: Batch, values: Tensor, vectors: Tensor) -> list[float]:
    """Measure ‖Hv - λv‖ / |λ| of each pair by plain products."""
    found = []
    for value, vector in zip(values.tolist(), vectors, strict=True):
        unit = vector / vector.norm()
        image = flat(plain_product(model, batch, split(unit, model)))
        found.append(float((image - value * unit).norm()) / abs(value))
    return found


def cpu_seconds(compute: Callable[[], Any]) -> tuple[Any, float]:
    """Return what is computed, and the seconds that this process spent on it."""
    started = time.process_time()
    return compute(), time.process_time() - started


def of_several(compute: Callable[[], Any]) -> float:
    """Return the median of the CPU seconds, after a run that is not counted."""
    return median([cpu_seconds(compute)[1] for _ in range(REPEATED + 1)][1:])


def within_memory(compute: Callable[[], T]) -> T | None:
    """Return what is computed; None if the process may not have so much memory."""
    try:
        return compute()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return None


def peaks(
    build: Callable[[], Any], cells: dict[str, Callable[[Any], Any]], known: Iterable[Tensor], size: int
) -> dict[str, float | None]:
    """Return the peak of new tensors in units of `size` bytes; what set-up leaves behind counts in all."""
    found: dict[str, float | None] = {}
    with Allocations(known) as counted:
        operator = build()
        found["set-up"] = counted.peak / size
        for name, compute in cells.items():
            gc.collect()
            counted.peak = counted.alive
            made = within_memory(partial(compute, operator))
            found[name] = None if made is None else counted.peak / size
            del made
    return found

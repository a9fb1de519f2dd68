"""Ways to evaluate many points: one after another, one in each thread, or many at once."""

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.runtime.devices import free_memory
from landscape.runtime.threads import one_each
from landscape.surface.directions import Direction

Step = tuple[float, ...]
Losses = Generator[float, None, None]
PLAIN = "one after another"


@dataclass(frozen=True)
class Way:
    """A way to evaluate points.

    Attributes:
        name: for results.
        width: how many points it has in hand at a time.
        losses: yields the loss at each step, in order.
    """

    name: str
    width: int
    losses: Callable[[Sequence[Step]], Losses]


def ways(objective: Objective, directions: Sequence[Direction]) -> list[Way]:
    """Return the ways that this machine offers, the plain one first.

    On a CPU, points each in a thread of its own often beat one after another. On a GPU a small model is bound
    by launches, which many points at once share; how many, memory says. Rows of a large table that the frozen
    batches do not read stay where they are, see `Objective.compact`.
    """
    vectors = [d.vector for d in directions]
    if smaller := objective.compact():
        objective, places = smaller
        vectors = [vector[places] for vector in vectors]
    theta = objective.theta

    def value(on: Objective, step: Step) -> float:
        return on.value(moved(theta, step, vectors))

    def one_by_one(steps: Sequence[Step]) -> Losses:
        yield from map(partial(value, objective), steps)

    def at_once(count: int, steps: Sequence[Step]) -> Losses:
        basis = torch.stack(vectors)
        for first in range(0, len(steps), count):
            part = torch.tensor(steps[first : first + count], dtype=torch.float64).to(theta)
            with warnings.catch_warnings(action="ignore"):  # vmap warns where it is slow, which is timed
                losses = objective.values(torch.addmm(theta, part, basis)).tolist()
            yield from losses

    def in_threads(count: int, steps: Sequence[Step]) -> Losses:
        free: SimpleQueue[Objective] = SimpleQueue()
        for _ in range(count):
            free.put(objective.clone())

        def with_a_twin(step: Step) -> float:
            twin = free.get()
            try:
                return value(twin, step)
            finally:
                free.put(twin)

        with one_each(count) as pool:
            yield from pool.map(with_a_twin, steps)

    found = [Way(PLAIN, 1, one_by_one)]
    if theta.device.type == "cpu":
        threads = torch.get_num_threads()
        if threads > 1:
            found.append(Way(f"{threads} threads, a point each", threads, partial(in_threads, threads)))
        counts: tuple[int, ...] = (4,)
    else:
        counts = (4, 16, 64)
    room = _room(objective)
    found += [Way(f"{k} at once", k, partial(at_once, k)) for k in counts if k <= room]
    return found


def moved(theta: Tensor, step: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return θ + Σ step_i v_i."""
    for length, vector in zip(step, vectors, strict=True):
        if length:
            theta = theta + length * vector
    return theta


def _room(objective: Objective) -> int:
    """How many evaluations at once the device's free memory holds, half of it left alone."""
    theta = objective.theta
    if theta.device.type != "cuda":
        needed = 4 * theta.nbytes  # the activations of a batch are small beside a CPU's memory
        return int(free_memory(theta.device) / 2 / needed)
    torch.cuda.reset_peak_memory_stats(theta.device)
    before = torch.cuda.memory_allocated(theta.device)
    objective.value()
    needed = torch.cuda.max_memory_allocated(theta.device) - before + 2 * theta.nbytes
    return int(free_memory(theta.device) / 2 / needed)

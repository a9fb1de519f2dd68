"""Strategies to evaluate many points: one after another, one in each thread, or many at once."""

import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime.devices import fastest, free_memory
from landscape.runtime.threads import one_each
from landscape.surface.directions import Direction

Step = tuple[float, ...]
Losses = Generator[float, None, None]
StrategyName = Literal["sequential", "threads", "vmap"]
_SAID = {"sequential": "sequential", "threads": "{} threads, a point each", "vmap": "vmap, {} points at once"}
PATIENCE = 5.0  # seconds, and twenty times an evaluation, after which another one is taken to be locked out
TRIAL = 6  # points that a strategy is timed on, or twice its width


@dataclass(frozen=True)
class Strategy:
    """A strategy to evaluate points.

    Attributes:
        name: `sequential`, `threads` or `vmap`.
        width: number of points under evaluation at a time.
        losses: yields the loss at each step, in order.
        exact: whether it is the plain one, by which the others are judged.
    """

    name: StrategyName
    width: int
    losses: Callable[[Sequence[Step]], Losses]
    exact: bool = False

    def __str__(self) -> str:
        return _SAID[self.name].format(self.width)


def plain(objective: Objective, directions: Sequence[Direction]) -> Strategy:
    """Return the strategy that all others are compared with: the loss itself, one point after another."""
    return _along(objective, [d.vector for d in directions])


def _along(objective: Objective, vectors: Sequence[Tensor]) -> Strategy:
    theta = objective.theta

    def losses(steps: Sequence[Step]) -> Losses:
        room = torch.empty_like(theta)
        for step in steps:
            yield objective.moved(moved(theta, step, vectors, room)).value()  # which copies no θ

    return Strategy("sequential", 1, losses, exact=True)


def strategies(objective: Objective, directions: Sequence[Direction]) -> list[Strategy]:
    """Return the strategies that this machine offers: `sequential` first, then the others by width.

    Rows of a large table that the frozen batches do not read stay where they are, see `Objective.compact`. A
    point at which the loss reads another row, as it may where weights choose the rows, is evaluated plainly.
    """
    vectors = [d.vector for d in directions]
    last_resort = None
    if smaller := objective.compact():
        last_resort = plain(objective, directions)
        objective, places = smaller
        vectors = [vector[places] for vector in vectors]
    theta = objective.theta

    def at_once(width: int) -> Callable[[Sequence[Step]], Losses]:
        def losses(steps: Sequence[Step]) -> Losses:
            basis = torch.stack(vectors)
            for first in range(0, len(steps), width):
                part = torch.tensor(steps[first : first + width], dtype=torch.float64).to(theta)
                with warnings.catch_warnings(action="ignore"):  # vmap warns where it is slow
                    found = objective.values(torch.addmm(theta, part, basis)).tolist()
                yield from found

        return losses

    def in_threads(steps: Sequence[Step]) -> Losses:
        free: SimpleQueue[tuple[Objective, Tensor]] = SimpleQueue()
        for _ in range(threads):
            free.put((objective.clone(), torch.empty_like(theta)))

        def with_a_clone(step: Step) -> float:
            clone, room = free.get()
            try:
                return clone.moved(moved(theta, step, vectors, room)).value()
            finally:
                free.put((clone, room))

        with one_each(threads) as pool:
            yield from pool.map(with_a_clone, steps)

    found = [_along(objective, vectors)]
    if objective.params.sharded:
        return found
    room, threads = _room(objective), torch.get_num_threads()
    if theta.device.type == "cpu" and 1 < threads <= room and _independent(objective, vectors):
        found.append(Strategy("threads", threads, in_threads))
    widths = (4,) if theta.device.type == "cpu" else (4, 16, 64)
    found += [Strategy("vmap", width, at_once(width)) for width in widths if width <= room]
    return [_completed(strategy, last_resort) for strategy in found] if last_resort else found


def by_rule(offered: Sequence[Strategy], count: int, on_gpu: bool) -> Strategy:
    """Choose a strategy for `count` points by what is known beforehand, so that equal runs choose alike.

    On a CPU: a point in each thread, where there are at least as many points as threads; on a GPU, as many
    points at once (64, 16 or 4) as half of the free memory holds; otherwise one after another. `vmap` never
    won on a CPU, and on a GPU a small model is bound by launches, which points evaluated at once share.
    """
    if on_gpu:
        return offered[-1]
    threads = [strategy for strategy in offered if strategy.name == "threads" and strategy.width <= count]
    return threads[0] if threads else offered[0]


def named(offered: Sequence[Strategy], name: StrategyName) -> Strategy:
    """Return the widest strategy of that name.

    Raises:
        InputError: this machine does not offer it.
    """
    found = [strategy for strategy in offered if strategy.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(strategy.name for strategy in offered))
        raise InputError(f"strategy {name!r} is not available on this device and model; choose from {names}")
    return found[-1]


def measured(offered: Sequence[Strategy], steps: Sequence[Step], device: torch.device) -> Strategy:
    """Return the strategy that takes the least time for each of the first points."""

    def evaluate(strategy: Strategy) -> int:
        return len(list(strategy.losses(steps[: max(TRIAL, 2 * strategy.width)])))

    return fastest(offered, evaluate, device)


def agree(strategy: Strategy, exact: Strategy, steps: Sequence[Step], dtype: torch.dtype) -> bool:
    """Tell whether a strategy gives the losses of another at some steps, as far as rounding allows."""
    found, expected = (np.array(list(each.losses(steps))) for each in (strategy, exact))
    return np.allclose(found, expected, rtol=torch.finfo(dtype).eps ** 0.5, atol=0, equal_nan=True)


def _completed(strategy: Strategy, last_resort: Strategy) -> Strategy:
    """Return a strategy whose losses that are not a number come from another."""

    def losses(steps: Sequence[Step]) -> Losses:
        for step, loss in zip(steps, strategy.losses(steps), strict=True):
            yield next(last_resort.losses([step])) if math.isnan(loss) else loss

    return replace(strategy, losses=losses, exact=False)


def _independent(objective: Objective, vectors: Sequence[Tensor]) -> bool:
    """Tell whether an evaluation is the same while a clone evaluates another point.

    It is not where something that clones share is written to, such as a dictionary in which a hook keeps
    activations. Whether threads meet there is a matter of chance, so this one waits for the other evaluation,
    by the first batch, after some of the modules that are called: five of them, most of them late. Nor is it
    where the loss draws random numbers, of which threads share one sequence, or holds a lock.
    """
    if objective.draws:
        return False
    own, other = objective.first_batch(), objective.first_batch().clone()
    there = moved(objective.theta, [0.5] * len(vectors), vectors)
    chosen: set[int] = set()
    count, busy, locked = 0, False, False

    def interrupt(*_: Any) -> None:
        nonlocal count, busy, locked
        count += not busy
        if count in chosen and not (busy or locked):
            busy = True
            try:
                pool.submit(other.value, there).result(patience)
            except TimeoutError:  # it waits for what this one holds, as frozen dropout does
                locked = True
            busy = False

    with ThreadPoolExecutor(1) as pool, _after_each_module(interrupt):
        started = time.perf_counter()
        alone = own.value()
        patience = PATIENCE + 20 * (time.perf_counter() - started)
        chosen |= {count // 3, 2 * count // 3, *range(count - 2, count + 1)}
        count = 0
        found = own.value()
    same = math.isclose(found, alone, rel_tol=1e-6) or not math.isfinite(alone)
    return same and not locked


@contextmanager
def _after_each_module(call: Callable[..., None]) -> Iterator[None]:
    handle = register_module_forward_hook(call)
    try:
        yield
    finally:
        handle.remove()


def moved(
    theta: Tensor, step: Sequence[float], vectors: Sequence[Tensor], room: Tensor | None = None
) -> Tensor:
    """Return θ + Σ step_i v_i, or θ itself where all steps are zero.

    Args:
        room: written over with it, where given: what is new from the system comes page by page, zeroed, which
            takes a large vector several times as long as the sum.
    """
    for length, vector in zip(step, vectors, strict=True):
        if length:
            theta = room = torch.add(theta, vector, alpha=length, out=room)
    return theta


def _room(objective: Objective) -> int:
    """Return how many evaluations at once half of the device's free memory holds."""
    theta = objective.theta
    if theta.device.type != "cuda":
        needed = 4 * theta.nbytes  # activations of a batch are small next to a CPU's memory
        return int(free_memory(theta.device) / 2 / needed)
    torch.cuda.reset_peak_memory_stats(theta.device)
    before = torch.cuda.memory_allocated(theta.device)
    objective.value()
    needed = torch.cuda.max_memory_allocated(theta.device) - before + 2 * theta.nbytes
    return int(free_memory(theta.device) / 2 / needed)

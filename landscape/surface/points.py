"""The loss at steps along directions: each point evaluated once, in the way that proves fastest."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from landscape.objective.derivatives import twice_differentiable
from landscape.objective.objective import Objective
from landscape.runtime import progress
from landscape.runtime.ranks import ranks
from landscape.storage.results import Array
from landscape.surface.directions import Direction
from landscape.surface.record import Record, fingerprint
from landscape.surface.ways import PLAIN, Losses, Step, Way, moved, ways

Found = Generator[tuple[Step, float], None, None]
TRIAL = 6  # points that a way is timed on, or twice what it has in hand
GAIN = 0.9  # a way that takes more than this share of the best time so far is no better


class Points:
    """What is known of L(θ + Σ step_i d_i).

    A step is evaluated once, whoever asks for it and in whichever order; with a file, once for all runs
    (`Record`). How points are evaluated is chosen by timing the first of them in each of the `ways`.

    Ranks that were joined take whole points from one queue, each those that it has in hand at a time; all of
    them ask for the same steps, and know all losses in the end.

    Args:
        objective: whose loss, not `Objective.distribute`.
        directions: one for each entry of a step.
        file: of finished points.

    Attributes:
        center: L(θ).
        fingerprint: of what is measured.
        evaluations: points evaluated by this call's processes; `reused` were read from files.
    """

    def __init__(
        self, objective: Objective, directions: Sequence[Direction], file: Path | None = None
    ) -> None:
        assert objective.ranks.size == 1, "points are dealt to ranks whole"
        self.objective = objective
        self.directions = directions
        self.center = objective.value()
        self.fingerprint = fingerprint(objective, directions, self.center)
        self._ranks = ranks()
        self._record = Record(file, self.fingerprint, len(directions), self._ranks)
        self.reused = len(self._record.known)
        self.evaluations = 0
        self._untried: list[Way] | None = None
        self._way: Way
        self._seconds = np.inf  # a point, in that way

    @property
    def way(self) -> str:
        """How points are evaluated."""
        return self._record.way or PLAIN

    def at(self, steps: Array, label: str = "surface") -> Array:
        """Return the loss at each of `steps`, shape (n, directions), as n values."""
        known = self._record.known
        asked: list[Step] = [tuple(float(x) + 0.0 for x in step) for step in steps]  # + 0.0: no -0.0
        missing = [step for step in dict.fromkeys(asked) if step not in known and any(step)]
        if missing:
            own: dict[Step, float] = {}
            with (
                progress.bar(label, len(missing) // self._ranks.size) as advance,
                twice_differentiable(),
                closing(self._losses(missing)) as losses,
            ):
                for step, loss in losses:
                    self._record.point(step, loss)
                    own[step] = loss
                    self.evaluations += 1
                    advance()
            self._record.add(self._ranks.gathered(own))
            self.evaluations += len(missing) - len(own)
        return np.array([known[step] if any(step) else self.center for step in asked])

    def theta(self, step: Sequence[float]) -> Tensor:
        """Return the parameters at a step, shape (numel,)."""
        return moved(self.objective.theta, step, [d.vector for d in self.directions])

    def _losses(self, missing: Sequence[Step]) -> Found:
        """Yield the steps that fall to this rank, each with its loss."""
        if self._untried is None:
            self._untried = ways(self.objective, self.directions)
            self._way = self._untried[0]
            for way in self._untried:
                if way.name == self._record.way:
                    self._way, self._untried = way, []
        queue = self._ranks.queue(len(missing))
        while self._untried and queue.left > self._ranks.size * (
            count := max(TRIAL, 2 * self._untried[0].width)
        ):
            trial = [missing[i] for i in queue.take(count)]
            yield from zip(trial, self._timed(self._untried.pop(0), trial), strict=True)
        at_a_time = self._way.width if self._ranks.size > 1 else len(missing)
        while some := [missing[i] for i in queue.take(at_a_time)]:
            yield from zip(some, self._way.losses(some), strict=True)

    def _timed(self, way: Way, trial: Sequence[Step]) -> Losses:
        """Evaluate some points in a way, which becomes the one to go on with if it is faster."""
        seconds, done = 0.0, 0
        started = time.perf_counter()
        try:
            for loss in way.losses(trial):
                seconds, done = seconds + time.perf_counter() - started, done + 1
                yield loss
                started = time.perf_counter()
        except Exception:  # vmap cannot follow this loss, or there is too little memory
            if way is self._way:
                raise
            yield from self._way.losses(trial[done:])
            return
        if done and seconds / done < GAIN * self._seconds:
            self._seconds, self._way = seconds / done, way
            self._record.chosen(way.name)

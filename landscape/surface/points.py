"""The loss at steps along directions: each point evaluated once, in the way that proves fastest."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from landscape import progress
from landscape.directions import Direction
from landscape.objective import Objective, twice_differentiable
from landscape.results import Array
from landscape.surface.record import Record, fingerprint
from landscape.surface.ways import PLAIN, Losses, Step, Way, moved, ways

TRIAL = 6  # points that a way is timed on, or twice what it has in hand
GAIN = 0.9  # a way that takes more than this share of the best time so far is no better


class Points:
    """What is known of L(θ + Σ step_i d_i).

    A step is evaluated once, whoever asks for it and in whichever order; with a file, once for all runs
    (`Record`). How points are evaluated is chosen by timing the first of them in each of the `ways`.

    Args:
        objective: whose loss.
        directions: one for each entry of a step.
        file: of finished points.

    Attributes:
        center: L(θ).
        fingerprint: of what is measured.
        evaluations: points evaluated here; `reused` were read from the file.
    """

    def __init__(
        self, objective: Objective, directions: Sequence[Direction], file: Path | None = None
    ) -> None:
        self.objective = objective
        self.directions = directions
        self.center = objective.value()
        self.fingerprint = fingerprint(objective, directions, self.center)
        self._record = Record(file, self.fingerprint, len(directions))
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
            with (
                progress.bar(label, len(missing)) as advance,
                twice_differentiable(),
                closing(self._losses(missing)) as losses,
            ):
                for step, loss in zip(missing, losses, strict=True):
                    self._record.point(step, loss)
                    self.evaluations += 1
                    advance()
        return np.array([known[step] if any(step) else self.center for step in asked])

    def theta(self, step: Sequence[float]) -> Tensor:
        """Return the parameters at a step, shape (numel,)."""
        return moved(self.objective.theta, step, [d.vector for d in self.directions])

    def _losses(self, missing: Sequence[Step]) -> Losses:
        if self._untried is None:
            self._untried = ways(self.objective, self.directions)
            self._way = self._untried[0]
            for way in self._untried:
                if way.name == self._record.way:
                    self._way, self._untried = way, []
        while self._untried and len(missing) > (count := max(TRIAL, 2 * self._untried[0].width)):
            way = self._untried.pop(0)
            trial, missing = missing[:count], missing[count:]
            yield from self._timed(way, trial)
        yield from self._way.losses(missing)

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
        if seconds / done < GAIN * self._seconds:
            self._seconds, self._way = seconds / done, way
            self._record.chosen(way.name)

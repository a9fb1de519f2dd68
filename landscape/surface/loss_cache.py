"""The loss at steps along directions: each point is evaluated once, by the strategy that the rule chooses."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.derivatives import twice_differentiable
from landscape.objective.objective import Objective
from landscape.runtime import progress
from landscape.runtime.ranks import ALONE, ranks
from landscape.storage.results import Array
from landscape.surface.directions import Direction
from landscape.surface.point_log import PointLog, fingerprint
from landscape.surface.strategies import (
    Losses,
    Step,
    Strategy,
    StrategyName,
    agree,
    by_rule,
    measured,
    moved,
    named,
    plain,
    strategies,
)

COMPARED = 2  # points at which a faster strategy must give the loss itself
Found = Generator[tuple[Step, float], None, None]


class LossCache:
    """The known values of L(θ + Σ step_i d_i).

    A step is evaluated once, whoever asks for it and in any order; with a file, once for all runs
    (`PointLog`). The strategy is chosen once, when the first points are asked for: by the rule of
    `strategies.by_rule`, so that equal runs give equal digits, unless the caller names or measures one. It is
    compared with the plain evaluation at two of the points, and dropped where they differ. A
    run that goes on from a file keeps the strategy noted there. Where `vmap` turns out not to follow the
    loss, or memory does not suffice, the rule goes on one point after another.

    Ranks that were joined take whole points from one queue, each as many as it evaluates at a time; all of
    them ask for the same steps, and know all losses in the end.

    Args:
        objective: whose loss; not one of `Objective.distribute`.
        directions: one for each entry of a step.
        file: the file of finished points.
        strategy: `sequential`, `threads` or `vmap`, instead of the rule.
        tune: measure the strategies on the first points, and take the fastest.

    Attributes:
        center: L(θ).
        fingerprint: a hash of what is measured.
        evaluations: points evaluated by this call's processes; `reused` were read from files, and `compared`
            were evaluated besides, half of them plainly, to judge a faster strategy.
    """

    def __init__(
        self,
        objective: Objective,
        directions: Sequence[Direction],
        file: Path | None = None,
        strategy: StrategyName | None = None,
        tune: bool = False,
    ) -> None:
        assert objective.ranks.size == 1, "points are dealt to ranks whole"
        sharded = objective.params.sharded
        if file and sharded:
            raise InputError("finished points of a sharded model are not stored; leave out the file")
        self.objective = objective
        self.directions = directions
        self.center = objective.value()
        self.fingerprint = fingerprint(objective, directions, self.center)
        self._ranks = ALONE if sharded else ranks()  # all of them evaluate each point of a sharded model
        self._log = PointLog(file, self.fingerprint, len(directions), self._ranks)
        self.reused = len(self._log.known)
        self.evaluations = self.compared = 0
        self._asked, self._tune = strategy, tune
        self._offered: list[Strategy] = []
        self._chosen: Strategy | None = None
        self._compared: set[str] = set()  # strategies that were

    @property
    def strategy(self) -> str:
        """How points are evaluated."""
        return self._log.strategy or "sequential"

    def at(self, steps: Array, label: str = "surface") -> Array:
        """Return the loss at each of `steps`, shape (n, directions), as n values."""
        known = self._log.known
        asked: list[Step] = [tuple(map(float, step)) for step in steps]
        missing = [step for step in dict.fromkeys(asked) if step not in known and any(step)]
        if missing:
            own: dict[Step, float] = {}
            with (
                progress.bar(label, len(missing) // self._ranks.size) as advance,
                twice_differentiable,
                closing(self._losses(missing)) as losses,
            ):
                for step, loss in losses:
                    self._log.add(step, loss)
                    own[step] = loss
                    self.evaluations += 1
                    advance()
            self._log.take_over(self._ranks.gathered(own))
            self.evaluations += len(missing) - len(own)
        return np.array([known[step] if any(step) else self.center for step in asked])

    def on_grid(self, axes: Sequence[Array]) -> Array:
        """Return the loss on a grid, indexed like the steps along each direction."""
        steps = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        label = "surface " + " × ".join(str(len(axis)) for axis in axes)
        return self.at(steps.reshape(-1, len(axes)), label).reshape(steps.shape[:-1])

    def theta(self, step: Sequence[float]) -> Tensor:
        """Return the parameters at a step, shape (numel,)."""
        return moved(self.objective.theta, step, [d.vector for d in self.directions])

    def _losses(self, missing: Sequence[Step]) -> Found:
        """Yield the steps that fall to this rank, each with its loss."""
        queue = self._ranks.queue(len(missing))
        at_a_time = self._strategy(missing).width if self._ranks.size > 1 else len(missing)
        while some := [missing[i] for i in queue.take(at_a_time)]:
            yield from zip(some, self._evaluated(some, self._strategy(missing)), strict=True)

    def _strategy(self, missing: Sequence[Step]) -> Strategy:
        """Return the strategy for these points, chosen once there are as many as threads."""
        if self._chosen is not None:
            return self._chosen
        self._offered = self._offered or strategies(self.objective, self.directions)
        device = self.objective.theta.device
        noted = [strategy for strategy in self._offered if str(strategy) == self._log.strategy]
        if self._asked:
            found = named(self._offered, self._asked)
        elif noted:
            found = noted[0]
        elif self._tune:
            found = measured(self._offered, missing, device)
        else:
            found = by_rule(self._offered, len(missing) // self._ranks.size, device.type == "cuda")
        trusted = self._faithful(found, missing)
        # the rule may choose another than the plain one once more points follow
        if trusted is not self._offered[0] or self._asked or noted or self._tune:
            self._choose(trusted)
        return trusted

    def _faithful(self, strategy: Strategy, missing: Sequence[Step]) -> Strategy:
        """Return a strategy if it gives the loss itself at the points farthest out, else the plain one.

        Raises:
            InputError: it was asked for, and does not.
        """
        if strategy.exact or str(strategy) in self._compared:
            return strategy
        exact = plain(self.objective, self.directions)
        farthest = sorted(missing, key=lambda step: -max(map(abs, step)))[:COMPARED]
        try:
            same = agree(strategy, exact, farthest, self.objective.theta.dtype)
        except Exception:  # told where the points are evaluated
            return strategy
        if not same and self._asked:
            raise InputError(f"{strategy.name} gives other losses than one point after another")
        self._compared.add(str(strategy))
        self.compared += 2 * len(farthest)
        return strategy if same else exact

    def _choose(self, strategy: Strategy) -> None:
        self._chosen = strategy
        if self._log.strategy != str(strategy):
            self._log.choose(str(strategy))

    def _evaluated(self, steps: Sequence[Step], strategy: Strategy) -> Losses:
        """Yield the losses at some steps: one after another from where `vmap` fails."""
        done = 0
        try:
            for loss in strategy.losses(steps):
                done += 1
                yield loss
        except Exception as error:  # vmap cannot follow this loss, or there is too little memory
            if strategy.name != "vmap":
                raise
            if self._asked:
                raise InputError(f"vmap cannot follow this loss ({type(error).__name__})") from error
            self._choose(self._offered[0])
            yield from self._offered[0].losses(steps[done:])

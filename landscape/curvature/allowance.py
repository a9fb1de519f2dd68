"""The time that measurements may take beside a training."""

import math

MARGIN = 1.5  # times the last measurement is what the next is expected to take: most differ by less


class Allowance:
    """Keeps what measurements take within a share of the training's own time.

    All times are of `time.perf_counter`. A measurement may begin when the share pays for what it is expected
    to take, and must end when the share is used up.

    Args:
        at_most: the share; None for no limit.

    Attributes:
        pace: seconds per product in the last measurement.
        expected: seconds that the next measurement is expected to take.
    """

    def __init__(self, at_most: float | None) -> None:
        self.at_most = at_most
        self.pace = self.expected = 0.0
        self._began: float | None = None
        self._spent = self._before = 0.0

    def begin(self, now: float) -> None:
        """Note that the training has begun, if it has not yet."""
        if self._began is None:
            self._began, self._before = now, self._spent

    def spend(self, seconds: float) -> None:
        """Count time that is not the training's own."""
        self._spent += seconds

    def learn(self, seconds: float, products: int, converged: bool) -> None:
        """Learn from a measurement; one that was stopped needs more time than it was given."""
        if products:
            self.pace = seconds / products
            self.expected = MARGIN * seconds if converged else 2 * max(seconds, self.expected)

    def ready(self, now: float) -> bool:
        """Tell whether the next measurement is paid for."""
        return self.at_most is None or self._left(now) > self.expected

    def deadline(self, now: float) -> float:
        """Return when the allowance is used up by a measurement that begins now."""
        return math.inf if self.at_most is None else now + self._left(now)

    def overhead(self, now: float, more: float = 0.0) -> float:
        """Return the share that was spent, with some seconds more; NaN before the training has begun."""
        training = self._training(now)
        return (self._spent + more) / training if training > 0 else math.nan

    def _left(self, now: float) -> float:
        return (self.at_most or 0.0) * self._training(now) - self._spent

    def _training(self, now: float) -> float:
        return 0.0 if self._began is None else now - self._began - (self._spent - self._before)

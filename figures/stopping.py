"""Where a run would have stopped under another rule, and which checkpoints stand for it: from its log."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LATE = 5  # validations whose checkpoints are averaged


class Rule(NamedTuple):
    """When a training ends: after `epochs`, or `patience` epochs without a better validation `metric`."""

    epochs: int
    patience: int
    metric: str = "ndcg@10"


class Stopped(NamedTuple):
    """What a training under a rule comes to.

    Attributes:
        end: the last epoch trained.
        best: the epoch with the best validation metric, the first of equal ones.
        late: the five successive validations with the highest mean of that metric, the last of equal ones;
            all of them where there are fewer.
        unfinished: whether it ended within its patience of its best epoch: longer training may be better.
    """

    end: int
    best: int
    late: tuple[int, ...]
    unfinished: bool


def stopped(log: Sequence[Mapping[str, float]], rule: Rule, trained: int = 0) -> Stopped:
    """Replay a rule on a log that was trained at least as long, a line a validation.

    Args:
        trained: how many epochs were trained, where those after the last validation count: a patience that
            is no multiple of the epochs between validations ends a run between two of them.

    Raises:
        ValueError: the log has no validation.
    """
    if not log:
        raise ValueError("a log without a validation has no best epoch")
    seen: dict[int, float] = {}
    best = 0
    for line in log:
        epoch, value = int(line["epoch"]), line[rule.metric]
        if epoch > rule.epochs or (seen and epoch > best + rule.patience):
            break
        if not seen or value > seen[best]:
            best = epoch
        seen[epoch] = value
    end = min(rule.epochs, best + rule.patience, max(trained, int(log[-1]["epoch"])))
    return Stopped(end, best, _late(seen), end - best < rule.patience)


def _late(seen: Mapping[int, float]) -> tuple[int, ...]:
    """Return the successive validations with the highest mean."""
    wide = min(LATE, len(seen))
    means = np.convolve(list(seen.values()), np.full(wide, 1 / wide), "valid").round(12)
    first = len(means) - 1 - int(np.argmax(means[::-1]))
    return tuple(list(seen)[first : first + wide])

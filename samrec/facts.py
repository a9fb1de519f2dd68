"""What a report shows of recommenders: tables of rankings, curves of a training, sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.runtime.rounding import between
from landscape.runtime.table import metric_name
from landscape.statistics import interval, mean
from landscape.tasks import FactCurve, FactRow, FactTable
from samrec.choices import METRICS, VALIDATED
from samrec.data.interactions import Ints
from samrec.evaluation import intervals, metrics

RANKING = "Ranking"
RANKED = (
    "Each user's held-out item is ranked among all items that are not in the user's history; ties count "
    "against it. In brackets: 95% intervals of a bootstrap over users. None of them covers retraining with "
    "another seed."
)


def difference(first: str, name: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    """Say how the mean gain of one checkpoint differs from another's, with an interval over users."""
    difference, error = mean(after - before)
    low, high = interval(difference, error, len(after))
    ends = (end if end.startswith("-") else f"+{end}" for end in between(low, high, 4))
    side = "no clear difference from" if low <= 0 <= high else "better than" if low > 0 else "worse than"
    return (
        f"Ranking of the test items by {name}: {side} {first}. {metric_name(VALIDATED)} is "
        f"{after.mean():.4f} against {before.mean():.4f}; the difference is {difference:+.4f} "
        f"[{', '.join(ends)}] over {len(after):,} users."
    )


def known_rankers(ideal_hr10: float, counted: Mapping[str, Mapping[str, float]]) -> FactTable:
    """Return, as part of the table of rankings, what rankers reach that train nothing.

    Args:
        ideal_hr10: what a ranker expects that knows how the data were made.
        counted: metrics on the test items by the name of a baseline.
    """
    values = tuple(ideal_hr10 if metric == "hr@10" else None for metric in METRICS)
    rows = [
        FactRow(name, tuple(of[m] for m in METRICS), note="on the test items") for name, of in counted.items()
    ]
    ideal = FactRow("ideal ranker", values, note="expected on the test items")
    return FactTable(RANKING, METRICS, (*rows, ideal))


def ranked(name: str, of_users: Ints, seed: int) -> FactRow:
    means, ends = metrics(of_users), intervals(of_users, seed)
    return FactRow(
        name,
        tuple(means[metric] for metric in METRICS),
        tuple(ends[metric] for metric in METRICS),
        f"{len(of_users):,} users",
    )


def curves(log: Sequence[Mapping[str, Any]]) -> tuple[FactCurve, ...]:
    """Return the training loss and the validation by epoch; of a loss in parts, that of recommendation."""
    losses = {
        line["epoch"]: line.get("losses", {}).get("recommendation", line["loss"])
        for line in log
        if "loss" in line
    }
    validated = {line["epoch"]: line["valid"][VALIDATED] for line in log if "valid" in line}
    return tuple(
        FactCurve(title, "epoch", tuple(values), tuple(values.values()))
        for title, values in (
            ("training loss (dropout on)", losses),
            (f"validation {metric_name(VALIDATED)}", validated),
        )
        if values
    )

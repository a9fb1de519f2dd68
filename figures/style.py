"""What all figures of the study share beside the house style: one colour and one name a method."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.plots.style import COLORS
from landscape.storage.results import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "sasrec": "SASRec",
    "samrec": "SAMRec",
    "cl4srec": "CL4SRec",
    "s3rec": "S3Rec",
    "gru4rec": "GRU4Rec",
}
COLOR = dict(zip(METHODS, COLORS, strict=False))
MARKER = dict(zip(METHODS, "os^Dv", strict=False))
LOSSES = {"bce": "BCE", "ce": "CE"}
SETS = {"Beauty": "Beauty", "Toys_and_Games": "Toys", "Sports_and_Outdoors": "Sports", "Yelp": "Yelp"}
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10"}


def title(label: str) -> str:
    """Return how a panel names a data set and a loss, whose results are stored as `DATA-LOSS`."""
    data_set, loss = label.split("-")
    return f"{SETS[data_set]}, {LOSSES[loss]}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, f"|{'---|' * len(head)}")
    return "\n".join(lines) + "\n"


def missing(axes: "Axes", what: str = "no result yet") -> None:
    """Say in a panel that there is nothing to draw: what is missing is never filled in."""
    axes.text(0.5, 0.5, what, ha="center", va="center", color="0.5", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def line(axes: "Axes", method: str, x: Any, y: Any, **settings: Any) -> None:
    """Draw a method's line in its colour, with its marker."""
    own: dict[str, Any] = {
        "label": METHODS[method],
        "color": COLOR[method],
        "marker": MARKER[method],
        "ms": 3,
    }
    axes.plot(x, y, **(own | settings))


def band(axes: "Axes", method: str, x: Any, intervals: Any) -> None:
    """Shade a method's intervals, pairs of a low and a high end."""
    low, high = zip(*intervals, strict=True)
    axes.fill_between(x, low, high, color=COLOR[method], alpha=0.15, lw=0)


def intervals(
    axes: "Axes", method: str, x: Sequence[float], gains: Sequence[dict[str, float] | None], **settings: Any
) -> None:
    """Draw gains in percent with their intervals, in the method's colour; None is a gap."""
    none = {"low": np.nan, "gain": np.nan, "high": np.nan}
    low, middle, high = 100 * np.array([[(gain or none)[end] for gain in gains] for end in none])
    errors = np.fmax(0, [middle - low, high - middle])  # an interval may lie beside the gain itself
    look: dict[str, Any] = {"color": COLOR[method], "fmt": MARKER[method], "ms": 3, "lw": 0.8, "capsize": 1.5}
    axes.errorbar(x, middle, errors, **look | settings)


def spread(by_seed: Iterable[Sequence[float]]) -> tuple[Array, Array, Array]:
    """Return mean, lowest and highest over the seeds of each point; NaN, a gap, where there is none."""
    rows = [np.asarray(values if len(values) else [np.nan]) for values in by_seed]
    ends = [(row.mean(), row.min(), row.max()) for row in rows]
    middle, low, high = np.array(ends, float).reshape(-1, 3).T
    return middle, low, high


def seeds(counts: Iterable[int]) -> str:
    """Say of how many seeds points are, each of which has some."""
    known = sorted({count for count in counts if count})
    if len(known) > 1:
        return f"{known[0]} to {known[-1]} seeds"
    return "no run" if not known else "1 seed" if known == [1] else f"{known[0]} seeds"


def rounded(value: Any) -> Any:
    """Return what JSON holds with six digits a number: the same on every machine, whatever its last bits."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value

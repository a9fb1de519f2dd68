"""What all figures of the study share beside the house style: one colour and one name a method."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from landscape.flatness.comparison import LOSS, NORM
from landscape.flatness.measures import MEASURES
from landscape.plots.style import COLORS

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
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 2, 3, 5, 10)
PAIR = "pair"  # the folder of the landscapes, which are of one pair of runs
GAP = 0.6  # between two sections of lines, in lines
FAR = 30  # percent: a gain whose interval goes farther is as good as unknown
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10"}
QUANTITIES = {
    LOSS: "L(θ), dropout off",
    NORM: "‖θ‖",
    "valid_loss": "validation loss",
    "gradient_norm": "‖∇L‖",
    "gradient-norm": "‖∇L‖",
    "lambda_max": "λmax",
    "lambda-max": "λmax",
    "frobenius": "‖H‖F",
    "sam": "SAM",
    "asam": "ASAM",
    "keskar": "Keskar",
    "lpf": "LPF",
    "fisher-rao": "Fisher–Rao",
    "pac-bayes-sigma": "PAC-Bayes σ",
    "pac-bayes-sigma-adaptive": "PAC-Bayes σ, adaptive",
    "worst": "worst case",
    "worst-adaptive": "worst case, adaptive",
    "average-adaptive": "average, adaptive",
    "relative-flatness-embedding": "relative flatness, embedding",
    "relative-flatness-last": "relative flatness, last layer",
}
"""What a reader calls the measures and what is measured beside them; others are called by their own names."""


def title(label: str) -> str:
    """Return how a panel names a data set and a loss, whose results are stored as `DATA-LOSS`."""
    data_set, loss = label.split("-")
    return f"{SETS[data_set]}, {LOSSES[loss]}"


def quantity(key: str) -> str:
    """Return the name of what is measured, with * if it is invariant."""
    return QUANTITIES.get(key, key) + " *" * invariant(key)


def invariant(key: str) -> bool:
    """Return whether no rescaling of the weights that keeps the function changes a measure."""
    return key in MEASURES and MEASURES[key].invariant


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, f"|{'---|' * len(head)}")
    return "\n".join(lines) + "\n"


def share(value: float) -> str:
    """Return a value between 0 and 1 with four digits, as papers print a ranking metric: .0438."""
    return f"{value:.4f}".removeprefix("0")


def percent(value: float | None) -> str:
    """Return a gain in percent."""
    return "–" if value is None else f"{100 * value:+.1f}%"


def gained(known: Mapping[str, Any]) -> str:
    """Return a gain in percent, with its interval and p where it has them."""
    text = percent(known["gain"])
    if known["low"] is not None:
        text += f" [{100 * known['low']:+.1f}, {100 * known['high']:+.1f}]"
    return text if known["p"] is None else f"{text}, p {known['p']:.2g}"


def gain_lines(
    axes: "Axes", sections: Sequence[Sequence[tuple[str, Mapping[str, Any]]]], level: float
) -> None:
    """Draw gains in percent, a named line each with its interval, and a gap between two sections.

    A mark is filled where p is below a level. An interval that ends beyond `FAR` is cut there by an arrow.
    """
    color = COLOR["samrec"]
    places: dict[float, str] = {}
    for number, section in enumerate(sections):
        for name, known in section:
            place = len(places) + GAP * number
            places[place] = name
            sure = known["p"] is not None and known["p"] < level
            axes.plot(100 * known["gain"], place, "s", ms=3.5, color=color, mfc=color if sure else "white")
            if known["low"] is None:
                continue
            low, high = max(100 * known["low"], -FAR), min(100 * known["high"], FAR)
            axes.plot([low, high], [place] * 2, color=color, lw=1, zorder=1)
            for end, arrow in ((low, "<"), (high, ">")):
                if abs(end) == FAR:
                    axes.plot(end, place, arrow, ms=3.5, color=color)
    axes.axvline(0, color=COLOR["sasrec"], lw=0.8, zorder=0)
    axes.set_yticks([*places], [*places.values()])
    axes.set_ylim(max(places) + 0.5, -0.5)


def ratio_axis(axes: "Axes") -> None:
    """Give an axis of ratios equal steps for equal factors, and few plain numbers."""
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    ticks: list[float] = []
    for tick in sorted(TICKS, key=lambda tick: abs(math.log(tick))):  # from 1 outwards
        near = any(abs(math.log(tick / other)) < math.log(right / left) / 7 for other in ticks)
        if left <= tick <= right and not near:
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


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


def rounded(value: Any) -> Any:
    """Return what JSON holds with six digits a number: the same on every machine, whatever its last bits."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value

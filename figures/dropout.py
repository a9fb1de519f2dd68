"""Is SAM a substitute for dropout, or for weight decay?"""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.bootstrap import compared
from figures.plan import DATA, DECAYS, DROPOUTS, THIRD, base
from figures.records import Record, read_records, select
from figures.style import (
    COLOR,
    LOSSES,
    MARKER,
    METHODS,
    METRICS,
    SETS,
    band,
    intervals,
    line,
    missing,
    seeds,
    spread,
)
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RHO = 0.1
RATES = sorted(DROPOUTS)
SETTINGS: dict[str, dict[str, Any]] = {"sasrec": {}, "samrec": {"method": "samrec", "rho": RHO}}
STYLES = dict(zip(DECAYS, ("-", ":"), strict=True))
CAPTION = (
    f"HR@10 and NDCG@10 against dropout, without SAM and with SAM of radius {RHO:g}, without weight "
    "decay (solid) and with 1e-5 (dotted); filled marks are of the test, hollow ones of the validation. "
    "Of several seeds the line is the mean and the band runs from the lowest to the highest. Right: "
    "what SAM adds in the test at the same dropout and weight decay, with 95% intervals of a paired "
    "bootstrap over users, which know nothing of another seed. A gap is a run that is not there."
)


def data(results: Path) -> dict[str, Any]:
    """Collect validation and test by method, weight decay, dropout and seed, and the gains of SAM."""
    records = read_records(results)
    panels = []
    for name, loss in product(DATA, THIRD):
        lines = []
        for decay in DECAYS:
            short = base(loss, THIRD) | {"weight_decay": decay}
            plain, sam = (
                [select(records, name, **short, **own, dropout=rate) for rate in RATES]
                for own in SETTINGS.values()
            )
            gains = [compared(at, to, results) for at, to in zip(sam, plain, strict=True)]
            lines += [_line("sasrec", decay, plain), _line("samrec", decay, sam) | {"gain": gains}]
        if lines := [known for known in lines if any(known["runs"])]:
            panels.append({"data": name, "loss": loss, "epochs": THIRD[loss], "lines": lines})
    return {"caption": CAPTION, "rho": RHO, "dropouts": RATES, "panels": panels}


def _line(method: str, decay: float, by_rate: list[list[Record]]) -> dict[str, Any]:
    return {
        "method": method,
        "weight_decay": decay,
        "runs": [[run.name for run in at] for at in by_rate],
        "valid": {key: [[run.valid[key] for run in at] for at in by_rate] for key in METRICS},
        "test": {key: [[run.test[key] for run in at] for at in by_rate] for key in METRICS},
    }


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a row for each data set and loss: both metrics, and what SAM adds to them."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels, dropouts = found["panels"], found["dropouts"]
    rows = max(1, len(panels))
    with paper():
        figure = Figure(figsize=(PAGE, 1.9 * rows + 0.3))
        grid = figure.subplots(rows, 2 * len(METRICS), squeeze=False)
        for axes in grid.flat if not panels else ():
            missing(axes)
        for row, panel in zip(grid, panels, strict=False):
            trained = seeds(len(at) for known in panel["lines"] for at in known["runs"])
            title = f"{SETS[panel['data']]}, {LOSSES[panel['loss']]}\n{panel['epochs']} epochs, {trained}"
            for left, right, (metric, label) in zip(row[:2], row[2:], METRICS.items(), strict=True):
                _levels(left, panel["lines"], dropouts, metric)
                _gains(right, panel["lines"], dropouts, metric)
                left.set(ylabel=label, title=title)
                right.set(ylabel=f"gain in {label}, %", title=f"SAM against none\ntest, {trained}")
                for axes in (left, right):
                    axes.set(xticks=dropouts, xlim=(dropouts[0] - 0.04, dropouts[-1] + 0.04))
        for axes in grid[-1]:
            axes.set(xlabel="dropout")
        marks = [
            Line2D([], [], color=COLOR[method], marker=MARKER[method], ms=3, label=text)
            for method, text in zip(
                SETTINGS, (METHODS["sasrec"], f"SAMRec, ρ = {found['rho']:g}"), strict=True
            )
        ]
        marks += [
            Line2D([], [], color="0.4", ls=style, label=f"weight decay {decay:g}".replace("e-0", "e-"))
            for decay, style in STYLES.items()
        ]
        marks += [
            Line2D([], [], color="0.4", marker="o", ms=3, ls="", mfc=fill, label=text)
            for text, fill in (("test", "0.4"), ("validation", "white"))
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))
        return {"": figure}


def _levels(axes: "Axes", lines: list[dict[str, Any]], dropouts: list[float], metric: str) -> None:
    for known, part in product(lines, ("valid", "test")):
        middle, low, high = spread(known[part][metric])
        look = {"ls": STYLES[known["weight_decay"]]} | ({"mfc": "white"} if part == "valid" else {})
        line(axes, known["method"], dropouts, middle, **look)
        band(axes, known["method"], dropouts, zip(low, high, strict=True))


def _gains(axes: "Axes", lines: list[dict[str, Any]], dropouts: list[float], metric: str) -> None:
    axes.axhline(0, color=COLOR["sasrec"], lw=0.8, zorder=0)
    for known in (known for known in lines if "gain" in known):
        aside = -0.008 if known["weight_decay"] == 0 else 0.008  # so that intervals do not hide each other
        gains = [gain[metric] for gain in known["gain"]]
        intervals(
            axes,
            known["method"],
            [rate + aside for rate in dropouts],
            gains,
            ls=STYLES[known["weight_decay"]],
        )

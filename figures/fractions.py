"""How well the methods rank that saw only a share of the users."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.bootstrap import compared
from figures.plan import DATA, EPOCHS, PUBLISHED, SHARES, THIRD, base
from figures.records import Record, read_records, select
from figures.style import COLOR, LOSSES, METRICS, SETS, band, intervals, line, missing, seeds, spread
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("sasrec", "samrec", "cl4srec", "s3rec")
ALL = (*SHARES, 1.0)
CAPTION = (
    "Test HR@10 and NDCG@10 of all users against the share of the users that were trained on, after a "
    "third of the epochs and after all; SASRec as published, and SAMRec with ρ = 0.1 and all else the "
    "same. The line is the mean over seeds, and the band, where there are several, from the lowest to the "
    "highest. Below: how much more than SASRec on the same users, with 95% intervals of a paired "
    "bootstrap over users, which know nothing of another seed. A gap is a run that is not there."
)


def data(results: Path) -> dict[str, Any]:
    """Collect test metrics by share, method and seed, and the gains over SASRec."""
    records = read_records(results)
    panels = []
    for name, loss, epochs in product(DATA, THIRD, (THIRD, EPOCHS)):
        runs: dict[str, list[list[Record]]] = {}
        for method in SHOWN:
            asked = base(loss, epochs) | PUBLISHED[method]
            runs[method] = [select(records, name, **asked, train_fraction=share) for share in ALL]
        methods = {
            method: {
                "runs": [[run.name for run in at] for at in by_share],
                "test": {key: [[run.test[key] for run in at] for at in by_share] for key in METRICS},
                "gain": [compared(at, to, results) for at, to in zip(by_share, runs["sasrec"], strict=True)],
            }
            for method, by_share in runs.items()
            if any(by_share[:-1])
        }
        if methods:
            panels.append({"data": name, "loss": loss, "epochs": epochs[loss], "methods": methods})
    return {"caption": CAPTION, "shares": ALL, "panels": panels}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a row for each data set and number of epochs, a column for each loss and metric; gains below."""
    from matplotlib.figure import Figure

    panels = {(p["data"], p["epochs"] == EPOCHS[p["loss"]], p["loss"]): p for p in found["panels"]}
    wanted = list(product([name for name in SETS if any(key[0] == name for key in panels)], (False, True)))
    losses = [loss for loss in LOSSES if any(key[2] == loss for key in panels)]
    rows, columns = max(1, len(wanted)), len(METRICS) * max(1, len(losses))
    with paper():
        figure = Figure(figsize=(PAGE, 2.8 * rows))
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(3, 2) * rows)
        for axes in grid.flat if not panels else ():
            missing(axes)
        for (row, key), (column, (loss, metric)) in product(
            enumerate(wanted), enumerate(product(losses, METRICS))
        ):
            above, below = grid[2 * row : 2 * row + 2, column]
            above.set(title=f"{SETS[key[0]]}, {LOSSES[loss]}\n{(THIRD, EPOCHS)[key[1]][loss]} epochs")
            panel = panels.get((*key, loss))
            if panel is None:
                missing(above)
                missing(below)
                continue
            _levels(above, panel, found["shares"], metric)
            _gains(below, panel, found["shares"], metric)
            trained = seeds(len(at) for known in panel["methods"].values() for at in known["runs"])
            above.set(title=f"{above.get_title()}, {trained}", ylabel=METRICS[metric])
            below.set(ylabel="gain, %")
            percent = [f"{100 * share:.0f}" for share in found["shares"]]
            above.set_xticks(found["shares"], [""] * len(percent))
            below.set_xticks(found["shares"], percent)
            below.set(xlim=above.get_xlim())
        for axes in grid[-1] if panels else ():
            axes.set(xlabel="users trained on, %")
        if panels:
            most = max(grid[0], key=lambda axes: len(axes.lines))
            figure.legend(*most.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        return {"": figure}


def _levels(axes: "Axes", panel: dict[str, Any], shares: list[float], metric: str) -> None:
    for method, known in panel["methods"].items():
        middle, low, high = spread(known["test"][metric])
        line(axes, method, shares, middle)
        band(axes, method, shares, zip(low, high, strict=True))


def _gains(axes: "Axes", panel: dict[str, Any], shares: list[float], metric: str) -> None:
    axes.axhline(0, color=COLOR["sasrec"], lw=0.8, zorder=0)
    rivals = [method for method in panel["methods"] if method != "sasrec"]
    for place, method in enumerate(rivals):
        known = panel["methods"][method]["gain"]
        aside = 0.02 * (place - (len(rivals) - 1) / 2)  # so that intervals do not hide each other
        intervals(axes, method, [share + aside for share in shares], [gain[metric] for gain in known])

"""What noise costs: in the histories that a trained model reads, and in what it is trained on."""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.plan import DATA, EPOCHS, NOISES, PUBLISHED, THIRD, full_runs, short
from figures.records import Record, read_records, select
from figures.style import LOSSES, METRICS, SETS, band, line, missing, seeds, spread
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("sasrec", "samrec")
METRIC = "hr@10"
KINDS = {"read": "noise in the histories read, %", "trained": "noise in the training data, %"}
CAPTION = (
    "Test HR@10 in percent of what it is without noise. Left: the main runs, trained on clean data; "
    "random items are inserted into the histories that they read in the test, a share of their length. "
    "Right: runs of a third of the epochs, trained on data of which a share of the interactions is "
    "replaced by random items, and tested on clean data. The line is the mean over seeds, each in "
    "percent of its own, the band, where there are several, runs from the lowest to the highest."
)


def data(results: Path) -> dict[str, Any]:
    """Collect HR@10 with and without noise, by its share, by method and by run."""
    records = read_records(results)
    panels = []
    for name, loss in product(DATA, EPOCHS):
        full = full_runs(records, name, loss)
        known = {
            "read": {m: _read(full[m], results) for m in SHOWN if m in full},
            "trained": {m: _trained(records, name, loss, PUBLISHED[m]) for m in SHOWN},
        }
        kinds = {kind: {m: runs for m, runs in methods.items() if runs} for kind, methods in known.items()}
        if any(kinds.values()):
            panels.append({"data": name, "loss": loss, "epochs": [EPOCHS[loss], THIRD[loss]], **kinds})
    return {"caption": CAPTION, "metric": METRIC, "panels": panels}


def _read(runs: list[Record], results: Path) -> list[dict[str, Any]]:
    """Return of each run that was measured its metric by the share of noise in what it reads."""
    paths = {run.name: results / "disturbed" / f"{run.name}.json" for run in runs}
    known = {
        name: json.loads(path.read_text("utf-8"))["shares"] for name, path in paths.items() if path.exists()
    }
    return [
        {"run": name, "by_share": {share: row[METRIC] for share, row in shares.items()}}
        for name, shares in known.items()
    ]


def _trained(
    records: dict[str, Record], name: str, loss: str, own: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return of each seed that was trained with and without noise its metric by the share of it."""
    by_seed: dict[int, list[Record]] = {}
    for share in (0.0, *NOISES):
        for run in select(records, name, **short(loss), **own, noise=share):
            by_seed.setdefault(run.seed, []).append(run)
    return [
        {
            "runs": [run.name for run in runs],
            "by_share": {str(run.settings["noise"]): run.test[METRIC] for run in runs},
        }
        for runs in by_seed.values()
        if len(runs) > 1 and runs[0].settings["noise"] == 0
    ]


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a row for each data set and loss: noise in what is read, and in what is trained on."""
    from matplotlib.figure import Figure

    panels = found["panels"]
    rows = max(1, len(panels))
    with paper():
        figure = Figure(figsize=(PAGE, 1.8 * rows + 0.3))
        grid = figure.subplots(rows, len(KINDS), squeeze=False)
        for axes in grid.flat if not panels else ():
            missing(axes)
        for pair, panel in zip(grid, panels, strict=False):
            for axes, kind, epochs in zip(pair, KINDS, panel["epochs"], strict=True):
                title = f"{SETS[panel['data']]}, {LOSSES[panel['loss']]}, {epochs} epochs"
                if not panel[kind]:
                    axes.set(title=title)
                    missing(axes, "no run yet")
                    continue
                trained = seeds(len(runs) for runs in panel[kind].values())
                _draw(axes, panel[kind])
                axes.set(title=f"{title}, {trained}", ylabel=f"{METRICS[METRIC]}, % of clean")
        for axes, label in zip(grid[-1], KINDS.values(), strict=True):
            axes.set(xlabel=label)
        shown = [axes for axes in grid.flat if axes.lines]
        if shown:
            figure.legend(*shown[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return {"": figure}


def _draw(axes: "Axes", methods: dict[str, list[dict[str, Any]]]) -> None:
    axes.axhline(100, color="0.7", lw=0.6, zorder=0)
    for method, runs in methods.items():
        shares = sorted({float(share) for run in runs for share in run["by_share"]})
        clean = [(run["by_share"], run["by_share"]["0.0"]) for run in runs]
        kept = [[100 * by[str(s)] / whole for by, whole in clean if str(s) in by and whole] for s in shares]
        middle, low, high = spread(kept)
        x = [100 * share for share in shares]
        line(axes, method, x, middle)
        band(axes, method, x, zip(low, high, strict=True))
    axes.set_xticks(x, [f"{place:.0f}" for place in x])

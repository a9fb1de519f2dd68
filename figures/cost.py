"""What NDCG@10 costs: validation by the work spent, in epochs of SASRec."""

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.plan import DATA, EPOCHS, full_runs
from figures.records import Record, read_records
from figures.style import LOSSES, METHODS, SETS, band, line, markdown, missing, seeds, spread
from landscape.plots.style import COLUMN, PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "methods.json"
COUNTED = {"bce": ("sasrec", "samrec", "cl4srec", "s3rec"), "ce": ("sasrec", "samrec")}
SHARES = (0.9, 0.95, 1.0)
CAPTION = (
    "Best validation NDCG@10 so far against the work spent, in epochs of SASRec under the same loss: an "
    "epoch of each method counts with its ratio to SASRec's, as measured on a quiet machine under BCE "
    "(benchmarks/results/methods.json). S3Rec begins with its pre-training, and fine-tunes as SASRec "
    "does. Under CE SAM takes two passes too and its ratio is the same; what CL4SRec and S3Rec add to a "
    "pass has not been measured there, and they are left out. The main runs; the line is the mean over "
    "seeds, the band, where there are several, runs from the lowest to the highest. A run that has "
    "stopped keeps its best."
)


def data(results: Path) -> dict[str, Any]:
    """Collect the best NDCG@10 so far by cost and method, and what shares of SASRec's best cost."""
    records = read_records(results)
    measured = json.loads(MEASURED.read_text("utf-8"))["ratios"]
    ratios = {"sasrec": 1.0, "s3rec": 1.0}
    ratios |= {method: measured[f"{method} / sasrec"] for method in ("samrec", "cl4srec")}
    pretraining = measured["s3rec-pretraining / sasrec"]
    panels = []
    for name, loss in product(DATA, EPOCHS):
        methods = {
            method: _curve(runs, ratios[method], pretraining)
            for method, runs in full_runs(records, name, loss).items()
            if method in COUNTED[loss]
        }
        if methods:
            target = max(spread(methods["sasrec"]["best"])[0]) if "sasrec" in methods else None
            reached = {method: _reached(curve, target) for method, curve in methods.items()} if target else {}
            panels.append({"data": name, "loss": loss, "methods": methods, "reached": reached})
    return {"caption": CAPTION, "ratios": ratios | {"s3rec-pretraining": pretraining}, "panels": panels}


def _curve(runs: list[Record], ratio: float, pretraining: float) -> dict[str, Any]:
    """Return the cost at each validation, and each seed's best NDCG@10 up to there."""
    epochs = sorted({row["epoch"] for run in runs for row in run.log})
    before = pretraining * runs[0].settings.get("pretrain_epochs", 0)
    return {
        "runs": [run.name for run in runs],
        "cost": [before + ratio * epoch for epoch in epochs],
        "best": [
            [max((row["ndcg@10"] for row in run.log if row["epoch"] <= epoch), default=0.0) for run in runs]
            for epoch in epochs
        ],
    }


def _reached(curve: dict[str, Any], target: float) -> list[float | None]:
    """Return the cost at which the mean first reaches each share of a target, None where it does not."""
    middle = spread(curve["best"])[0]
    first = [np.flatnonzero(middle >= share * target) for share in SHARES]
    return [curve["cost"][at[0]] if len(at) else None for at in first]


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a row for each loss, a column for each data set."""
    from matplotlib.figure import Figure

    panels = {(panel["loss"], panel["data"]): panel for panel in found["panels"]}
    losses, sets = ([key for key in keys if any(key in at for at in panels)] for keys in (LOSSES, SETS))
    rows, columns = max(1, len(losses)), max(1, len(sets))
    with paper():
        figure = Figure(figsize=(COLUMN if columns == 1 else PAGE, 1.8 * rows + 0.4))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, key in zip(grid.flat, product(losses, sets) if panels else [None], strict=True):
            if key not in panels:
                missing(axes)
                continue
            methods = panels[key]["methods"]
            for method, curve in methods.items():
                middle, low, high = spread(curve["best"])
                line(axes, method, curve["cost"], middle, ms=2)
                band(axes, method, curve["cost"], zip(low, high, strict=True))
            trained = seeds(len(curve["runs"]) for curve in methods.values())
            axes.set(title=f"{SETS[key[1]]}, {LOSSES[key[0]]}, {trained}", xlim=(0, None), ylim=(0, None))
        for axes in grid[:, 0] if panels else ():
            axes.set(ylabel="best validation NDCG@10")
        for axes in grid[-1]:
            axes.set(xlabel="cost, epochs of SASRec")
        if panels:
            most = max(grid.flat, key=lambda axes: len(axes.lines))
            figure.legend(*most.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the caption, and a table of what shares of SASRec's best NDCG@10 cost."""
    head = ["data", "loss", "method", "seeds", *(f"{share:.0%}" for share in SHARES)]
    rows = [
        [
            SETS[panel["data"]],
            LOSSES[panel["loss"]],
            METHODS[method],
            str(len(panel["methods"][method]["runs"])),
            *("not reached" if cost is None else f"{cost:.0f}" for cost in costs),
        ]
        for panel in found["panels"]
        for method, costs in panel["reached"].items()
    ]
    said = (
        "Epochs of SASRec that it costs to reach a share of SASRec's best validation NDCG@10, the mean over "
        "seeds, to the next validation.\n\n"
    )
    return {"md": said + markdown(head, rows)}

"""How curvature and sharpness change along a training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.records import read_records
from figures.style import COLOR, METHODS, PAIR, band, line, missing, title
from landscape.plots.style import COLUMN, PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {
    "lambda_max": "λmax",
    "sam": "SAM, ρ = 0.1",
    "asam": "ASAM *, ρ = 0.1",
    "trace": "trace",
    "ndcg@10": "validation\nNDCG@10",
}
CAPTION = (
    "Curvature and sharpness of the training loss (dropout off, the same users and negatives at every "
    "epoch) and validation NDCG@10 along the training of the first seed. * unchanged by a rescaling of "
    "the weights that keeps the function. The band around the trace is its standard error over the "
    "probes, twice to each side; the dotted line is the epoch with the best validation NDCG@10, which "
    "is what is tested."
)


def data(results: Path) -> dict[str, Any]:
    """Collect what was measured at the epochs that were kept, and the validations of the same runs."""
    records = read_records(results)
    panels: dict[str, Any] = {}
    for path in sorted((results / PAIR / "trajectories").glob("*.json")):
        label, method = path.stem.rsplit(".", 1)
        known = json.loads(path.read_text("utf-8"))
        looks = sorted(known["epochs"], key=lambda look: float(look["epoch"]))
        record = records.get(known["run"])
        panels.setdefault(label, {})[method] = {
            "run": known["run"],
            "users": max((look["users"] for look in looks), default=0),
            "best_epoch": record.best_epoch if record else None,
            "epoch": [look["epoch"] for look in looks],
            "lambda_max": [look["lambda_max"] for look in looks],
            "trace": [look["trace"] for look in looks],
            "trace_se": [look["trace_se"] for look in looks],
            **{key: [look["measures"][key]["value"] for look in looks] for key in ("sam", "asam")},
            "validated": [row["epoch"] for row in record.log] if record else [],
            "ndcg@10": [row["ndcg@10"] for row in record.log] if record else [],
        }
    return {"caption": CAPTION, "panels": panels}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a column for each data set and loss, a row for each quantity, all over the epochs."""
    from matplotlib.figure import Figure

    panels = found["panels"]
    columns = max(1, len(panels))
    with paper():
        figure = Figure(figsize=(COLUMN if columns == 1 else PAGE, 1.05 * len(SHOWN) + 0.5))
        grid = figure.subplots(len(SHOWN), columns, squeeze=False, sharex="col")
        for axes in grid.flat if not panels else ():
            missing(axes)
        for column, (label, methods) in zip(grid.T, panels.items(), strict=False):
            for axes, (key, text) in zip(column, SHOWN.items(), strict=True):
                for method in (m for m in METHODS if m in methods):
                    known = methods[method]
                    x = known["validated" if key == "ndcg@10" else "epoch"]
                    line(axes, method, x, np.array(known[key], float), ms=2)
                    if key == "trace":
                        middle, error = np.array([known["trace"], known["trace_se"]], float)
                        band(axes, method, x, zip(middle - 2 * error, middle + 2 * error, strict=True))
                    if known["best_epoch"] is not None:
                        axes.axvline(known["best_epoch"], color=COLOR[method], ls=":", lw=0.7, zorder=0)
                axes.set(ylabel=text)
            users = max(known["users"] for known in methods.values())
            column[0].set(title=f"{title(label)}, {users} users, 1 seed")
            column[-1].set(xlabel="epoch")
        figure.align_ylabels(grid)
        if panels:
            most = max(grid[0], key=lambda axes: len(axes.lines))
            figure.legend(*most.get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return {"": figure}

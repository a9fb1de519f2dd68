"""How SASRec's and SAMRec's minima differ, over the seeds of their trainings."""

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t

from figures.plan import DATA, EPOCHS, full_runs
from figures.records import Record, read_records
from figures.style import COLOR, MARKER, markdown, missing, title
from landscape.flatness.measures import MEASURES
from landscape.plots.style import COLUMN, PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "loss": "L(θ), dropout off",
    "valid_loss": "validation loss",
    "weight_norm": "‖θ‖",
    "gradient_norm": "‖∇L(θ)‖",
    "lambda_max": "λmax",
    "trace": "trace",
}
CAPTION = (
    "Ratios SAMRec / SASRec at their best epochs, 512 frozen users, dropout off. A mark is a pair of runs "
    "that share their seed; the line is the 95% interval of the geometric mean over pairs, by Student's t "
    "of the logarithms. * unchanged by a rescaling of hidden units that keeps the function."
)


def data(results: Path) -> dict[str, Any]:
    """Collect each measure's ratio by seed, and its geometric mean over them, by data set and loss."""
    records = read_records(results)
    panels = {}
    for name, loss in product(DATA, EPOCHS):
        runs = full_runs(records, name, loss)
        pairs = [(a, b) for a in runs.get("sasrec", ()) for b in runs.get("samrec", ()) if a.seed == b.seed]
        looks = [(_look(a, results), _look(b, results)) for a, b in pairs]
        known = [(a, b, x, y) for (a, b), (x, y) in zip(pairs, looks, strict=True) if x and y]
        if known:
            panels[f"{name}-{loss}"] = {
                "runs": [[a.name, b.name] for a, b, _, _ in known],
                "seeds": [a.seed for a, *_ in known],
                "rows": {key: _row([y[key] / x[key] for *_, x, y in known]) for key in known[0][2]},
            }
    return {"caption": CAPTION, "panels": panels}


def _look(record: Record, results: Path) -> dict[str, float]:
    path = results / "minima" / f"{record.name}.json"
    if not path.exists():
        return {}
    look = json.loads(path.read_text("utf-8"))
    return {key: look[key] for key in NAMES} | {key: row["value"] for key, row in look["measures"].items()}


def _row(ratios: list[float]) -> dict[str, Any]:
    logs, count = np.log(ratios), len(ratios)
    far = t.ppf(0.975, count - 1) * logs.std(ddof=1) / count**0.5 if count > 1 else np.nan
    mean = logs.mean()
    ends = np.exp([mean - far, mean + far]).tolist() if count > 1 else [None, None]
    return {"ratios": ratios, "mean": float(np.exp(mean)), "low": ends[0], "high": ends[1]}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw every ratio, a panel for each data set and loss."""
    from matplotlib.figure import Figure

    panels = found["panels"]
    with paper():
        columns, rows = min(4, max(1, len(panels))), max(1, -(-len(panels) // 4))
        figure = Figure(figsize=(COLUMN if columns == 1 else PAGE, 2.6 * rows))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        if not panels:
            missing(grid[0])
        for axes, (label, panel) in zip(grid, panels.items(), strict=False):
            look: dict[str, Any] = {"color": COLOR["samrec"]}
            for place, row in enumerate(panel["rows"].values()):
                if row["low"] is not None:
                    axes.plot([row["low"], row["high"]], [place] * 2, lw=1, **look)
                axes.plot(row["ratios"], [place] * len(row["ratios"]), MARKER["samrec"], ms=3, **look)
            axes.axvline(1, color=COLOR["sasrec"], lw=0.8, zorder=0)
            axes.set_yticks(range(len(panel["rows"])), [_name(key) for key in panel["rows"]])
            axes.set(title=title(label), xlabel="SAMRec / SASRec", ylim=(len(panel["rows"]) - 0.5, -0.5))
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table for each data set and loss: the ratio of each seed, and the mean."""
    tables = []
    for label, panel in found["panels"].items():
        seeds = (f"seed {seed}" for seed in panel["seeds"])
        head = [title(label), *seeds, "geometric mean [95%, Student's t over seeds]"]
        rows = [[_name(key), *map(_ratio, row["ratios"]), _mean(row)] for key, row in panel["rows"].items()]
        tables.append(markdown(head, rows))
    return {"md": "\n".join(tables)}


def _name(key: str) -> str:
    return NAMES.get(key, key) + (" *" if key in MEASURES and MEASURES[key].invariant else "")


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def _mean(row: dict[str, Any]) -> str:
    ends = f" [{_ratio(row['low'])}, {_ratio(row['high'])}]" if row["low"] is not None else ""
    return _ratio(row["mean"]) + ends

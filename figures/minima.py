"""How SASRec's and SAMRec's minima differ, over the seeds of their trainings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr, t

from figures.plan import DATA, main_runs
from figures.records import Record, read_records
from figures.style import COLOR, MARKER, SETS, markdown, missing, quantity, ratio_axis
from landscape.plots.style import COLUMN, PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OTHERS = ("loss", "valid_loss", "weight_norm", "gradient_norm", "lambda_max", "trace")
"""What is measured beside the measures of sharpness."""
UNSURE = ("average",)  # near 0 and within its error: its ratios would fill the picture
CAPTION = (
    "Ratios SAMRec / SASRec at their best epochs, 512 frozen users, dropout off. A mark is a pair of runs "
    "that share their seed; the line is the 95% interval of the geometric mean over pairs, by Student's t "
    "of the logarithms. * unchanged by a rescaling of hidden units that keeps the function. Average-case "
    "sharpness is within its error and in the table alone."
)


def data(results: Path) -> dict[str, Any]:
    """Collect each measure's ratios by seed and their mean, of the main runs."""
    records = read_records(results)
    runs = [records[run.name] for run in main_runs(records) if run.name in records]
    panels = {
        f"{SETS[name]}, BCE": panel
        for name in DATA
        if (panel := _panel([run for run in runs if run.data == name], results))
    }
    return {"caption": CAPTION, "panels": panels, "together": _together(list(panels.values()))}


def _together(panels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return of each measure what its ratios over all pairs are, and how they go with those of the epochs.

    Both methods end at their own best epoch, and most measures change along a training. `epochs` is
    Spearman's correlation of the ratios with those of the best epochs; None of fewer than three pairs, or
    where either are all the same.
    """
    found = {}
    for key in panels[0]["rows"] if panels else ():
        pairs = [
            (ratio, epochs)
            for panel in panels
            for ratio, epochs in zip(panel["rows"][key]["ratios"], panel["epochs"], strict=True)
            if ratio is not None
        ]
        if pairs:
            ratios, epochs = np.array(pairs).T
            vary = len(pairs) > 2 and np.ptp(ratios) > 0 and np.ptp(epochs) > 0
            found[key] = {
                "pairs": len(pairs),
                "below": int((ratios < 1).sum()),
                "low": float(ratios.min()),
                "high": float(ratios.max()),
                "epochs": float(spearmanr(ratios, epochs).statistic) if vary else None,
            }
    return found


def _panel(runs: Sequence[Record], results: Path) -> dict[str, Any] | None:
    """Return the ratios of each measure, of the pairs of SASRec and SAMRec that share their seed."""
    looks = {(run.method, run.seed): look for run in runs if (look := _look(run, results))}
    best = {(run.method, run.seed): run.best_epoch for run in runs}
    seeds = sorted(seed for method, seed in looks if method == "sasrec" and ("samrec", seed) in looks)
    pairs = [(looks["sasrec", seed], looks["samrec", seed]) for seed in seeds]
    if not pairs:
        return None
    rows = {key: _row([_quotient(ours[key], theirs[key]) for theirs, ours in pairs]) for key in pairs[0][0]}
    return {
        "runs": sorted(run.name for run in runs if run.seed in seeds),
        "seeds": seeds,
        "epochs": [best["samrec", seed] / best["sasrec", seed] for seed in seeds],
        "rows": rows,
    }


def _look(record: Record, results: Path) -> dict[str, float]:
    path = results / "minima" / f"{record.name}.json"
    if not path.exists():
        return {}
    look = json.loads(path.read_text("utf-8"))
    return {key: look[key] for key in OTHERS} | {key: row["value"] for key, row in look["measures"].items()}


def _quotient(ours: float, theirs: float) -> float | None:
    """Return the ratio of two values; None where one is not above 0, as an estimate near 0 may be."""
    return ours / theirs if min(ours, theirs) > 0 else None


def _row(ratios: list[float | None]) -> dict[str, Any]:
    """Return the ratios with their geometric mean; without one where a seed has no ratio."""
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) < len(ratios):
        return {"ratios": ratios, "mean": None, "low": None, "high": None}
    logs, count = np.log(known), len(known)
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
            shown = {key: row for key, row in panel["rows"].items() if key not in UNSURE}
            look: dict[str, Any] = {"color": COLOR["samrec"]}
            for place, row in enumerate(shown.values()):
                if row["low"] is not None:
                    axes.plot([row["low"], row["high"]], [place] * 2, lw=1, **look)
                axes.plot(row["ratios"], [place] * len(row["ratios"]), MARKER["samrec"], ms=3, **look)
            axes.axvline(1, color=COLOR["sasrec"], lw=0.8, zorder=0)
            axes.set_yticks(range(len(shown)), [quantity(key) for key in shown])
            axes.set(title=label, xlabel="SAMRec / SASRec", ylim=(len(shown) - 0.5, -0.5))
            ratios = [ratio for row in shown.values() for ratio in (1, *row["ratios"]) if ratio]
            axes.set_xlim(min(ratios) / 1.2, max(ratios) * 1.2)  # an interval of two pairs may be endless
            ratio_axis(axes)
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table of all pairs together, then for each data set the ratio of each seed, and the mean."""
    together = found["together"]
    head = [
        "all pairs",
        "below 1",
        "smallest and largest ratio",
        "Spearman with the ratio of the best epochs",
    ]
    rows = [
        [
            quantity(key),
            f"{row['below']} of {row['pairs']}",
            f"{row['low']:.2f}, {row['high']:.2f}",
            "–" if row["epochs"] is None else f"{row['epochs']:+.2f}",
        ]
        for key, row in together.items()
    ]
    tables = [markdown(head, rows)] if rows else []
    for label, panel in found["panels"].items():
        seeds = (f"seed {seed}" for seed in panel["seeds"])
        head = [label, *seeds, "geometric mean [95%, Student's t over seeds]"]
        rows = [
            [quantity(key), *map(_ratio, row["ratios"]), _mean(row)] for key, row in panel["rows"].items()
        ]
        tables.append(markdown(head, rows))
    return {"md": "\n".join(tables)}


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mean(row: dict[str, Any]) -> str:
    ends = f" [{_ratio(row['low'])}, {_ratio(row['high'])}]" if row["low"] is not None else ""
    return _ratio(row["mean"]) + ends

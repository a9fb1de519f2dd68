"""The trials of ρ, dropout and weight decay: how each method ranks, and how sharp its minimum is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.plan import DATA, LIMITS, SEEDS, Training, chosen, late_validation, ranked, trials
from figures.questions import METRICS
from figures.records import Record, read_ranks, read_records
from figures.stopping import stopped
from figures.style import COLOR, METHODS, SETS, line, markdown, share
from landscape.plots.style import COLUMN, PAGE, paper
from samrec.evaluation import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = METRICS[0]
SETTINGS = {"rho": "ρ", "dropout": "dropout", "weight_decay": "weight decay"}
TICKS = {"rho": (0.02, 0.05, 0.1, 0.2, 0.5), "dropout": (0.2, 0.3, 0.4, 0.5, 0.6)}
ROWS = (("rho", "valid"), ("rho", "lambda_max"), ("dropout", "valid"))
SHOWN = {"valid": "validation NDCG@10", "lambda_max": "λmax"}
CAPTION = (
    "Trials with one seed: validation NDCG@10, the mean of the late checkpoints, and λmax at the best epoch "
    "(512 users, dropout off). What is not on the axis is the default: dropout 0.5, ρ = 0.1. Error bars and "
    "the band: mean ± standard deviation over five seeds of the default, so over trainings that differ in "
    "chance alone. SASRec has no ρ and is a line across."
)


def data(results: Path) -> dict[str, Any]:
    """Collect the trials of each data set that has others than the default, and the default's five seeds."""
    records = read_records(results)
    panels = {}
    for name in DATA:
        known = _rows([run for method in LIMITS for run in trials(name, method)], records, results)
        if len(known) > len(LIMITS):
            best = (chosen(records, name, method) for method in LIMITS)
            panels[name] = {
                "trials": known,
                "chosen": [run.name for run in best if run],
                "seeds": {
                    method: _spread(_rows([ranked(name, method, seed) for seed in SEEDS], records, results))
                    for method in LIMITS
                },
            }
    return {"caption": CAPTION, "panels": panels}


def _rows(runs: Sequence[Training], records: Mapping[str, Record], results: Path) -> list[dict[str, Any]]:
    """Return what each recorded run came to: its late checkpoints, and the minimum at its best epoch."""
    rows = []
    for run in (run for run in runs if run.name in records):
        record, config = records[run.name], run.config(Path())
        end = stopped(record.log, run.rule, record.epochs)
        tested = [metrics(ranks)[METRIC] for ranks in read_ranks(record, results, end.late)]
        path = results / "minima" / f"{run.name}.json"
        rows.append(
            {
                "run": run.name,
                "method": config.method,
                "rho": config.radius,
                "dropout": config.dropout,
                "weight_decay": config.weight_decay,
                "best_epoch": end.best,
                "valid": late_validation(record, run.rule),
                "test": float(np.mean(tested)),
                "lambda_max": json.loads(path.read_text("utf-8"))["lambda_max"] if path.exists() else None,
            }
        )
    return rows


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean and standard deviation of what is shown of the default, over its seeds."""
    found: dict[str, Any] = {}
    for key in SHOWN:
        values = [row[key] for row in rows if row[key] is not None]
        if len(values) > 1:
            found[key] = [float(np.mean(values)), float(np.std(values, ddof=1))]
    return found


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a column for each data set that has trials; nothing of none."""
    from matplotlib.figure import Figure

    panels = found["panels"]
    if not panels:
        return {}
    with paper():
        columns = len(panels)
        figure = Figure(figsize=(COLUMN if columns == 1 else PAGE, 1.5 * len(ROWS) + 0.4))
        grid = figure.subplots(len(ROWS), columns, squeeze=False)
        for column, (name, panel) in zip(grid.T, panels.items(), strict=True):
            column[0].set_title(SETS[name])
            for axes, (setting, key) in zip(column, ROWS, strict=True):
                _panel(axes, panel, setting, key)
        for axes, (_, key) in zip(grid[:, 0], ROWS, strict=True):
            axes.set_ylabel(SHOWN[key])
        figure.align_ylabels(grid)
        figure.legend(*grid[-1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return {"": figure}


def _panel(axes: "Axes", panel: dict[str, Any], setting: str, key: str) -> None:
    """Draw a quantity over a setting: the trials that differ from the default in it alone."""
    values = TICKS[setting]
    axes.set(xlabel=SETTINGS[setting], xscale="log" if setting == "rho" else "linear")
    axes.set_xlim(values[0] / 1.15, values[-1] * 1.15)
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    for method in LIMITS:
        own = [row for row in panel["trials"] if row["method"] == method]
        rows = [row for row in own if _apart(row, own[0]) <= {setting} and row[key] is not None]
        rows.sort(key=lambda row: float(row[setting]))
        mean, deviation = panel["seeds"][method].get(key, (None, 0))
        if setting == "rho" and method == "sasrec":
            if mean is not None:
                axes.axhline(mean, color=COLOR[method], lw=1)
                axes.axhspan(mean - deviation, mean + deviation, color=COLOR[method], alpha=0.15, lw=0)
            continue
        line(axes, method, [row[setting] for row in rows], [row[key] for row in rows])
        if mean is not None:
            look: dict[str, Any] = {"color": COLOR[method], "alpha": 0.5, "capsize": 3}
            axes.errorbar(own[0][setting], mean, deviation, fmt="_", **look)


def _apart(row: dict[str, Any], default: dict[str, Any]) -> set[str]:
    """Return in which settings a trial differs from the default."""
    return {key for key in SETTINGS if row[key] != default[key]}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table, a row for each trial."""
    head = ["data", "method", "trial", "best epoch", "validation NDCG@10", "test NDCG@10", "λmax", "chosen"]
    rows = []
    for name, panel in found["panels"].items():
        for method in LIMITS:
            own = [row for row in panel["trials"] if row["method"] == method]
            for row in own:
                apart = [f"{SETTINGS[key]} {row[key]:g}" for key in SETTINGS if key in _apart(row, own[0])]
                rows.append(
                    [
                        SETS[name],
                        METHODS[method],
                        ", ".join(apart) or "the default",
                        str(row["best_epoch"]),
                        share(row["valid"]),
                        share(row["test"]),
                        "–" if row["lambda_max"] is None else f"{row['lambda_max']:.3g}",
                        "yes" if row["run"] in panel["chosen"] else "",
                    ]
                )
    return {"md": markdown(head, rows) if rows else "No trial is recorded yet.\n"}

"""Ranking of all methods on all data sets under both losses, and what SAMRec and others gain over SASRec."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.bootstrap import compared
from figures.plan import EPOCHS, RIVAL_PRESET, full_runs, tuned_runs
from figures.records import ANY, Record, read_records, select
from figures.style import COLOR, LOSSES, MARKER, METHODS, METRICS, SETS, markdown, missing
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAIMED = (0.1104, 0.1548)  # the paper's gains, over four data sets and both metrics
METHODS_BESIDE = ("sasrec", "samrec", "cl4srec", "s3rec")


def data(results: Path) -> dict[str, Any]:
    """Collect a row for each data set, loss, architecture and method."""
    records = read_records(results)
    rows = []
    for name in SETS:
        for loss in EPOCHS:
            rows += _rows(full_runs(records, name, loss), results, LOSSES[loss])
            rows += _rows(tuned_runs(records, name, loss), results, f"{LOSSES[loss]}, tuned")
        rows += _rows(_rivals(records, name), results, f"BCE, {RIVAL_PRESET}")
    return {"claimed": CLAIMED, "rows": rows}


def _rivals(records: Mapping[str, Record], name: str) -> dict[str, list[Record]]:
    found = {
        method: select(
            records,
            name,
            method=method,
            preset=RIVAL_PRESET,
            positions="start",
            rho=ANY,
            every=ANY,
            temperature=ANY,
        )
        for method in METHODS_BESIDE
    }
    return {method: runs for method, runs in found.items() if runs}


def _rows(found: Mapping[str, Sequence[Record]], results: Path, setting: str) -> list[dict[str, Any]]:
    """Return a row a method; gains are over the seeds that it shares with SASRec."""
    rows = []
    for method, runs in found.items():
        row: dict[str, Any] = {
            "data": runs[0].data,
            "setting": setting,
            "method": method,
            "runs": [run.name for run in runs],
            "seeds": len(runs),
            "best_epochs": [run.best_epoch for run in runs],
            "cut_short": any(run.cut_short for run in runs),
        }
        pairs = [(a, b) for a in runs for b in found.get("sasrec", ()) if a.seed == b.seed]
        ours, theirs = zip(*pairs, strict=True) if pairs and method != "sasrec" else ((), ())
        gains = compared(ours, theirs, results)
        for metric in METRICS:
            reached = [run.test[metric] for run in runs]
            spread = float(np.std(reached, ddof=1)) if len(reached) > 1 else None
            row[metric] = {"mean": float(np.mean(reached)), "sd": spread, **(gains[metric] or {})}
        rows.append(row)
    return rows


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw the gains over SASRec with their intervals, beside those that the paper reports."""
    from matplotlib.figure import Figure

    rows = [row for row in found["rows"] if "gain" in row["hr@10"]]
    places = [f"{SETS[row['data']]}, {row['setting']}" for row in rows]
    labels = list(dict.fromkeys(places))
    with paper():
        figure = Figure(figsize=(PAGE, 0.8 + 0.26 * max(4, len(labels))))
        for axes, (metric, title) in zip(figure.subplots(1, 2, sharey=True), METRICS.items(), strict=True):
            if not rows:
                missing(axes)
                continue
            low, high = (100 * end for end in found["claimed"])
            axes.axvspan(low, high, color="0.88", lw=0, label="SAMRec, as the paper reports")
            axes.axvline(0, color=COLOR["sasrec"], lw=0.8, zorder=0, label="SASRec")
            seen = set()
            for row, place in zip(rows, places, strict=True):
                method, known = row["method"], row[metric]
                y = labels.index(place) + 0.22 * (METHODS_BESIDE.index(method) - 2)
                axes.plot([100 * known["low"], 100 * known["high"]], [y, y], color=COLOR[method], lw=1)
                label = METHODS[method] if method not in seen else None
                axes.plot(100 * known["gain"], y, MARKER[method], color=COLOR[method], ms=3.5, label=label)
                seen.add(method)
            axes.set_yticks(range(len(labels)), labels)
            axes.set(xlabel=f"gain over SASRec in {title} (%)", ylim=(len(labels) - 0.4, -0.7))
        handles, names = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper center", ncols=len(names))
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table."""
    head = ["data", "loss", "method", "seeds", "HR@10", "NDCG@10", "gain in HR@10", "gain in NDCG@10"]
    rows = [
        [
            SETS[row["data"]],
            row["setting"],
            METHODS[row["method"]] + ("†" if row["cut_short"] else ""),
            str(row["seeds"]),
            *(_reached(row[metric]) for metric in METRICS),
            *(_gain(row[metric]) for metric in METRICS),
        ]
        for row in found["rows"]
    ]
    return {"md": markdown(head, rows)}


def _reached(known: dict[str, Any]) -> str:
    spread = f" ± {known['sd']:.4f}".replace("0.", ".") if known["sd"] is not None else ""
    return f"{known['mean']:.4f}".replace("0.", ".") + spread


def _gain(known: dict[str, Any]) -> str:
    if "gain" not in known:
        return ""
    gain, low, high = (f"{100 * known[key]:+.1f}" for key in ("gain", "low", "high"))
    return f"{gain}% [{low}, {high}], p {known['p']:.2g}"

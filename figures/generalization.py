"""Do flat minima generalize? Sharpness against the generalization gap, over all runs."""

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.bootstrap import FEWEST, kendall
from figures.plan import DATA, EPOCHS
from figures.records import Record, read_records
from figures.style import COLOR, LOSSES, MARKER, METHODS, SETS, missing
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {
    "lambda_max": "λmax",
    "trace": "trace",
    "sam": "SAM",
    "asam": "ASAM *",
    "average-adaptive": "average-adaptive *",
}
SUCCESSES = {"gap": "gap", "ndcg@10": "NDCG"}
CAPTION = (
    "Sharpness of the training loss at each run's best epoch against its generalization gap: the loss "
    "of the items held out for validation less the training loss, dropout off, users and negatives "
    "frozen. A mark is a run, of whatever settings, epochs and share of the data; data sets with fewer "
    f"than {FEWEST} runs are left out. * unchanged by a rescaling of the weights that keeps the "
    "function. Above: Kendall's τ with the gap, and with test NDCG@10, with a 95% interval of a "
    "bootstrap over runs. Hollow: runs that never learned, with a test HR@10 below half of the best on "
    "the same share of the data; they are left out of τ."
)


def data(results: Path) -> dict[str, Any]:
    """Collect sharpness, gap and test NDCG@10 of each run that was measured, and their correlations."""
    measured: dict[tuple[str, str], list[tuple[Record, dict[str, Any]]]] = {}
    for run in read_records(results).values():
        path = results / "minima" / f"{run.name}.json"
        if path.exists():
            look = json.loads(path.read_text("utf-8"))
            measured.setdefault((run.data, run.loss), []).append((run, look))
    panels = []
    for name, loss in product(DATA, EPOCHS):
        known = measured.get((name, loss), [])
        best: dict[Any, float] = {}
        for run, _ in known:
            best[_seen(run)] = max(best.get(_seen(run), 0.0), run.test["hr@10"])
        points = [
            {
                "run": run.name,
                "method": run.method,
                "learned": run.test["hr@10"] >= best[_seen(run)] / 2,
                "gap": look["valid_loss"] - look["loss"],
                "ndcg@10": run.test["ndcg@10"],
                **{key: _sharpness(look, key) for key in SHOWN},
            }
            for run, look in known
        ]
        if len(points) >= FEWEST:
            tau = {key: {of: _tau(points, key, of) for of in SUCCESSES} for key in SHOWN}
            panels.append({"data": name, "loss": loss, "points": points, "tau": tau})
    return {"caption": CAPTION, "panels": panels}


def _seen(run: Record) -> tuple[float, float]:
    """What a run was trained on, of its data set: with less of it, it is no failure to rank less well."""
    return run.settings["train_fraction"], run.settings["noise"]


def _sharpness(look: dict[str, Any], key: str) -> float | None:
    value = look[key] if key in look else look["measures"].get(key, {}).get("value")
    return value if value is not None and np.isfinite(value) else None


def _tau(points: list[dict[str, Any]], key: str, of: str) -> dict[str, float] | None:
    known = [point for point in points if point["learned"] and point[key] is not None]
    found = kendall([point[key] for point in known], [point[of] for point in known])
    return {"runs": len(known), **found._asdict()} if found else None


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a picture for each loss: a row for each data set, a column for each measure."""
    losses = dict.fromkeys(panel["loss"] for panel in found["panels"])
    pictures = {loss: _draw([p for p in found["panels"] if p["loss"] == loss]) for loss in losses}
    return pictures or {"": _draw([])}


def _draw(panels: list[dict[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = max(1, len(panels))
    with paper():
        figure = Figure(figsize=(PAGE, 1.75 * rows + 0.4))
        grid = figure.subplots(rows, len(SHOWN), squeeze=False, sharey="row")
        for axes in grid.flat if not panels else ():
            missing(axes, "too few runs")
        for row, panel in zip(grid, panels, strict=False):
            for axes, (key, label) in zip(row, SHOWN.items(), strict=True):
                _scatter(axes, panel["points"], key)
                said = [f"{SUCCESSES[of]} {_said(tau)}" for of, tau in panel["tau"][key].items()]
                axes.set_title("\n".join(said), fontsize=7)
                axes.set(xlabel=label)
            row[0].set(ylabel=f"{SETS[panel['data']]}, {LOSSES[panel['loss']]}:\ngeneralization gap")
        shown = {point["method"] for panel in panels for point in panel["points"]}
        marks = [
            Line2D([], [], color=COLOR[method], marker=MARKER[method], ms=4, ls="", label=METHODS[method])
            for method in METHODS
            if method in shown
        ]
        if marks:
            marks.append(
                Line2D([], [], color="0.4", marker="o", mfc="none", ms=4, ls="", label="never learned")
            )
            title = (
                "above each panel: Kendall's τ with the gap and with test NDCG@10 [95% interval over runs]"
            )
            figure.legend(
                handles=marks, title=title, title_fontsize=7, loc="outside upper center", ncols=len(marks)
            )
        return figure


def _scatter(axes: "Axes", points: list[dict[str, Any]], key: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    known = [point for point in points if point[key] is not None]
    if not known:
        missing(axes)
        return
    for (method, color), learned in product(COLOR.items(), (True, False)):
        group = [point for point in known if (point["method"], point["learned"]) == (method, learned)]
        x, y = ([point[of] for point in group] for of in (key, "gap"))
        fill = color if learned else "none"
        axes.plot(x, y, MARKER[method], color=color, mfc=fill, ms=3.5, alpha=0.8)
    values = [point[key] for point in known]
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set(xscale="log")
        far = max(values) > 100 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if far else (1.0, 3.0), numticks=4))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x < 1e4 else f"{x / 1000:g}k")
        axes.minorticks_off()


def _said(tau: dict[str, float] | None) -> str:
    if tau is None:
        return "–"
    values = (f"{round(tau[key], 2) + 0:.2f}" for key in ("tau", "low", "high"))  # no −.00
    middle, low, high = (value.replace("0.", ".").replace("-", "−") for value in values)
    return f"{middle} [{low}, {high}]"

"""How HR@10 and NDCG@10 depend on SAM's radius."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.plan import DATA, RADII, THIRD, short
from figures.records import ANY, read_records, select
from figures.style import COLOR, LOSSES, METRICS, SETS, band, line, missing, seeds, spread
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {"valid": ("validation", "--"), "test": ("test", "-")}


def data(results: Path) -> dict[str, Any]:
    """Collect validation and test of SASRec, a radius of 0, and of SAMRec by radius, by seed."""
    records = read_records(results)
    panels = []
    for name, loss in product(DATA, THIRD):
        asked = short(loss)
        runs = select(records, name, **asked) + select(records, name, **asked, method="samrec", rho=ANY)
        best = max((run.test["hr@10"] for run in runs), default=0.0)
        by_radius = {
            rho: [run for run in runs if run.settings.get("rho", 0.0) == rho]
            for rho in sorted({0.0, *RADII, *(run.settings.get("rho", 0.0) for run in runs)})
        }
        points = [
            {
                "rho": rho,
                "runs": [run.name for run in at],
                "learned": all(run.test["hr@10"] >= best / 2 for run in at),
                **{part: {key: [getattr(run, part)[key] for run in at] for key in METRICS} for part in PARTS},
            }
            for rho, at in by_radius.items()
        ]
        if runs:
            panels.append({"data": name, "loss": loss, "epochs": THIRD[loss], "points": points})
    return {"caption": CAPTION, "panels": panels}


CAPTION = (
    "HR@10 and NDCG@10 by the radius ρ of SAM, which moves all parameters; ρ = 0 is SASRec, and its "
    "level is drawn on. Dropout 0.5, no weight decay. Of several seeds the line is the mean and the "
    "band runs from the lowest to the highest. The steps of the axis are of equal width. A hollow "
    "triangle at the foot is a radius with which a run stayed below half of the best test HR@10, under "
    "the mean that it reached; a gap is a run that is not there."
)


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw both metrics, a row for each data set and loss."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = max(1, len(found["panels"]))
    with paper():
        figure = Figure(figsize=(PAGE, 1.9 * rows + 0.3))
        grid = figure.subplots(rows, len(METRICS), squeeze=False)
        if not found["panels"]:
            for axes in grid.flat:
                missing(axes)
        for pair, panel in zip(grid, found["panels"], strict=False):
            trained = seeds(len(point["runs"]) for point in panel["points"])
            title = f"{SETS[panel['data']]}, {LOSSES[panel['loss']]}, {panel['epochs']} epochs, {trained}"
            for axes, (metric, label) in zip(pair, METRICS.items(), strict=True):
                _draw(axes, panel["points"], metric)
                axes.set(ylabel=label, title=title)
        for axes in grid[-1]:
            axes.set(xlabel="radius ρ of SAM")
        marks = [
            Line2D([], [], color=COLOR["sasrec"], marker="o", ms=3, ls="", label="SASRec"),
            Line2D([], [], color=COLOR["samrec"], marker="s", ms=3, label="SAMRec"),
            *(Line2D([], [], color="0.4", ls=style, label=text) for text, style in PARTS.values()),
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=4)
        return {"": figure}


def _draw(axes: "Axes", points: list[dict[str, Any]], metric: str) -> None:
    for part, (_, style) in PARTS.items():
        values = [point[part][metric] if point["learned"] else [] for point in points]
        middle, low, high = spread(values)
        line(axes, "samrec", np.arange(1, len(points)), middle[1:], ls=style)
        band(axes, "samrec", np.arange(1, len(points)), zip(low[1:], high[1:], strict=True))
        line(axes, "sasrec", [0], middle[:1])
        if values[0]:
            axes.vlines(0, low[0], high[0], color=COLOR["sasrec"], lw=0.8)
            axes.axhline(middle[0], color=COLOR["sasrec"], ls=style, lw=0.7, zorder=0)
    for place, point in enumerate(points):
        if not point["learned"]:
            foot: dict[str, Any] = {"color": COLOR["samrec"], "transform": axes.get_xaxis_transform()}
            axes.plot(place, 0.04, marker="v", ms=4, mfc="none", **foot)
            reached = np.mean(point["test"][metric])
            axes.text(place, 0.09, f"{reached:.2g}", ha="center", va="bottom", fontsize=7, **foot)
    axes.set_xticks(range(len(points)), [f"{point['rho']:g}" for point in points])
    axes.margins(y=0.12)

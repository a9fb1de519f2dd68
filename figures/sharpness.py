"""The sharpness of SASRec's and SAMRec's minima by all measures, and their ratios."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.measure import OF_GROUPS
from figures.style import COLOR, METHODS, PAIR, invariant, markdown, missing, quantity, ratio_axis, title
from landscape.flatness.comparison import Contrast
from landscape.flatness.notation import PLAIN
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def data(results: Path) -> dict[str, Any]:
    """Collect the comparisons by data set and loss. Which measures are invariant, the code knows."""
    found = {}
    for path in sorted((results / PAIR / "sharpness").glob("*.json")):
        known = json.loads(path.read_text("utf-8"))
        rows = [row | {"invariant": invariant(row["measure"])} for row in known["rows"]]
        found[path.stem] = known | {"rows": rows}
    return found


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw the ratios of all measures, and where in the model the sharpness sits."""
    with paper():
        return {"": _ratios(found), "groups": _groups(found)}


def _ratios(found: dict[str, Any]) -> "Figure":
    """Draw the ratio of each measure, SAMRec to SASRec, with its interval; filled where that leaves out 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE, 3.6))
    panels = figure.subplots(1, max(1, len(found)), squeeze=False, sharey=True)[0]
    if not found:
        missing(panels[0])
    for axes, (label, known) in zip(panels, found.items(), strict=False):
        rows = [row for row in known["rows"] if row["group"] is None]
        for place, row in enumerate(rows):
            cell = row["checkpoints"]["samrec"]
            ratio = cell.get("ratio")
            if ratio is None:
                continue
            low, high = cell["low"], cell["high"]
            if low is None:
                axes.plot(ratio, place, "x", ms=4, color=COLOR["samrec"])
                continue
            axes.plot([low, high], [place] * 2, color=COLOR["samrec"], lw=1)
            axes.plot(ratio, place, "s", ms=4, color=COLOR["samrec"], mfc=_face(low <= 1 <= high))
        axes.axvline(1, color=COLOR["sasrec"], lw=0.8, zorder=0)
        axes.set_yticks(range(len(rows)), [quantity(row["measure"]) for row in rows])
        axes.set(xlabel="SAMRec / SASRec", title=title(label), ylim=(len(rows) - 0.5, -0.5))
        ratio_axis(axes)
    if found:
        _explain(figure)
    return figure


def _face(open_: bool) -> str:
    return "white" if open_ else COLOR["samrec"]


def _explain(figure: "Figure") -> None:
    """Say above the panels what each mark means."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": COLOR["samrec"], "ms": 4}
    marks = {
        "95% interval without 1": Line2D([], [], marker="s", lw=1, **look),
        "95% interval with 1": Line2D([], [], marker="s", lw=1, mfc=_face(True), **look),
        "no interval": Line2D([], [], marker="x", ls="", **look),
        "* invariant under rescaling": Line2D([], [], ls=""),
    }
    figure.legend([*marks.values()], [*marks], loc="outside upper center", ncols=len(marks))


def _groups(found: dict[str, Any]) -> "Figure":
    """Draw measures of each group of parameters, moved alone, for both methods."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE, 0.4 + 1.5 * max(1, len(found))))
    grid = figure.subplots(max(1, len(found)), len(OF_GROUPS), squeeze=False)
    for axes in grid.flat if not found else ():
        missing(axes)
    for panels, (label, known) in zip(grid, found.items(), strict=False):
        for axes, measure in zip(panels, OF_GROUPS, strict=True):
            rows = [row for row in known["rows"] if row["measure"] == measure and row["group"]]
            largest = max(abs(c["value"]) for row in rows for c in row["checkpoints"].values())
            power = min(0, math.floor(math.log10(largest))) if largest else 0
            for shift, method in ((-0.18, "sasrec"), (0.18, "samrec")):
                cells = [row["checkpoints"][method] for row in rows]
                axes.barh(
                    [place + shift for place in range(len(rows))],
                    [cell["value"] / 10**power for cell in cells],
                    height=0.32,
                    xerr=[(cell["se"] or 0.0) / 10**power for cell in cells],
                    color=COLOR[method],
                    error_kw={"lw": 0.6},
                    label=METHODS[method],
                )
            named = axes is panels[0]
            axes.set_yticks(range(len(rows)), [row["group"] if named else "" for row in rows])
            unit = f", 10$^{{{power}}}$" if power else ""
            axes.set(xlabel=quantity(rows[0]["measure"]) + unit, ylim=(len(rows) - 0.5, -0.5))
            axes.locator_params(axis="x", nbins=3)
        panels[0].set_ylabel(title(label))
    handles, names = grid[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table of the values of both and their ratio, for each data set and loss."""
    whole = {
        label: {quantity(row["measure"]): row["checkpoints"] for row in known["rows"] if row["group"] is None}
        for label, known in found.items()
    }
    measures = list(dict.fromkeys(name for rows in whole.values() for name in rows))
    labels = list(found)
    head = ["measure"]
    for label in labels:
        head += [f"{title(label)}: SASRec", "SAMRec", "ratio [95%]"]
    rows = [
        [measure, *(cell for label in labels for cell in _cells(whole[label].get(measure)))]
        for measure in measures
    ]
    return {"md": markdown(head, rows)}


def _cells(checkpoints: dict[str, Any] | None) -> list[str]:
    if checkpoints is None:
        return ["–"] * 3
    ours = checkpoints["samrec"]
    contrast = Contrast(*(ours[key] for key in Contrast(0).entry))
    values = [
        PLAIN.number(checkpoints[name]["value"], checkpoints[name]["se"]) for name in ("sasrec", "samrec")
    ]
    return [*values, PLAIN.contrast(contrast)]

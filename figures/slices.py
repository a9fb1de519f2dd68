"""The loss along random filter-normalized lines, with a band over the seeds of the directions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.style import METHODS, PAIR, band, line, markdown, missing, title
from landscape.plots.levels import few_ticks
from landscape.plots.style import COLUMN, paper
from landscape.storage.results import load_as
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def data(results: Path) -> dict[str, Any]:
    """Collect median, lowest and highest loss over the seeds, by data set and loss, and by method."""
    lines: dict[tuple[str, str], list[Slice]] = {}
    for path in sorted((results / PAIR / "lines").glob("*.npz")):
        label, method, _ = path.stem.rsplit(".", 2)
        lines.setdefault((label, method), []).append(load_as(Slice, path))
    found: dict[str, Any] = {}
    for (label, method), slices in lines.items():
        losses = np.stack([s.losses for s in slices])
        found.setdefault(label, {})[method] = {
            "checkpoint": slices[0].provenance["checkpoint"],
            "seeds": len(slices),
            "largest_error": max(s.certificate.max_error for s in slices if s.certificate),
            "x": slices[0].coordinates[0].tolist(),
            "median": np.median(losses, 0).tolist(),
            "low": losses.min(0).tolist(),
            "high": losses.max(0).tolist(),
        }
    return found


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a panel for each data set and loss."""
    from matplotlib.figure import Figure

    count = max(1, len(found))
    with paper():
        figure = Figure(figsize=(COLUMN * min(2, count), 2.2))
        panels = figure.subplots(1, count, squeeze=False)[0]
        for axes, (label, methods) in zip(panels, found.items(), strict=False):
            for method in (m for m in METHODS if m in methods):
                known = methods[method]
                line(axes, method, known["x"], known["median"], marker="")
                band(axes, method, known["x"], zip(known["low"], known["high"], strict=True))
            seeds = max(known["seeds"] for known in methods.values())
            axes.set(
                title=title(label),
                xlabel=f"step along d ({seeds} random directions)",
                ylabel="training loss",
            )
            few_ticks(axes.xaxis)
            axes.legend(title="median, lowest to highest", title_fontsize=6)
        if not found:
            missing(panels[0])
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table: the loss at the checkpoint and at a step of 1."""
    head = ["", "loss at the checkpoint", "at a step of 1: median", "lowest and highest of the directions"]
    rows = []
    for label, methods in found.items():
        for method in (m for m in METHODS if m in methods):
            median, low, high = (np.array(methods[method][key]) for key in ("median", "low", "high"))
            start = f"{median[len(median) // 2]:.3f}"
            ends = [f"{median[-1]:.2f}", f"{low[-1]:.2f}, {high[-1]:.2f}"]
            rows.append([f"{title(label)}: {METHODS[method]}", start, *ends])
    return {"md": markdown(head, rows) if rows else "No line is measured yet.\n"}

"""Surfaces of SASRec and SAMRec: random planes, planes of eigenvectors, and planes without the embeddings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.measure import EIGEN_RADIUS
from figures.style import METHODS, PAIR, missing, title
from landscape.plots.labels import step_lengths
from landscape.plots.levels import contours
from landscape.plots.style import LOSS_MAP, PAGE, paper
from landscape.storage.results import load_as
from landscape.surface.certificate import uncovered
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIEWS = {
    "random": "random, filter-normalized",
    "eigen": f"top two eigenvectors, radius {EIGEN_RADIUS:g}",
    "still": "random, embeddings held still",
}


def data(results: Path) -> dict[str, Any]:
    """Collect the planes by data set and loss, view and method."""
    found: dict[str, Any] = {}
    for path in sorted((results / PAIR / "planes").glob("*.npz")):
        label, method, view = path.stem.rsplit(".", 2)
        plane = load_as(Slice, path)
        found.setdefault(label, {}).setdefault(view, {})[method] = {
            "checkpoint": plane.provenance["checkpoint"],
            "center": plane.center,
            "steps": step_lengths(plane),
            "cosine": plane.cosine,
            "certificate": _restated(plane).statement,
            "coordinates": [axis.tolist() for axis in plane.coordinates],
            "losses": plane.losses.tolist(),
        }
    return found


def _restated(plane: Slice) -> Slice:
    """Return a plane with the share that its certificate speaks for, as it is computed now."""
    known = plane.certificate
    if known is None:
        return plane
    return replace(plane, certificate=replace(known, share=uncovered(known.points, known.attempts)))


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw contours and 3D, a column a view with one scale, a row a method."""
    return {
        f"{label}{suffix}": _figure(label, views, solid)
        for label, views in found.items()
        for suffix, solid in (("", False), ("-3d", True))
    }


def interactive(results: Path) -> Any:
    """Return the random planes and those of eigenvectors, of Beauty under BCE, to be turned; None of none."""
    from landscape.plots.interactive import interactive_figure

    slices = {
        f"{METHODS[method]}, {VIEWS[view]}": load_as(Slice, path)
        for view in ("random", "eigen")
        for method in METHODS
        if (path := results / PAIR / "planes" / f"Beauty-bce.{method}.{view}.npz").exists()
    }
    return interactive_figure(slices) if slices else None


def _figure(label: str, views: dict[str, Any], solid: bool) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    methods = [method for method in METHODS if any(method in planes for planes in views.values())]
    with paper():
        figure = Figure(figsize=(PAGE, 2.35 * len(methods) + 0.4))
        shape = {"projection": "3d"} if solid else {}
        grid = figure.subplots(len(methods), len(VIEWS), squeeze=False, subplot_kw=shape)
        for column, (view, said) in enumerate(VIEWS.items()):
            planes = views.get(view, {})
            values = [np.array(plane["losses"]) for plane in planes.values()]
            low, high = (min(map(np.nanmin, values)), max(map(np.nanmax, values))) if values else (0.0, 1.0)
            for axes, method in zip(grid[:, column], methods, strict=True):
                if method in planes:
                    (_solid if solid else _flat)(axes, planes[method], low, high)
                    plane = planes[method]
                    facts = f"{METHODS[method]}: L(θ) = {plane['center']:.3f}, ‖d‖/‖θ‖ = {plane['steps']}"
                    axes.set_title(f"{said}\n{facts}" if axes is grid[0, column] else facts, fontsize=6)
                    axes.set_xlabel("step along d₁", fontsize=6, labelpad=-8 if solid else None)
                    axes.set_ylabel("step along d₂", fontsize=6, labelpad=-8 if solid else None)
                elif solid:
                    axes.set_axis_off()
                else:
                    missing(axes)
            bar = figure.colorbar(
                ScalarMappable(Normalize(low, high), LOSS_MAP),
                ax=grid[:, column].tolist(),
                location="bottom",
                shrink=0.8,
                aspect=30,
            )
            bar.set_label("loss")
        figure.suptitle(f"{title(label)}: training loss, 2,048 users", fontsize=8)
        return figure


def _flat(axes: "Axes", plane: dict[str, Any], low: float, high: float) -> None:
    contours(axes, [np.array(c) for c in plane["coordinates"]], np.array(plane["losses"]), low, high)
    axes.plot(0, 0, "+", color="white", ms=6)


def _solid(axes: Any, plane: dict[str, Any], low: float, high: float) -> None:
    from matplotlib.ticker import MaxNLocator

    x, y = (np.array(axis) for axis in plane["coordinates"])
    height = np.array(plane["losses"]).T  # losses[i, j] is at (x_i, y_j); a mesh has rows of y
    axes.plot_surface(
        *np.meshgrid(x, y), height, cmap=LOSS_MAP, vmin=low, vmax=high, rcount=51, ccount=51, lw=0
    )
    axes.set(zlim=(low, high))
    axes.tick_params(labelsize=5, pad=-3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.view_init(28, -50)

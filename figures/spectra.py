"""The density of the Hessian's eigenvalues, and the top eigenvalues that have converged."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures.style import COLOR, METHODS, PAIR, line, missing, title
from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.plots.spectra import broadened
from landscape.plots.style import COLUMN, paper
from landscape.storage.results import load_as

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def data(results: Path) -> dict[str, Any]:
    """Collect the broadened density of each method on one axis, and both ends of its spectrum."""
    folder = results / PAIR / "spectra"
    densities: dict[str, dict[str, SpectralDensity]] = {}
    for path in sorted(folder.glob("*.density.npz")):
        label, method = path.name.removesuffix(".density.npz").rsplit(".", 1)
        densities.setdefault(label, {})[method] = load_as(SpectralDensity, path)
    found: dict[str, Any] = {}
    for label, by_method in densities.items():
        pairs = {
            method: load_as(Eigenpairs, path)
            for method in by_method
            if (path := folder / f"{label}.{method}.eigenvalues.npz").exists()
        }
        x, width, heights = broadened(by_method, pairs)
        found[label] = {
            "x": x.tolist(),
            "width": width,
            "methods": {
                method: {
                    "checkpoint": density.provenance["checkpoint"],
                    "density": np.maximum(heights[method], 0).tolist(),
                    "trace": density.moment(1),
                    **(_ends(pairs[method]) if method in pairs else {}),
                }
                for method, density in by_method.items()
            },
        }
    return found


def _ends(pairs: Eigenpairs) -> dict[str, Any]:
    return {
        "eigenvalues": pairs.eigenvalues.tolist(),
        "smallest": pairs.smallest,
        "largest_residual": float(pairs.residuals.max()),
        "converged": all(pairs.converged),
        "gradient_norm": pairs.gradient_norm,
    }


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a panel for each data set and loss; ticks below are the eigenvalues themselves."""
    from matplotlib.figure import Figure

    count = max(1, len(found))
    with paper():
        figure = Figure(figsize=(COLUMN * min(2, count), 2.4))
        panels = figure.subplots(1, count, squeeze=False)[0]
        if not found:
            missing(panels[0])
        for axes, (label, known) in zip(panels, found.items(), strict=False):
            single = 1 / (known["width"] * np.sqrt(2 * np.pi))  # the height of one eigenvalue
            methods = [m for m in METHODS if m in known["methods"]]
            for row, method in enumerate(methods):
                one = known["methods"][method]
                line(axes, method, known["x"], one["density"], marker="", lw=1)
                ends = [*one.get("eigenvalues", []), *([one["smallest"]] if one.get("smallest") else [])]
                axes.plot(ends, [single / 30 / 2.5**row] * len(ends), "|", color=COLOR[method], ms=5, mew=0.8)
            top = max(max(one["density"]) for one in known["methods"].values())
            axes.set(
                title=title(label),
                yscale="log",
                ylim=(single / 100 / 2.5 ** len(methods), 5 * top),
                xlabel=f"eigenvalue λ (Gaussians of width {known['width']:.2g})",
                ylabel="eigenvalues per unit of λ",
            )
            axes.locator_params(axis="x", nbins=5)
            axes.legend()
        return {"": figure}

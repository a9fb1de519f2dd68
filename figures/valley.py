"""Where the minima of SASRec and SAMRec lie: their valleys, and the ways that led into them.

The results are those of

    landscape surface --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --directions eigen-ends --radius 4
    landscape train --data Beauty.txt --epochs 30 --save-every 1 --out runs/sasrec-30
    landscape train --data Beauty.txt --epochs 30 --save-every 1 --method samrec --out runs/samrec-30
    landscape surface --ckpt runs/sasrec-30/last.pt --ckpt runs/samrec-30/last.pt --directions trajectory
    landscape surface --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --directions between --dim 1 \
        --metric valid-loss --metric hr@10 --metric ndcg@10

without the users' parts in the losses: see `store`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.plots.surfaces import metric_figure, surface_figure
from landscape.results import load_as
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("sasrec", "samrec")
METRICS = ("loss", "valid-loss", "hr@10", "ndcg@10")


def figures(results: Path) -> dict[str, "Figure"]:
    """Draw the planes of eigenvectors, the planes of the trajectories, and the line between."""

    def read(name: str) -> Slice:
        return load_as(Slice, results / f"{name}.npz")

    return {
        "eigen": surface_figure({method: read(f"{method}.eigen") for method in METHODS}),
        "trajectory": surface_figure({method: read(f"{method}.trajectory") for method in METHODS}),
        "between": metric_figure({m: {"sasrec to samrec": read(f"between.{m}")} for m in METRICS}),
    }


def store(measured: Mapping[str, Path], results: Path) -> None:
    """Copy the slices that `landscape surface` left to `results`, under the names that `figures` reads."""
    for name, path in measured.items():
        result = load_as(Slice, path)
        replace(result, deviations=result.deviations[:0]).save(results / f"{name}.npz")

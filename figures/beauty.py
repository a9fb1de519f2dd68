"""SASRec and SAMRec on Beauty: the first look at both minima.

The results are those of

    landscape train --data Beauty.txt --out runs/sasrec
    landscape train --data Beauty.txt --method samrec --rho 0.1 --out runs/samrec
    landscape compare --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out compare

with the eigenvectors, and most of what is known of each user and each draw, left out: see `store`.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from figures.curvature import without_vectors
from landscape.plots.curves import eigenvalue_figure, training_figure
from landscape.plots.report import read_comparison, result_path, write_index
from landscape.plots.surfaces import surface_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(results: Path) -> dict[str, "Figure"]:
    """Draw the training curves, both surfaces, the line and the eigenvalues."""
    comparison, measured = read_comparison(results)
    return {
        "training": training_figure({c.name: c.log for c in comparison.checkpoints}),
        "surfaces": surface_figure({name: m.plane for name, m in measured.items()}),
        "lines": surface_figure({name: m.line for name, m in measured.items()}),
        "eigenvalues": eigenvalue_figure({name: m.hessian for name, m in measured.items()}),
    }


def store(compared: Path, results: Path) -> None:
    """Copy what `landscape compare` left in `compared` to `results`, without what is large."""
    comparison, measured = read_comparison(compared)
    for name, m in measured.items():
        values = without_vectors(m.hessian)
        sharpness = replace(m.sharpness, by_draw=(), by_unit=(), loss_by_unit=m.sharpness.loss_by_unit[:0])
        plane = replace(m.plane, deviations=m.plane.deviations[:1])
        line = replace(m.line, deviations=m.line.deviations[:0])
        kept = replace(m, hessian=values, plane=plane, line=line, sharpness=sharpness)
        for part, result in vars(kept).items():
            result.save(result_path(results, name, part))
    write_index(comparison, results)

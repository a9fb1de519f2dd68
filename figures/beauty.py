"""SASRec and SAMRec on Beauty: the first look at both minima.

The results are those of

    landscape train --data Beauty.txt --out runs/sasrec
    landscape train --data Beauty.txt --method samrec --rho 0.1 --out runs/samrec
    landscape compare --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out compare

with the eigenvectors (16 MB a checkpoint) left out: see `store`.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.files import replacing
from landscape.plots.curves import eigenvalue_figure, training_figure
from landscape.plots.report import INDEX, Comparison, result_path
from landscape.plots.surfaces import surface_figure
from landscape.results import load, load_as
from landscape.surface import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("plane", "line", "hessian", "trace", "sharpness")


def figures(results: Path) -> dict[str, "Figure"]:
    """Draw the training curves, both surfaces, the line and the eigenvalues."""
    comparison = _index(results)
    names = [c.name for c in comparison.checkpoints]
    return {
        "training": training_figure({c.name: c.log for c in comparison.checkpoints}),
        "surfaces": surface_figure({n: load_as(Slice, result_path(results, n, "plane")) for n in names}),
        "lines": surface_figure({n: load_as(Slice, result_path(results, n, "line")) for n in names}),
        "eigenvalues": eigenvalue_figure(
            {n: load_as(Eigenpairs, result_path(results, n, "hessian")) for n in names}
        ),
    }


def store(compared: Path, results: Path) -> None:
    """Copy what `landscape compare` left in `compared` to `results`, without the eigenvectors."""
    comparison = _index(compared)
    for checkpoint in comparison.checkpoints:
        for part in PARTS:
            result = load(result_path(compared, checkpoint.name, part))
            if isinstance(result, Eigenpairs):
                result = replace(result, eigenvectors=np.empty((0, result.eigenvectors.shape[1])))
            result.save(result_path(results, checkpoint.name, part))
    with replacing(results / INDEX) as temporary:
        temporary.write_text(comparison.model_dump_json(indent=1), "utf-8")


def _index(folder: Path) -> Comparison:
    return Comparison.model_validate_json((folder / INDEX).read_bytes())

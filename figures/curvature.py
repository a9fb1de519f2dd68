"""The spectra of SASRec and SAMRec on Beauty, and the table of their sharpness.

The results are those of

    landscape hessian --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --density --trace --by-group \\
        --out spectra --json > hessian.json
    landscape sharpness --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out sharpness.json
    landscape sharpness --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --by-group --out groups.json \\
        --measure sam --measure asam --measure average --measure average-adaptive --measure trace

without the eigenvectors: see `store`. README and docs quote the JSON files.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.plots.spectra import spectrum_figure
from landscape.results import load_as

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("sasrec", "samrec")


def figures(results: Path) -> dict[str, "Figure"]:
    """Draw both spectral densities, with the converged eigenvalues."""
    densities = {name: load_as(SpectralDensity, results / f"{name}.density.npz") for name in METHODS}
    return {"density": spectrum_figure(densities, {name: _pairs(results, name) for name in METHODS})}


def store(measured: Path, results: Path) -> None:
    """Copy what `landscape hessian` left to `results`, without the eigenvectors (16 MB a checkpoint)."""
    for name in METHODS:
        load_as(SpectralDensity, measured / f"{name}.density.npz").save(results / f"{name}.density.npz")
        without_vectors(_pairs(measured, name)).save(results / f"{name}.hessian.npz")


def without_vectors(pairs: Eigenpairs) -> Eigenpairs:
    """Return eigenpairs as eigenvalues alone."""
    none = np.empty((0, pairs.eigenvectors.shape[1]))
    return replace(pairs, eigenvectors=none, bottom_vectors=none)


def _pairs(folder: Path, name: str) -> Eigenpairs:
    return load_as(Eigenpairs, folder / f"{name}.hessian.npz")

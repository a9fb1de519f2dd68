"""`landscape hessian`: eigenvalues, trace and spectral density of the Hessian, or of a matrix akin to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, only_with, with_options
from landscape.cli.output import named, show, written
from landscape.errors import InputError
from landscape.runtime.arguments import MOST
from landscape.runtime.ranks import ranks

if TYPE_CHECKING:
    from landscape.curvature.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions:
    """Arguments of `landscape.spectrum`."""

    matrix: Annotated[
        Literal["hessian", "gauss-newton", "fisher"],
        typer.Option(
            help="The Hessian, the generalized Gauss-Newton matrix, or the empirical Fisher matrix."
        ),
    ] = "hessian"
    top: Annotated[int, typer.Option(min=1, max=MOST, help="Number of largest eigenvalues.")] = 5
    smallest: Annotated[
        int, typer.Option(min=0, max=MOST, help="Number of smallest eigenvalues; 0 saves some products.")
    ] = 1
    method: Annotated[
        Literal["lanczos", "power"],
        typer.Option(help="Solver. Power iteration finds the largest in magnitude, slowly, without a basis."),
    ] = "lanczos"
    tol: Annotated[
        float, typer.Option(help="Largest residual ‖Hv - λv‖ / |λ|; of λmin, ‖Hv - λv‖ / ‖H‖.")
    ] = 1e-3
    max_products: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Maximum number of Hessian-vector products (default: 100 per eigenvalue)."
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            help='Memory for the solver, such as "8 GB"; the basis goes to the host or a file if needed.'
        ),
        only_with("--method", "lanczos"),
    ] = None
    trace: Annotated[bool, typer.Option("--trace", help="Estimate the trace too.")] = False
    trace_method: Annotated[
        Literal["hutchinson", "hutch++", "xtrace"],
        typer.Option(help="Hutch++ and XTrace estimate better where few eigenvalues dominate."),
        only_with("--trace"),
    ] = "hutchinson"
    trace_tol: Annotated[
        float | None,
        typer.Option(help="Stop at this standard error, relative to the trace."),
        only_with("--trace"),
    ] = None
    probes: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Maximum number of products for the trace."),
        only_with("--trace"),
    ] = 30
    density: Annotated[
        bool, typer.Option("--density", help="Estimate the density of all eigenvalues (Lanczos quadrature).")
    ] = False
    steps: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Lanczos steps for each of the density's 8 probes."),
        only_with("--density"),
    ] = 80
    by_group: Annotated[
        bool, typer.Option("--by-group", help="Measure the block of each group of parameters too.")
    ] = False


@by_ranks
@with_options
def command(
    *,
    settings: SpectrumOptions,
    ridge: Annotated[
        float | None,
        typer.Option(help="Ridge of the effective dimension, above -λmin (default: λmax)."),
        only_with("--density"),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(help="γ of the local entropy, above -λmin (default: λmax)."),
        only_with("--density"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, with eigenvectors; blocks as NAME.GROUP.")
    ] = None,
    of: MeasurementOptions,
) -> None:
    """Find the top eigenvalues of the Hessian of the frozen training loss, with measured residuals.

    A smallest eigenvalue is printed as λ (±r): the matrix has an eigenvalue within r of λ, and r may exceed
    |λ|. A smaller --tol brings r down. --out gets NAME.hessian.npz, NAME.trace.npz and NAME.density.npz.

    Examples:

      landscape hessian --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --top 5 --trace

      landscape hessian --ckpt runs/sasrec/best.pt --density --out spectra

      landscape hessian --ckpt runs/sasrec/best.pt --matrix gauss-newton --by-group --trace-tol 0.02 --trace
    """
    from landscape.curvature.spectrum import spectrum
    from landscape.plots.tables import of_spectra

    if not all(scale is None or scale > 0 for scale in (ridge, gamma)):
        raise InputError("ridge and gamma must be positive")
    if out is not None:
        of.hold(out)
    found: dict[str, Spectrum] = {}
    files: list[Path] = []
    for name, objective in of.each_objective():
        of.need_own_files(objective.params.groups if out is not None and settings.by_group else ())
        found[name] = spectrum(objective, **vars(settings), seed=of.seed)
        if out is not None:
            files += found[name].save(out, name)
    largest = max(float(each.pairs.eigenvalues.max()) for each in found.values())
    ridge, gamma = ridge or largest, gamma or largest
    known = {name: each.facts(ridge, gamma) for name, each in found.items()}
    if out is not None and settings.density and ranks().first:
        from landscape.plots.pictures import save_densities

        files += save_densities(found, out)
    entries = [{"path": str(of.checkpoints[name]), **facts} for name, facts in known.items()]
    show(of.json, {"checkpoints": entries} | named(files), *of_spectra(found, ridge, gamma), *written(files))

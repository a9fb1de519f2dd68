"""`landscape hessian`: eigenvalues, trace and spectral density of the Hessian, or of a matrix akin to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, with_options
from landscape.cli.output import Table, lines, number, show
from landscape.errors import InputError
from landscape.plots.style import subscript
from landscape.runtime.ranks import ranks

if TYPE_CHECKING:
    from landscape.curvature.spectrum import Spectrum

TITLES = {"hessian": "Hessian", "gauss-newton": "Generalized Gauss-Newton", "fisher": "Empirical Fisher"}
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions:
    """Arguments of `landscape.spectrum`."""

    matrix: Annotated[
        Literal["hessian", "gauss-newton", "fisher"],
        typer.Option(
            help="The Hessian, the generalized Gauss-Newton matrix, or the empirical Fisher matrix."
        ),
    ] = "hessian"
    top: Annotated[int, typer.Option(min=1, help="Number of largest eigenvalues.")] = 5
    smallest: Annotated[
        int, typer.Option(min=0, help="Number of smallest eigenvalues; 0 saves some products.")
    ] = 1
    method: Annotated[
        Literal["lanczos", "power"],
        typer.Option(help="Solver. Power iteration finds the largest in magnitude, slowly, without a basis."),
    ] = "lanczos"
    tol: Annotated[float, typer.Option(help="Largest residual ‖Hv - λv‖ / |λ|.")] = 1e-3
    max_products: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of Hessian-vector products (default: 100 per eigenvalue)."),
    ] = None
    trace: Annotated[bool, typer.Option("--trace", help="Estimate the trace too.")] = False
    trace_method: Annotated[
        Literal["hutchinson", "hutch++", "xtrace"],
        typer.Option(help="Hutch++ and XTrace estimate better where few eigenvalues dominate."),
    ] = "hutchinson"
    trace_tol: Annotated[
        float | None, typer.Option(help="Stop at this standard error, relative to the trace.")
    ] = None
    probes: Annotated[int, typer.Option(min=2, help="Maximum number of products for the trace.")] = 30
    density: Annotated[
        bool, typer.Option("--density", help="Estimate the density of all eigenvalues (Lanczos quadrature).")
    ] = False
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps for each of the density's 8 probes.")] = 80
    by_group: Annotated[
        bool, typer.Option("--by-group", help="Measure each block too: embedding, attention, ffn, norms.")
    ] = False


@by_ranks
@with_options
def command(
    *,
    settings: SpectrumOptions,
    ridge: Annotated[
        float | None, typer.Option(help="Ridge of the effective dimension, above -λmin (default: λmax).")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="γ of the local entropy, above -λmin (default: λmax).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, with eigenvectors; blocks as NAME.GROUP.")
    ] = None,
    of: MeasurementOptions,
) -> None:
    """Find the top eigenvalues of the Hessian of the frozen training loss, with measured residuals.

    Examples:

      landscape hessian --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --top 5 --trace

      landscape hessian --ckpt runs/sasrec/best.pt --density --out spectra

      landscape hessian --ckpt runs/sasrec/best.pt --matrix gauss-newton --by-group --trace-tol 0.02 --trace
    """
    from landscape.curvature.spectrum import spectrum

    if not all(scale is None or scale > 0 for scale in (ridge, gamma)):
        raise InputError("ridge and gamma must be positive")
    if out is not None:
        of.hold(out)
    found: dict[str, Spectrum] = {}
    for name, objective in of.objectives(shared=True).items():
        found[name] = spectrum(objective, **vars(settings), seed=of.seed)
        if out is not None:
            found[name].save(out, name)
    if out is not None and settings.density and ranks().first:
        from landscape.plots.pictures import save_densities

        save_densities(found, out)
    _print(found, TITLES[settings.matrix], ridge, gamma, of)


def _print(
    found: "Mapping[str, Spectrum]",
    title: str,
    ridge: float | None,
    gamma: float | None,
    of: MeasurementOptions,
) -> None:
    from landscape.flatness.words import cautions

    largest = max(float(spectrum.pairs.eigenvalues.max()) for spectrum in found.values())
    known = {name: spectrum.facts(ridge or largest, gamma or largest) for name, spectrum in found.items()}
    tables = [Table(title, ["", *found], list(_rows(list(known.values()))))]
    blocks = [
        [name, group, f"{block['parameters']:,}", *_ends(block), number(block["trace"], block["trace_se"])]
        for name, facts in known.items()
        for group, block in facts["groups"].items()
    ]
    if blocks:
        tables.append(Table("Blocks", ["", "group", "parameters", "λmax", "λmin", "trace"], blocks))
    notes = [note for name, spectrum in found.items() for note in cautions(name, spectrum.pairs)]
    entries = [{"path": str(of.checkpoints[name]), **facts} for name, facts in known.items()]
    show(of.json, {"checkpoints": entries}, *tables, *lines(notes))


def _rows(known: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the lines of the table: one quantity for each checkpoint."""
    tops, lows = (list(zip_longest(*map(end, known), fillvalue=MISSING)) for end in (_largest, _smallest))
    yield from ([f"λ{subscript(i)}", *cells] for i, cells in enumerate(tops, start=1))
    yield from (
        ["λmin" if i == 1 else f"λmin{subscript(i)}", *cells] for i, cells in enumerate(lows, start=1)
    )
    yield ["‖∇L‖", *(f"{facts['gradient_norm']:.4g}" for facts in known)]
    if known[0]["trace"] is not None:
        yield ["trace", *(number(facts["trace"], facts["trace_se"]) for facts in known)]
    if densities := [facts["density"] for facts in known if facts["density"]]:
        labels = {
            "trace": "trace, by the density",
            "frobenius": "‖·‖F, by the density",
            "effective_dimension": f"effective dimension, ridge {densities[0]['ridge']:.3g}",
            "local_entropy": f"local entropy, γ {densities[0]['gamma']:.3g}",
        }
        for key, label in labels.items():
            yield [label, *(number(density[key], density[f"{key}_se"]) for density in densities)]
    yield ["products", *(str(facts["products"]) for facts in known)]
    yield ["seconds", *(f"{facts['seconds']:.1f}" for facts in known)]


def _ends(facts: Mapping[str, Any]) -> list[str]:
    return [next(iter(end(facts)), MISSING) for end in (_largest, _smallest)]


def _largest(facts: Mapping[str, Any]) -> list[str]:
    return _marked(facts["eigenvalues"], facts["converged"])


def _smallest(facts: Mapping[str, Any]) -> list[str]:
    return _marked(facts["smallest_eigenvalues"], facts["smallest_converged"])


def _marked(values: list[float], converged: list[bool]) -> list[str]:
    pairs = zip(values, converged, strict=True)
    return [f"{value:.4g}{'' if arrived else ' (not converged)'}" for value, arrived in pairs]

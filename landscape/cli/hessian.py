"""`landscape hessian`: eigenvalues, trace and spectral density of the Hessian, or of a matrix akin to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.errors import InputError
from landscape.parallel import ranks
from landscape.plots.style import subscript

if TYPE_CHECKING:
    from landscape.curvature.density import SpectralDensity
    from landscape.curvature.eigenpairs import Eigenpairs
    from landscape.curvature.trace import Trace
    from landscape.objective import Objective

TITLES = {"hessian": "Hessian", "gauss-newton": "Generalized Gauss-Newton", "fisher": "Empirical Fisher"}


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    matrix: Annotated[
        Literal["hessian", "gauss-newton", "fisher"],
        typer.Option(help="The Hessian, the generalized Gauss-Newton matrix, or the empirical Fisher."),
    ] = "hessian",
    top: Annotated[int, typer.Option(min=1, help="How many of the largest eigenvalues.")] = 5,
    bottom: Annotated[int, typer.Option(min=0, help="How many of the smallest; 0 saves some products.")] = 1,
    method: Annotated[
        Literal["lanczos", "power"],
        typer.Option(help="Power iteration finds those largest in magnitude, slowly, and keeps no basis."),
    ] = "lanczos",
    tol: Annotated[float, typer.Option(help="Largest ‖Hv - λv‖ / |λ|.")] = 1e-3,
    max_products: Annotated[
        int | None, typer.Option(min=1, help="Stop there, converged or not; 100 an eigenvalue by default.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Estimate the trace too.")] = False,
    trace_method: Annotated[
        Literal["hutchinson", "hutch++", "xtrace"],
        typer.Option(help="Hutch++ and XTrace win where few eigenvalues make up the matrix."),
    ] = "hutchinson",
    trace_tol: Annotated[
        float | None, typer.Option(help="Stop at this standard error relative to the trace.")
    ] = None,
    probes: Annotated[int, typer.Option(min=2, help="Products for the trace, at most.")] = 30,
    density: Annotated[
        bool,
        typer.Option("--density", help="Estimate the density of all eigenvalues, by Lanczos quadrature."),
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps of each of the density's 8 probes.")] = 80,
    ridge: Annotated[
        float | None, typer.Option(help="Of the effective dimension; above -λmin, and λmax by default.")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Of the local entropy; above -λmin, and λmax by default.")
    ] = None,
    by_group: Annotated[
        bool, typer.Option("--by-group", help="Also the blocks of embedding, attention, ffn and norms.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to save the results in, eigenvectors among them; NAME.GROUP of blocks."),
    ] = None,
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the top eigenvalues of the Hessian of the frozen training loss, with measured residuals.

    Examples:

      landscape hessian --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --top 5 --trace

      landscape hessian --ckpt runs/sasrec/best.pt --density --out spectra

      landscape hessian --ckpt runs/sasrec/best.pt --matrix gauss-newton --by-group --trace-tol 0.02 --trace
    """
    from landscape.curvature.density import spectral_density
    from landscape.curvature.eigenpairs import top_eigenpairs
    from landscape.curvature.operators import MATRICES
    from landscape.curvature.trace import trace as estimate_trace
    from landscape.tasks import objectives_of

    def measured(objective: "Objective", top: int, bottom: int, whole: bool) -> Spectrum:
        operator = MATRICES[matrix](objective)
        pairs = top_eigenpairs(
            operator, top, method, bottom=bottom, tol=tol, max_products=max_products, seed=seed
        )
        estimate = None
        if trace:
            estimate = estimate_trace(operator, method=trace_method, probes=probes, tol=trace_tol, seed=seed)
        spread = spectral_density(operator, steps=steps, seed=seed) if density and whole else None
        return Spectrum(objective.params.numel, pairs, estimate, spread)

    if not all(scale is None or scale > 0 for scale in (ridge, gamma)):
        raise InputError("ridge and gamma must be positive")
    if out is not None:
        options.hold(context, out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    objectives = dict(
        zip(options.names_of(ckpt), objectives_of(ckpt, settings, task, shared=True), strict=True)
    )
    found: dict[str, Spectrum] = {}
    for name, objective in objectives.items():
        found[name] = measured(objective, top, bottom, whole=True)
        if out is not None:
            found[name].save(out, name)
    blocks = {
        (name, group): measured(objective.of_group(group), 1, min(bottom, 1), whole=False)
        for name, objective in objectives.items()
        for group in (objective.params.groups if by_group else ())
    }
    if out is not None:
        for (name, group), block in blocks.items():
            block.save(out, f"{name}.{group}")
    if out is not None and density and ranks().first:
        _draw(found, out)

    largest = max(float(spectrum.pairs.eigenvalues.max()) for spectrum in found.values())
    scales = {"ridge": ridge or largest, "gamma": gamma or largest}
    entries = [
        {"path": str(path), **spectrum.entry(**scales)}
        | {"groups": {group: block.entry() for (of, group), block in blocks.items() if of == name}}
        for (name, spectrum), path in zip(found.items(), ckpt, strict=True)
    ]
    tables = [Table(TITLES[matrix], ["", *found], list(_rows(found, scales)))]
    if blocks:
        rows = [[name, group, *block.cells()] for (name, group), block in blocks.items()]
        tables.append(Table("Blocks", ["", "group", "parameters", "λmax", "λmin", "trace"], rows))
    notes = {name: spectrum.pairs.not_a_minimum for name, spectrum in found.items()}
    tables += [
        Table(f"{name} is no minimum of this loss: {why}.", [], []) for name, why in notes.items() if why
    ]
    show(json, {"checkpoints": entries}, *tables)


@dataclass(frozen=True)
class Spectrum:
    """What was measured of one matrix."""

    parameters: int
    pairs: "Eigenpairs"
    trace: "Trace | None"
    density: "SpectralDensity | None"

    def save(self, folder: Path, name: str) -> None:
        """Save each part beside the others."""
        for part, result in {"hessian": self.pairs, "trace": self.trace, "density": self.density}.items():
            if result is not None:
                result.save(folder / f"{name}.{part}.npz")

    def entry(self, ridge: float = 0, gamma: float = 0) -> dict[str, Any]:
        """Return what `--json` prints."""
        pairs = self.pairs
        return {
            "matrix": pairs.settings["matrix"],
            "parameters": self.parameters,
            "eigenvalues": pairs.eigenvalues.tolist(),
            "residuals": pairs.residuals.tolist(),
            "converged": pairs.converged,
            "smallest": pairs.smallest,
            "bottom": pairs.bottom.tolist(),
            "bottom_residuals": pairs.bottom_residuals.tolist(),
            "bottom_converged": pairs.bottom_converged,
            "products": pairs.products,
            "product": pairs.settings["product"],
            "gradient_norm": pairs.gradient_norm,
            "not_a_minimum": pairs.not_a_minimum,
            "seconds": pairs.seconds,
            "trace": self.trace and self.trace.value,
            "trace_se": self.trace and self.trace.standard_error,
            "trace_interval": self.trace and list(self.trace.interval),
            "density": self.density and _summary(self.density, ridge, gamma),
        }

    def cells(self) -> list[str]:
        """Return size, both ends and trace, as a table shows them."""
        top, low = (next(values, "–") for values in (_tops(self.pairs), _bottoms(self.pairs)))
        return [f"{self.parameters:,}", top, low, _with_error(self.trace)]


def _rows(found: Mapping[str, Spectrum], scales: Mapping[str, float]) -> Iterator[list[str]]:
    """Yield the lines of the table: a quantity of each checkpoint."""
    spectra = list(found.values())
    tops, lows = (
        list(zip_longest(*map(of, [s.pairs for s in spectra]), fillvalue="–")) for of in (_tops, _bottoms)
    )
    yield from ([f"λ{subscript(i)}", *cells] for i, cells in enumerate(tops, start=1))
    yield from (
        ["λmin" if i == 1 else f"λmin{subscript(i)}", *cells] for i, cells in enumerate(lows, start=1)
    )
    yield ["‖∇L‖", *(f"{s.pairs.gradient_norm:.4g}" for s in spectra)]
    if spectra[0].trace:
        yield ["trace", *(_with_error(s.trace) for s in spectra)]
    summaries = [_summary(s.density, **scales) for s in spectra if s.density]
    labels = {
        "trace": "trace, by the density",
        "frobenius": "‖·‖F, by the density",
        "effective_dimension": f"effective dimension, ridge {scales['ridge']:.3g}",
        "local_entropy": f"local entropy, γ {scales['gamma']:.3g}",
    }
    for key, label in labels.items() if summaries else ():
        yield [label, *(_pair(summary[key], summary[f"{key}_se"]) for summary in summaries)]
    yield ["products", *(str(s.pairs.products) for s in spectra)]
    yield ["seconds", *(f"{s.pairs.seconds:.1f}" for s in spectra)]


def _summary(density: "SpectralDensity", ridge: float, gamma: float) -> dict[str, Any]:
    """Return what a density tells, each with its standard error; None where the matrix is too negative."""
    squares, error = density.moment(2)
    norm = squares**0.5
    found: dict[str, tuple[float | None, float | None]] = {
        "trace": density.moment(1),
        "frobenius": (norm, error / (2 * norm) if norm else 0.0),
    }
    for name, measure, scale in (
        ("effective_dimension", density.effective_dimension, ridge),
        ("local_entropy", density.local_entropy, gamma),
    ):
        try:
            found[name] = measure(scale)
        except InputError:
            found[name] = (None, None)
    errors = {f"{name}_se": error for name, (_, error) in found.items()}
    values = {name: value for name, (value, _) in found.items()}
    return {"ridge": ridge, "gamma": gamma, **values, **errors, "moment_error": max(density.moment_error)}


def _tops(pairs: "Eigenpairs") -> Iterator[str]:
    return _marked(pairs.eigenvalues.tolist(), pairs.converged)


def _bottoms(pairs: "Eigenpairs") -> Iterator[str]:
    return _marked(pairs.bottom.tolist(), pairs.bottom_converged)


def _marked(values: list[float], converged: list[bool]) -> Iterator[str]:
    for value, arrived in zip(values, converged, strict=True):
        yield f"{value:.4g}{'' if arrived else ' (not converged)'}"


def _with_error(trace: "Trace | None") -> str:
    return _pair(trace.value, trace.standard_error) if trace else "–"


def _pair(value: float | None, error: float | None) -> str:
    from landscape.flatness.tables import PLAIN

    return PLAIN.number(value, error)


def _draw(found: Mapping[str, Spectrum], folder: Path) -> None:
    from landscape.plots.spectra import spectrum_figure
    from landscape.plots.style import save_figures

    densities = {name: spectrum.density for name, spectrum in found.items() if spectrum.density}
    save_figures(
        {"density": spectrum_figure(densities, {name: s.pairs for name, s in found.items()})}, folder
    )

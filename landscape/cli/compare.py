"""`landscape compare`: every measurement of several checkpoints, and one page."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, with_options
from landscape.cli.output import Table, show


@by_ranks
@with_options
def command(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results and report.html.")] = Path("compare"),
    radius: Annotated[
        float, typer.Option(help="Radius of the surfaces, in units of their directions.")
    ] = 1.0,
    tol: Annotated[
        float, typer.Option(help="Maximum error of a surface, relative to its range of losses.")
    ] = 1e-3,
    grid: Annotated[
        int | None,
        typer.Option(min=2, help="Draw plain grids of N points per axis instead; lines get twice as many."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of top eigenvalues.")] = 5,
    rho: Annotated[float, typer.Option(help="Radius ρ of the sharpness measures.")] = 0.1,
    density: Annotated[bool, typer.Option(help="Measure the spectral density too.")] = True,
    of: MeasurementOptions,
) -> None:
    """Compare up to six checkpoints in one report.html: surfaces, spectra, sharpness, and their task's facts.

    Results of an earlier run in the same folder are reused where weights, data and settings are the same.

    Example:

      landscape compare --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out compare
    """
    from landscape.report.compare import Measurements, compare_checkpoints

    names = list(of.checkpoints)
    shown = " and ".join(names) if len(names) < 3 else f"{len(names)} checkpoints"
    summary = compare_checkpoints(
        of.checkpoints,
        out,
        of.task_options,
        f"Loss landscape{'s' if len(names) > 1 else ''} of {shown}",
        Measurements(radius, tol, grid, top, rho, density),
        of.task,
        command=shlex.join(["landscape", *sys.argv[1:]]),
    )
    show_comparison(summary, of.json)


def show_comparison(summary: dict[str, Any], as_json: bool) -> None:
    """Print what `compare_checkpoints` returned."""
    entries = summary["checkpoints"]
    headlines = list(dict.fromkeys(key for entry in entries for key in entry["headlines"]))
    show(
        as_json,
        summary,
        Table(
            f"Report: {summary['report']}",
            ["", *headlines, "L(θ)", "‖θ‖", "λmax", "trace", "sam", "asam"],
            [
                [
                    entry["name"],
                    *(_number(entry["headlines"].get(key)) for key in headlines),
                    f"{entry['loss']:.4f}",
                    f"{entry['weight_norm']:.2f}",
                    f"{entry['eigenvalues'][0]:.4f}",
                    f"{entry['trace']:.1f} ± {entry['trace_se']:.1f}",
                    *(f"{entry['measures'][m]['value']:.4g}" for m in ("sam", "asam")),
                ]
                for entry in entries
            ],
        ),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

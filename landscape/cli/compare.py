"""`landscape compare`: every measurement of several checkpoints, and one page."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, not_with, with_options
from landscape.cli.output import show, written
from landscape.runtime.arguments import MOST
from landscape.runtime.table import Table, metric_name


@by_ranks
@with_options
def command(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the results and report.html.")] = Path("compare"),
    radius: Annotated[
        float, typer.Option(help="Radius of the surfaces, in units of their directions.")
    ] = 1.0,
    tol: Annotated[
        float,
        typer.Option(help="Maximum error of a surface, relative to its range of losses."),
        not_with("--grid"),
    ] = 1e-3,
    grid: Annotated[
        int | None,
        typer.Option(
            min=2, max=MOST, help="Draw plain grids of N points per axis instead; lines get twice as many."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=MOST, help="Number of top eigenvalues.")] = 5,
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
    show(as_json, summary, _table(summary["checkpoints"]), *written([Path(summary["report"])]))


def _table(entries: list[dict[str, Any]]) -> Table:
    """Return a table with a column per checkpoint, and a row per quantity."""
    from landscape.flatness.notation import PLAIN
    from landscape.runtime.rounding import LOST, UNSURE

    headlines = dict.fromkeys(key for entry in entries for key in entry["headlines"])
    columns = [
        {key: PLAIN.number(entry["headlines"].get(key)) for key in headlines}
        | {
            "L(θ)": f"{entry['loss']:.5g}",
            "‖θ‖": f"{entry['weight_norm']:.4g}",
            "λmax": f"{entry['eigenvalues'][0]:.4g}{'' if entry['converged'][0] else UNSURE}",
            "trace": PLAIN.number(entry["trace"], entry["trace_se"]),
        }
        | {
            m: PLAIN.number(of["value"], of["se"]) + ("" if of.get("resolved", True) else LOST)
            for m, of in ((m, entry["measures"][m]) for m in ("sam", "asam"))
        }
        for entry in entries
    ]
    rows = [[metric_name(key), *(column[key] for column in columns)] for key in columns[0]]
    return Table("Comparison", ["", *(entry["name"] for entry in entries)], rows)

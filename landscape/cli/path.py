"""`landscape path`: the loss between minima, on the straight line and on a curve trained to stay low."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import MeasurementOptions, not_with, only_with, with_options
from landscape.cli.output import show, values, written
from landscape.errors import InputError
from landscape.runtime.arguments import MOST

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

LABELS = {"linear": "line", "bezier": "Bézier"}


@dataclass(frozen=True, kw_only=True)
class PathOptions:
    """Arguments of `landscape.barriers`."""

    curved: Annotated[
        bool, typer.Option("--bezier", help="Train a Bézier curve that stays low, and measure it too.")
    ] = False
    steps: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Training steps of the curve, one batch each."),
        only_with("--bezier"),
    ] = 1000
    tol: Annotated[
        float, typer.Option(help="Largest error of the line, relative to its range."), not_with("--grid")
    ] = 1e-3
    grid: Annotated[
        int | None,
        typer.Option(min=2, max=MOST, help="Evaluate N evenly spaced points, without an error estimate."),
    ] = None


@with_options
def command(
    *,
    settings: PathOptions,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of the task to evaluate at five points, such as valid-loss (repeatable)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results and pictures.")] = Path("path"),
    of: MeasurementOptions,
) -> None:
    """Measure the barrier between the first checkpoint and each of the others, on the same frozen loss.

    The curve is trained on all users and on other negatives, and then measured on the frozen loss.

    Writes NAME-NAME.linear.npz and NAME-NAME.bezier.npz for each pair, and path.png and path.pdf for all.
    Finished points of a line are kept in NAME-NAME.points.jsonl: run the same command again to continue.

    Examples:

      landscape path --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt

      landscape path --ckpt a/best.pt --ckpt b/best.pt --bezier --metric valid-loss
    """
    from landscape.plots.pictures import save_paths
    from landscape.plots.tables import of_metrics, of_paths
    from landscape.surface.barriers import barriers

    if len(of.ckpt) < 2:
        raise InputError("a path leads from one checkpoint to another; give --ckpt at least twice")
    of.hold(out)
    objectives = of.objectives()
    start, first = next(iter(of.checkpoints.items()))

    def drawn(number: int) -> "Objective":
        return of.objective(first, users=None, seed=of.seed + 1 + number)

    found = barriers(
        objectives,
        **vars(settings),
        training=drawn,
        seed=of.seed,
        metrics={key: of.objective(first, metric=key) for key in metric or ()},
        folder=out,
    )
    entries = [
        {"from": str(first), "to": str(of.checkpoints[name]), **values(path)}
        | {"own_end": path.own_end, "file": str(out / f"{start}-{name}.{path.kind}.npz")}
        for name, paths in found.items()
        for path in paths
    ]
    labelled = {f"{name}, {LABELS[path.kind]}": path for name, paths in found.items() for path in paths}
    pictures = save_paths(start, labelled, out)
    tables = [of_paths(labelled, f"Paths from {start}")]
    if metric:
        tables.append(of_metrics(labelled, f"Metrics along the paths from {start}"))
    files = written([*(Path(entry["file"]) for entry in entries), *pictures])
    show(of.json, {"paths": entries, "pictures": list(map(str, pictures))}, *tables, *files)

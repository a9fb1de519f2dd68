"""`landscape path`: the loss between minima, on the straight line and on a curve trained to stay low."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show, with_error
from landscape.errors import InputError

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.surface.paths import PathProfile

LABELS = {"linear": "line", "bezier": "Bézier"}


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    curved: Annotated[
        bool, typer.Option("--bezier", help="Also a Bézier curve whose bend is trained to stay low.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Of the curve's training, a batch each.")] = 1000,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="At five points, measure this metric of the task too, such as valid-loss (repeatable)."
        ),
    ] = None,
    tol: Annotated[float, typer.Option(help="Largest error of the line, relative to its range.")] = 1e-3,
    grid: Annotated[
        int | None, typer.Option(min=2, help="A plain grid of so many points instead, with no error bar.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results and pictures.")] = Path("path"),
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure the barrier between the first checkpoint and each of the others, on the same frozen loss.

    The curve is trained on all users and on negatives of its own, and then measured on the frozen ones.

    Writes NAME-NAME.linear.npz and NAME-NAME.bezier.npz for each pair, and path.png and path.pdf for all.
    Finished points of a line are kept in NAME-NAME.points.jsonl: the same command goes on from there.

    Examples:

      landscape path --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt

      landscape path --ckpt a/best.pt --ckpt b/best.pt --bezier --metric valid-loss
    """
    from landscape.plots.paths import path_figure
    from landscape.plots.style import save_figures
    from landscape.surface.paths import barrier, bezier, endpoint
    from landscape.tasks import objective_of, objectives_of

    if len(ckpt) < 2:
        raise InputError("a path leads from one checkpoint to another; give --ckpt twice or more")
    options.hold(context, out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    names = options.names_of(ckpt)
    first, *others = objectives_of(ckpt, settings, task)
    metrics = {m: objective_of(ckpt[0], replace(settings, metric=m), task) for m in metric or ()}
    for other in others:
        endpoint(first, other)  # to be refused before any is measured

    def drawn(number: int) -> "Objective":
        return objective_of(ckpt[0], replace(settings, users=None, seed=seed + 1 + number), task)

    paths: dict[str, PathProfile] = {}
    entries = []
    for name, to, other in zip(names[1:], ckpt[1:], others, strict=True):
        pair = f"{names[0]}-{name}"
        points = out / f"{pair}.points.jsonl"
        found = [barrier(first, other, tol=tol, grid=grid, file=points, metrics=metrics)]
        if curved:
            found.append(bezier(first, other, training=drawn, steps=steps, seed=seed, metrics=metrics))
        for path in found:
            file = path.save(out / f"{pair}.{path.kind}.npz")
            paths[f"{name}, {LABELS[path.kind]}"] = path
            entries.append(
                {
                    "from": str(ckpt[0]),
                    "to": str(to),
                    "kind": path.kind,
                    "ends": path.ends,
                    "height": path.height,
                    "standard_error": path.standard_error,
                    "at": path.at,
                    "distance": path.distance,
                    "length": path.length,
                    "certificate": path.certificate,
                    "metrics": path.metrics,
                    "seconds": path.seconds,
                    "file": str(file),
                }
            )
    figure = path_figure({f"{names[0]} to {label}": path for label, path in paths.items()})
    pictures = save_figures({"path": figure}, out)
    tables = [_barriers(names[0], paths, pictures)]
    if metrics:
        tables.append(_metrics(names[0], paths))
    show(json, {"paths": entries, "pictures": [str(p) for p in pictures]}, *tables)


def _barriers(start: str, paths: "Mapping[str, PathProfile]", pictures: list[Path]) -> Table:
    rows = []
    for name, path in paths.items():
        rows.append(
            [
                name,
                *(f"{loss:.4f}" for loss in path.ends),
                with_error(path.height, path.standard_error),
                f"{path.at:.2f}",
                f"{path.length:.2f}",
                f"{path.seconds:.1f}",
            ]
        )
    return Table(
        f"Paths from {start}: " + ", ".join(map(str, pictures)),
        ["to", "L(a)", "L(b)", "barrier", "at t", "length", "seconds"],
        rows,
    )


def _metrics(start: str, paths: "Mapping[str, PathProfile]") -> Table:
    """A column a path: there are few of them, and their names are long."""

    def cell(found: Mapping[str, list[float]], station: int) -> str:
        return with_error(found["values"][station], found["standard_errors"][station])

    return Table(
        f"On the way from {start}",
        ["to", *paths],
        [
            [f"{metric} at t = {t:g}", *(cell(path.metrics[metric], station) for path in paths.values())]
            for metric, found in next(iter(paths.values())).metrics.items()
            for station, t in enumerate(found["positions"])
        ],
    )

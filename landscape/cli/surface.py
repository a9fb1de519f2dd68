"""`landscape surface`: the loss along random directions, for several checkpoints on one scale."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.files import writable


def command(
    ckpt: Checkpoints,
    dim: Annotated[int, typer.Option(min=1, max=2, help="A line or a plane.")] = 2,
    radius: Annotated[
        float, typer.Option(help="In units of the directions; 1 moves each filter by its norm.")
    ] = 1.0,
    grid: Annotated[
        int | None, typer.Option(min=2, help="Points an axis (51 on a line, 25 on a plane).")
    ] = None,
    normalization: Annotated[
        Literal["filter", "layer", "none"], typer.Option(help="Of the random directions.")
    ] = "filter",
    out: Annotated[Path, typer.Option(help="Folder for the results and pictures.")] = Path("surface"),
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw loss surfaces: the same data, directions' seed, axes, levels and colours for every checkpoint.

    Writes NAME.surface.npz for each checkpoint, and surface.png, surface.pdf and surface.html for all.

    Examples:

      landscape surface --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out surfaces

      landscape surface --ckpt runs/sasrec/best.pt --dim 1 --radius 0.5 --exclude 'item*'
    """
    from landscape.plots.interactive import interactive_figure, save_html
    from landscape.plots.style import save_figure
    from landscape.plots.surfaces import surface_figure
    from landscape.surface.sampler import line, plane
    from landscape.tasks import objectives_of

    writable(out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    slices, entries = {}, []
    objectives = objectives_of(ckpt, settings, task)
    for name, path, objective in zip(options.names_of(ckpt), ckpt, objectives, strict=True):
        measure, points = (line, grid or 51) if dim == 1 else (plane, grid or 25)
        result = measure(objective, radius=radius, grid=points, seed=seed, normalization=normalization)
        slices[name] = result
        file = result.save(out / f"{name}.surface.npz")
        entries.append(
            {
                "path": str(path),
                "center": result.center,
                "min": result.range[0],
                "max": result.range[1],
                "evaluations": result.evaluations,
                "seconds": result.seconds,
                "certificate": None,  # a plain grid shows its own points and claims nothing between them
                "file": str(file),
            }
        )
    figure = surface_figure(slices)
    pictures = [save_figure(figure, out / "surface.png"), save_figure(figure, out / "surface.pdf")]
    pictures.append(save_html(interactive_figure(slices), out / "surface.html"))
    show(
        json,
        {"checkpoints": entries, "pictures": [str(p) for p in pictures]},
        Table(
            "Surfaces: " + ", ".join(map(str, pictures)),
            ["", "L(θ)", "min", "max", "points", "seconds", "file"],
            [
                [
                    name,
                    *(f"{e[k]:.4f}" for k in ("center", "min", "max")),
                    str(e["evaluations"]),
                    f"{e['seconds']:.1f}",
                    str(e["file"]),
                ]
                for name, e in zip(slices, entries, strict=True)
            ],
        ),
    )

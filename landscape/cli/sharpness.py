"""`landscape sharpness`: how much the loss rises around each checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.files import writable


def command(
    ckpt: Checkpoints,
    measure: Annotated[
        list[str] | None, typer.Option(help="Which measures (may be repeated); all if none is named.")
    ] = None,
    rho: Annotated[float, typer.Option(help="Radius ρ of the ball (sam, worst, asam).")] = 0.1,
    sigma: Annotated[float, typer.Option(help="Noise σ a coordinate (average).")] = 0.01,
    steps: Annotated[int, typer.Option(min=1, help="Of projected ascent (worst).")] = 20,
    samples: Annotated[int, typer.Option(min=2, help="Antithetic pairs (average).")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder to save the results in.")] = None,
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure sharpness on the same frozen loss and the same draws for every checkpoint.

    Example:

      landscape sharpness --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --rho 0.05
    """
    from landscape.flatness.measures import MEASURES
    from landscape.flatness.measures import sharpness as measured
    from landscape.tasks import objectives_of

    if out is not None:
        writable(out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    names = options.names_of(ckpt)
    results = []
    for name, objective in zip(names, objectives_of(ckpt, settings, task), strict=True):
        result = measured(
            objective,
            measure or list(MEASURES),
            rho=rho,
            sigma=sigma,
            steps=steps,
            samples=samples,
            seed=seed,
        )
        results.append(result)
        if out is not None:
            result.save(out / f"{name}.sharpness.npz")
    show(
        json,
        {
            "checkpoints": [
                {"path": str(path), "loss": r.loss, "weight_norm": r.weight_norm, "measures": r.measures}
                for path, r in zip(ckpt, results, strict=True)
            ]
        },
        Table(
            f"Sharpness (ρ {rho:g}, σ {sigma:g}; mean loss over all frozen users)",
            ["", *names],
            [
                ["L(θ)", *(f"{r.loss:.4f}" for r in results)],
                ["‖θ‖", *(f"{r.weight_norm:.2f}" for r in results)],
                *([key, *(_cell(r.measures[key]) for r in results)] for key in results[0].measures),
            ],
        ),
    )


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.5g}" + ("" if row["se"] is None else f" ± {row['se']:.1g}")

"""`landscape surface`: the loss on lines and planes, for several checkpoints on one scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, not_with, only_with, with_options
from landscape.cli.output import show, written
from landscape.errors import InputError
from landscape.runtime.arguments import MOST
from landscape.runtime.ranks import ranks
from landscape.storage.checkpoints import checkpoints_in

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.objective.objective import Objective
    from landscape.surface.geometry import Quadratic
    from landscape.surface.sampler import Radius
    from landscape.surface.surfaces import Surfaces


Reach = Annotated[
    str,
    typer.Option(
        "--radius",
        help="Radius in units of the directions: 1 moves each filter by its own norm, or goes as far as "
        "an eigenvector is long. auto: until the loss doubles.",
    ),
    only_with("--directions", "random", "eigen", "eigen-ends"),
]
Points = Annotated[
    str | None,
    typer.Option("--grid", help="Evaluate a plain grid of N or NxM points, without an error estimate."),
]


@dataclass(frozen=True, kw_only=True)
class SurfaceOptions:
    """Arguments of `landscape.surfaces`."""

    dim: Annotated[int, typer.Option(min=1, max=2, help="Draw a line (1) or a plane (2).")] = 2
    directions: Annotated[
        Literal["random", "eigen", "eigen-ends", "between", "trajectory"],
        typer.Option(
            help="Random; the top two Hessian eigenvectors, or the top and the bottom one; from the first "
            "checkpoint to one or two others; or the plane of a training trajectory (train --save-every)."
        ),
    ] = "random"
    tol: Annotated[
        float, typer.Option(help="Largest error of the surface, relative to its range."), not_with("--grid")
    ] = 1e-3
    split: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Split each axis into N pieces, if 33 points miss the tolerance."),
        not_with("--grid"),
    ] = 1
    seeds: Annotated[int, typer.Option(min=1, max=MOST, help="Number of random seeds, from --seed on.")] = 1
    normalization: Annotated[
        Literal["filter", "layer", "none"],
        typer.Option(help="Normalization of the directions."),
        only_with("--directions", "random"),
    ] = "filter"
    biases: Annotated[
        bool,
        typer.Option("--biases", help="Vary biases and norms too."),
        only_with("--directions", "random"),
    ] = False
    quadratic: Annotated[bool, typer.Option("--quadratic", help="Draw the quadratic model too.")] = False


@by_ranks
@with_options
def command(
    *,
    settings: SurfaceOptions,
    radius: Reach = "1",
    grid: Points = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a training's checkpoints, ordered by the numbers in their names (default: those "
            "of train --save-every, next to --ckpt)."
        ),
        only_with("--directions", "trajectory"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric of the task to evaluate along the line, such as valid-loss (repeatable)."),
        only_with("--dim", "1"),
    ] = None,
    animate: Annotated[
        bool,
        typer.Option("--animate", help="Write the trajectory as a GIF too."),
        only_with("--directions", "trajectory"),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the results and pictures.")] = Path("surface"),
    of: MeasurementOptions,
) -> None:
    """Draw loss surfaces with an error estimate: same data, axes, levels and colours for every checkpoint.

    Writes NAME.surface.npz for each checkpoint, and surface.png, surface.pdf and surface.html for all.
    Finished points are kept in NAME.points.jsonl: run the same command again to continue.

    Examples:

      landscape surface --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out surfaces

      landscape surface --ckpt runs/sasrec/best.pt --dim 1 --seeds 5 --radius auto --exclude 'item*'

      landscape surface --ckpt a/best.pt --ckpt b/best.pt --dim 1 --directions between --metric valid-loss

      landscape surface --ckpt runs/sasrec/last.pt --directions trajectory --animate

      landscape surface --ckpt gpt.ckpt --task mytask:objective --directions trajectory --trajectory steps
    """
    from landscape.plots.pictures import save_surfaces
    from landscape.surface.surfaces import check_directions, surfaces

    of.hold(out)
    of.need_own_files(metric or ())
    check_directions(settings.directions, settings.dim, settings.seeds)
    if trajectory and len(of.ckpt) > 1:
        raise InputError("--trajectory takes one --ckpt, the last of the training")
    sizes, reach = _grid(grid, settings.dim), _radius(radius)
    framed = list(of.checkpoints.items())[: 1 if settings.directions == "between" else None]
    objectives = of.objectives()
    ways = _trajectories(of, objectives, trajectory) if settings.directions == "trajectory" else None
    found = surfaces(
        objectives,
        **vars(settings),
        radius=reach,
        grid=sizes,
        seed=of.seed,
        metrics={key: {name: of.objective(p, metric=key) for name, p in framed} for key in metric or ()},
        trajectories=ways,
        folder=out,
    )
    if ranks().first:
        _print(found, save_surfaces(found, out, animate), out, of)


def _grid(text: str | None, dim: int) -> list[int] | None:
    if text is None:
        return None
    counts = text.lower().split("x")
    if not all(count.isdecimal() and 2 <= int(count) <= 9999 for count in counts) or len(counts) > dim:
        raise InputError(f"--grid {text}: expected a number of points, such as 25, or on a plane 25x31")
    return [int(count) for count in counts] * (dim if len(counts) == 1 else 1)


def _radius(text: str) -> "Radius":
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--radius {text}: expected a number, or auto") from None


def _trajectories(
    of: MeasurementOptions, objectives: "Mapping[str, Objective]", folder: Path | None
) -> "dict[str, list[Tensor]]":
    """Read the parameters along each training, by the name of its checkpoint."""
    from landscape.tasks import theta_of, trajectory_of

    return {
        name: [
            theta_of(step, objective, of.task_options, of.task)
            for step in (checkpoints_in(folder) if folder else trajectory_of(of.checkpoints[name], of.task))
        ]
        for name, objective in objectives.items()
    }


def _print(found: "Surfaces", pictures: list[Path], out: Path, of: MeasurementOptions) -> None:
    from landscape.plots.tables import of_quadratics, of_slice_metrics, of_slices
    from landscape.surface.surfaces import facts

    files: list[Path] = []

    def saved(label: str, part: str) -> dict[str, str]:
        files.append(out / f"{label}.{part}.npz")
        return {"file": str(files[-1])}

    entries = [
        {
            "path": str(of.checkpoints[found.models[label]]),
            "seed": found.seeds[label],
            **facts(result),
            **saved(label, "surface"),
            "quadratic": _quadratic(found.quadratics[label]) | saved(label, "quadratic")
            if found.quadratics
            else None,
            "metrics": {
                metric: {
                    "center": lines[label].center,
                    "min": lines[label].range[0],
                    "max": lines[label].range[1],
                }
                | saved(label, f"{metric}.surface")
                for metric, lines in found.metrics.items()
            },
        }
        for label, result in found.slices.items()
    ]
    show(
        of.json,
        {"checkpoints": entries, "differences": found.differences, "pictures": list(map(str, pictures))},
        of_slices(found.slices, "Surfaces"),
        *([of_quadratics(found.quadratics)] if found.quadratics else []),
        *([of_slice_metrics(found.metrics)] if found.metrics else []),
        *written([*files, *pictures]),
    )


def _quadratic(model: "Quadratic") -> dict[str, Any]:
    return {"center": model.center, "gradient": model.gradient.tolist(), "hessian": model.hessian.tolist()}

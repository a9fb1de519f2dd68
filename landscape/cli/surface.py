"""`landscape surface`: the loss on lines and planes, for several checkpoints on one scale."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show, with_error
from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from landscape.storage.checkpoints import checkpoints_in

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.objective.objective import Objective
    from landscape.surface.directions import Normalization
    from landscape.surface.frames import Frame
    from landscape.surface.geometry import Quadratic
    from landscape.surface.sampler import Radius
    from landscape.surface.slice import Slice

Directions = Literal["random", "eigen", "eigen-ends", "between", "trajectory"]


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    dim: Annotated[int, typer.Option(min=1, max=2, help="A line or a plane.")] = 2,
    directions: Annotated[
        Directions,
        typer.Option(
            help="Random; the top two Hessian eigenvectors, or top and bottom; from the first checkpoint to "
            "one or two others; or the plane of a training's trajectory (train --save-every)."
        ),
    ] = "random",
    radius: Annotated[
        str,
        typer.Option(
            help="In units of the directions: 1 moves each filter by its norm, or goes as far as an "
            "eigenvector is long. auto: until the loss doubles."
        ),
    ] = "1",
    tol: Annotated[float, typer.Option(help="Largest error of the surface, relative to its range.")] = 1e-3,
    grid: Annotated[
        str | None, typer.Option(help="A plain grid of N or NxM points instead, with no error bar.")
    ] = None,
    split: Annotated[
        int, typer.Option(min=1, help="Cut each axis in so many, where 33 points do not reach the tolerance.")
    ] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Random directions of so many seeds from --seed on.")] = 1,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a training's checkpoints, in the order of the numbers in their names; by default "
            "that of train --save-every, beside --ckpt."
        ),
    ] = None,
    normalization: Annotated[
        Literal["filter", "layer", "none"], typer.Option(help="Of the random directions.")
    ] = "filter",
    biases: Annotated[bool, typer.Option("--biases", help="Move biases and norms too.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="On a line also: valid-loss, hr@10, ndcg@10, … (may be repeated)."),
    ] = None,
    quadratic: Annotated[
        bool, typer.Option("--quadratic", help="Also the quadratic model, and the surface minus it.")
    ] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Also the trajectory as a GIF.")] = False,
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
    """Draw loss surfaces with an error bar: the same data, axes, levels and colours for every checkpoint.

    Writes NAME.surface.npz for each checkpoint, and surface.png, surface.pdf and surface.html for all.
    Finished points are kept in NAME.points.jsonl: the same command goes on where it was interrupted.

    Examples:

      landscape surface --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out surfaces

      landscape surface --ckpt runs/sasrec/best.pt --dim 1 --seeds 5 --radius auto --exclude 'item*'

      landscape surface --ckpt runs/sasrec/best.pt --directions eigen --quadratic

      landscape surface --ckpt a/best.pt --ckpt b/best.pt --dim 1 --directions between --metric ndcg@10

      landscape surface --ckpt runs/sasrec/last.pt --directions trajectory --animate

      landscape surface --ckpt gpt.ckpt --task mytask:objective --directions trajectory --trajectory steps
    """
    from landscape.plots.interactive import interactive_figure, save_html
    from landscape.surface.geometry import quadratic_model
    from landscape.surface.points import Points
    from landscape.surface.sampler import PLAIN, doubling_radius, evaluate_slice
    from landscape.tasks import objective_of, objectives_of
    from samrec.checkpoint import trajectory as samrec_trajectory

    options.hold(context, out)
    _check(dim, directions, seeds, metric, animate, trajectory, len(ckpt))
    points, reach = _grid(grid, dim), _radius(radius)
    settings = options.task_options(users, seed, device, data, include, exclude)
    paths = dict(zip(options.names_of(ckpt), ckpt, strict=True))
    objectives = dict(zip(paths, objectives_of(ckpt, settings, task), strict=True))
    framed = list(paths)[:1] if directions == "between" else list(paths)
    metrics = {
        key: {name: objective_of(paths[name], replace(settings, metric=key), task) for name in framed}
        for key in metric or ()
    }

    def theta(path: Path) -> "Tensor":  # its loss is not wanted: one user is enough
        return objective_of(path, replace(settings, users=1), task).theta

    def way(name: str) -> list[Path]:
        return checkpoints_in(trajectory) if trajectory else samrec_trajectory(paths[name].parent)

    frames: dict[str, tuple[str, int, Frame]] = {}
    for each in range(seed, seed + seeds):
        for name, frame in _frames(directions, objectives, way, theta, dim, each, normalization, biases):
            frames[name if seeds == 1 else f"{name}-seed{each}"] = name, each, frame

    def file(label: str, of: str) -> Path:
        return out / f"{label}.{of}"

    if reach == "auto":  # one radius for all: where the last of them has doubled
        reach = max(
            doubling_radius(Points(objectives[name], frame.directions, file(label, "points.jsonl")))
            for label, (name, _, frame) in frames.items()
        )
    slices: dict[str, Slice] = {}
    models: dict[str, Quadratic] = {}
    others: dict[str, dict[str, Slice]] = {key: {} for key in metrics}
    for label, (name, each, frame) in frames.items():
        slices[label] = evaluate_slice(
            objectives[name],
            frame,
            radius=reach,
            tol=tol,
            grid=points,
            split=split,
            seed=each,
            file=file(label, "points.jsonl"),
        )
        slices[label].save(file(label, "surface.npz"))
        if quadratic:
            models[label] = quadratic_model(objectives[name], frame.directions)
            models[label].save(file(label, "quadratic.npz"))
        for key, found in others.items():
            kept = file(label, f"{key}.points.jsonl")
            found[label] = evaluate_slice(
                metrics[key][name], frame, radius=reach, grid=points or PLAIN[dim], file=kept
            )
            found[label].save(file(label, f"{key}.surface.npz"))

    if not ranks().first:
        return

    def by_model(found: "Mapping[str, Slice]") -> "dict[str, list[Slice]]":
        return {name: [found[label] for label in frames if frames[label][0] == name] for name in framed}

    grouped = {key: by_model(found) for key, found in others.items()}
    pictures = _draw(out, slices, by_model(slices), models, grouped, animate)
    pictures.append(save_html(interactive_figure(slices), out / "surface.html"))
    entries = [
        _entry(paths[name], each, slices[label], file(label, "surface.npz"))
        for label, (name, each, _) in frames.items()
    ]
    show(
        json,
        {
            "checkpoints": entries,
            "differences": _differences(slices),
            "pictures": [str(p) for p in pictures],
        },
        _table(slices, pictures, out),
    )


def _check(
    dim: int,
    directions: Directions,
    seeds: int,
    metric: list[str] | None,
    animate: bool,
    trajectory: Path | None,
    checkpoints: int,
) -> None:
    """Refuse what does not go together, before anything is read."""
    if seeds > 1 and directions != "random":
        raise InputError(f"--seeds draws random directions; --directions {directions} has but one choice")
    if dim == 1 and directions == "trajectory":
        raise InputError("a trajectory is drawn on a plane; leave --dim at 2")
    if metric and dim == 2:
        raise InputError("--metric is measured along a line; add --dim 1")
    if animate and directions != "trajectory":
        raise InputError("--animate draws a trajectory; add --directions trajectory")
    if trajectory and (directions != "trajectory" or checkpoints > 1):
        raise InputError("--trajectory is of one --ckpt, the training's last; add --directions trajectory")


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


def _frames(
    directions: Directions,
    objectives: "Mapping[str, Objective]",
    way: Callable[[str], list[Path]],
    theta: "Callable[[Path], Tensor]",
    dim: int,
    seed: int,
    normalization: "Normalization",
    biases: bool,
) -> "Iterator[tuple[str, Frame]]":
    """Yield the frame of each checkpoint; between checkpoints there is one, the first one's.

    `way` gives the checkpoints of a training by its name, `theta` reads the parameters of one.
    """
    from landscape.surface.frames import between_frame, eigen_frame, random_frame, trajectory_frame

    if directions == "between":
        (name, objective), *others = objectives.items()
        yield name, between_frame(objective, {o: at.theta for o, at in others}, dim, name, seed)
        return
    for name, objective in objectives.items():
        if directions == "random":
            yield name, random_frame(objective, dim, seed, normalization, biases)
        elif directions == "trajectory":
            yield name, trajectory_frame(objective, list(map(theta, way(name))))
        else:
            yield name, eigen_frame(objective, dim, directions == "eigen-ends", seed)


def _draw(
    out: Path,
    slices: "Mapping[str, Slice]",
    groups: "Mapping[str, Sequence[Slice]]",
    models: "Mapping[str, Quadratic]",
    metrics: "Mapping[str, Mapping[str, Sequence[Slice]]]",
    animate: bool,
) -> list[Path]:
    """Draw all that was measured, as PNG and PDF."""
    from landscape.plots.animation import save_animation
    from landscape.plots.style import save_figures
    from landscape.plots.surfaces import band_figure, metric_figure, quadratic_figure, surface_figure

    banded = any(len(group) > 1 for group in groups.values()) and next(iter(slices.values())).losses.ndim == 1
    figures = {"surface": band_figure(groups) if banded else surface_figure(slices)}
    figures |= {f"{label}.quadratic": quadratic_figure(slices[label], m) for label, m in models.items()}
    if metrics:
        figures["metrics"] = metric_figure({"loss": groups, **metrics})
    pictures = save_figures(figures, out)
    if animate:
        pictures += [save_animation(s, out / f"{label}.gif", label) for label, s in slices.items()]
    return pictures


def _entry(path: Path, seed: int, result: "Slice", file: Path) -> dict[str, Any]:
    from landscape.surface.geometry import convex_share, doubling_widths

    widths = doubling_widths(result)
    return {
        "path": str(path),
        "seed": seed,
        "center": result.center,
        "min": result.range[0],
        "max": result.range[1],
        "spans": result.settings["spans"],
        "relative_radius": result.settings["relative_radius"],
        "evaluations": result.evaluations,
        "reused": result.settings["reused"],
        "way": result.settings["way"],
        "grid": result.settings["grid"],
        "seconds": result.seconds,
        "certificate": result.certificate,
        "statement": result.statement,
        "doubling_width": {"min": float(widths.min()), "median": float(sorted(widths)[len(widths) // 2])},
        "convex_share": convex_share(result),
        "basins": _basins(result),
        "marks": result.marks,
        "file": str(file),
    }


def _basins(result: "Slice") -> list[dict[str, Any]] | None:
    """The basins that the certified error could not have made; None on a plain grid, which cannot tell."""
    from landscape.surface.topology import basins, certified, triangle_error

    if result.error is None:
        return None
    found = certified(basins(result), result.error + triangle_error(result))
    return [{"at": basin.at, "loss": basin.birth, "persistence": basin.persistence} for basin in found]


def _differences(slices: "Mapping[str, Slice]") -> list[dict[str, Any]]:
    """Each slice's L(θ) less the first's, with the standard error of users they share."""
    from landscape.surface.certificate import paired_error

    (name, first), *others = slices.items()
    return [
        {
            "of": other,
            "less": name,
            "center": result.center - first.center,
            "standard_error": paired_error(result, first),
        }
        for other, result in others
    ]


def _table(slices: "Mapping[str, Slice]", pictures: list[Path], out: Path) -> Table:
    rows = []
    for label, result in slices.items():
        error = result.certificate.standard_error if result.certificate else None
        rows.append(
            [
                label,
                with_error(result.center, error),
                *(f"{value:.4f}" for value in result.range),
                _error(result),
                str(result.evaluations),
                f"{result.seconds:.1f}",
            ]
        )
    return Table(
        f"Surfaces in {out}: " + ", ".join(p.name for p in pictures),
        ["", "L(θ)", "min", "max", "error / range", "points", "seconds"],
        rows,
    )


def _error(result: "Slice") -> str:
    if result.certificate is None:
        return "plain grid"
    error = f"{result.certificate.max_error:.1e}"
    return error if result.certificate.reached else f"{error}, more than asked"

"""`landscape sharpness`: how much the loss rises around each checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from landscape.storage.files import writable

if TYPE_CHECKING:
    from landscape.flatness.comparison import Comparison
    from landscape.flatness.measures import Sharpness


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Which measures (may be repeated); all that apply if none is named."),
    ] = None,
    rho: Annotated[float, typer.Option(help="Radius ρ of the ball (sam, m-sharpness, worst, asam).")] = 0.1,
    sigma: Annotated[float, typer.Option(help="Noise σ a coordinate (average, lpf).")] = 0.01,
    epsilon: Annotated[float, typer.Option(help="Of the box ε (|θ| + 1) (keskar).")] = 1e-3,
    rise: Annotated[
        float, typer.Option(help="Of the mean loss, that σ is to reach (pac-bayes-sigma).")
    ] = 0.1,
    steps: Annotated[int, typer.Option(min=1, help="Of projected ascent (worst, keskar).")] = 20,
    samples: Annotated[int, typer.Option(min=2, help="Antithetic pairs (average, pac-bayes-sigma).")] = 20,
    probes: Annotated[
        int, typer.Option(min=2, help="Random vectors (trace, frobenius, relative-flatness).")
    ] = 20,
    by_group: Annotated[
        bool, typer.Option("--by-group", help="Also with one group of parameters moving at a time.")
    ] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Folder for the results, or a table as .json, .csv or .tex (may be repeated)."),
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
    """Measure sharpness on the same frozen loss and the same draws for every checkpoint.

    Each checkpoint is put beside the first, with the 95% interval of their ratio from what both
    share: the users and the draws. What is said to be lower or higher is so by its interval.

    Measures: sam, m-sharpness, worst, keskar, gradient-norm, average, lpf, pac-bayes-sigma,
    lambda-max, trace, frobenius; and, unchanged by a rescaling of the weights that keeps the
    function, asam, worst-adaptive, average-adaptive, pac-bayes-sigma-adaptive, fisher-rao,
    relative-flatness-embedding, relative-flatness-last.

    A folder gets NAME.sharpness.npz of each, and with --by-group NAME.GROUP.sharpness.npz.

    Examples:

      landscape sharpness --ckpt sasrec/best.pt --ckpt samrec/best.pt --out table.tex --out results

      landscape sharpness --ckpt a.pt --ckpt b.pt --measure asam --measure trace --rho 0.05 --by-group
    """
    from landscape.flatness.comparison import compare
    from landscape.flatness.measures import sharpness, sharpness_by_group
    from landscape.flatness.tables import WRITERS, entries
    from landscape.tasks import objectives_of

    folders, tables = _places(context, out or [], list(WRITERS))
    settings: dict[str, Any] = {
        "rho": rho,
        "sigma": sigma,
        "epsilon": epsilon,
        "rise": rise,
        "steps": steps,
        "samples": samples,
        "probes": probes,
        "seed": seed,
    }
    names = options.names_of(ckpt)
    asked = options.task_options(users, seed, device, data, include, exclude)
    frozen = objectives_of(ckpt, asked, task, shared=True)
    results: dict[str, Sharpness] = {}
    groups: dict[str, dict[str, Sharpness]] = {}
    for name, objective in zip(names, frozen, strict=True):
        results[name] = sharpness(objective, measure, **settings)
        if by_group:
            groups[name] = sharpness_by_group(objective, measure, **settings)
        for folder in folders:
            results[name].save(folder / f"{name}.sharpness.npz")
            for group, result in groups.get(name, {}).items():
                result.save(folder / f"{name}.{group}.sharpness.npz")
    comparison = compare(results, groups)
    for path in tables if ranks().first else ():
        WRITERS[path.suffix.lower()](comparison, path)
    paths = dict(zip(names, map(str, ckpt), strict=True))
    values: dict[str, Any] = {"checkpoints": _entries(results, paths)}
    if len(results) > 1:
        values["comparison"] = entries(comparison)
    if by_group:
        values["groups"] = {
            group: _entries({name: groups[name][group] for name in names if group in groups[name]}, paths)
            for group in dict.fromkeys(group for found in groups.values() for group in found)
        }
    show(json, values, *_shown(comparison))


def _places(
    context: typer.Context, out: Sequence[Path], endings: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Tell folders, which are held, from tables; all must be ours to write to.

    Raises:
        InputError: another ending, or a place that cannot be written to.
    """
    folders = [path for path in out if path.is_dir() or not path.suffix]
    tables = [path for path in out if path not in folders]
    for path in tables:
        if path.suffix.lower() not in endings:
            raise InputError(f"--out {path}: a table ends in {', '.join(endings)}, and a folder in none")
        writable(path.parent)
    for folder in folders:
        options.hold(context, folder)
    return folders, tables


def _entries(results: "Mapping[str, Sharpness]", paths: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "path": paths[name],
            "loss": r.loss,
            "weight_norm": r.weight_norm,
            "measures": {key: found.entry for key, found in r.measures.items()},
        }
        for name, r in results.items()
    ]


def _shown(comparison: "Comparison") -> list[Table]:
    """One table, or two where the ratios of many checkpoints would not fit beside their values."""
    from landscape.flatness.tables import PLAIN, notes

    head, rows = PLAIN.table(comparison)
    said = ", ".join(f"{key} {value}" for key, value in comparison.settings.items())
    users = f"; {comparison.frozen['users']} users" if "users" in comparison.frozen else ""
    title = f"Sharpness ({said}{users})"
    count = len(comparison.names)
    if count <= 2:
        tables = [Table(title, head, rows)]
    else:
        ratios = [[row[0], *row[1 + count :]] for row in rows]
        tables = [
            Table(title, head[: 1 + count], [row[: 1 + count] for row in rows]),
            Table("Ratios, with 95% intervals", [head[0], *head[1 + count :]], ratios),
        ]
    return [*tables, *(Table(line, [], []) for line in notes(comparison))]

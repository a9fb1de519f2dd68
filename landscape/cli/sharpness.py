"""`landscape sharpness`: how much the loss rises around each checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import MeasurementOptions, by_ranks, only_with, with_options
from landscape.cli.output import named, show, written
from landscape.errors import InputError
from landscape.runtime.arguments import MOST
from landscape.runtime.ranks import ranks
from landscape.storage.files import writable

if TYPE_CHECKING:
    from landscape.flatness.comparison import Contrasts
    from landscape.flatness.measures import Sharpness


@dataclass(frozen=True, kw_only=True)
class SharpnessOptions:
    """The settings of `landscape.sharpness`, but for the seed."""

    rho: Annotated[
        float,
        typer.Option(help="Radius ρ of the ball."),
        only_with("--measure", "sam", "m-sharpness", "worst", "asam", "worst-adaptive"),
    ] = 0.1
    sigma: Annotated[
        float,
        typer.Option(help="Standard deviation σ per coordinate."),
        only_with("--measure", "average", "lpf", "average-adaptive"),
    ] = 0.01
    epsilon: Annotated[
        float, typer.Option(help="Size ε of the box ε (|θ| + 1)."), only_with("--measure", "keskar")
    ] = 1e-3
    rise: Annotated[
        float,
        typer.Option(help="Rise of the mean loss that σ has to reach."),
        only_with("--measure", "pac-bayes-sigma", "pac-bayes-sigma-adaptive"),
    ] = 0.1
    steps: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Steps of projected ascent."),
        only_with("--measure", "worst", "keskar", "worst-adaptive"),
    ] = 20
    samples: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Number of antithetic pairs."),
        only_with(
            "--measure",
            "average",
            "lpf",
            "average-adaptive",
            "pac-bayes-sigma",
            "pac-bayes-sigma-adaptive",
        ),
    ] = 20
    probes: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Number of random vectors."),
        only_with("--measure", "trace", "frobenius", "relative-flatness-embedding", "relative-flatness-last"),
    ] = 20


@by_ranks
@with_options
def command(
    *,
    measure: Annotated[
        list[str] | None, typer.Option(help="Measure (repeatable; default: all that apply to the model).")
    ] = None,
    settings: SharpnessOptions,
    by_group: Annotated[
        bool, typer.Option("--by-group", help="Measure with one group of parameters moving at a time too.")
    ] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Folder for the results, or a table ending in .json, .csv or .tex (repeatable)."),
    ] = None,
    of: MeasurementOptions,
) -> None:
    """Measure sharpness on the same frozen loss and with the same random draws for every checkpoint.

    Each checkpoint is compared with the first: the 95% interval of their ratio comes from what both share,
    the users and the draws. A measure is reported as lower or higher only if its interval says so.

    Measures: sam, m-sharpness, worst, keskar, gradient-norm, average, lpf, pac-bayes-sigma,
    lambda-max, trace, frobenius, relative-flatness-embedding, relative-flatness-last; and, unchanged by
    a rescaling of the weights that keeps the function, asam, worst-adaptive, average-adaptive,
    pac-bayes-sigma-adaptive, fisher-rao.

    A folder gets NAME.sharpness.npz for each, and with --by-group NAME.GROUP.sharpness.npz.

    Examples:

      landscape sharpness --ckpt sasrec/best.pt --ckpt samrec/best.pt --out table.tex --out results

      landscape sharpness --ckpt a.pt --ckpt b.pt --measure asam --measure trace --rho 0.05 --by-group
    """
    from landscape.flatness.comparison import compare
    from landscape.flatness.measures import sharpness, sharpness_by_group
    from landscape.flatness.tables import WRITERS
    from landscape.plots.tables import of_comparison

    folders, tables = _places(of, out or [], list(WRITERS))
    files: list[Path] = []
    results: dict[str, Sharpness] = {}
    groups: dict[str, dict[str, Sharpness]] = {}
    for name, objective in of.each_objective():
        of.need_own_files(objective.params.groups if folders and by_group else ())
        results[name] = sharpness(objective, measure, **vars(settings), seed=of.seed)
        if by_group:
            groups[name] = sharpness_by_group(objective, measure, **vars(settings), seed=of.seed)
        for folder in folders:
            files.append(results[name].save(folder / f"{name}.sharpness.npz"))
            for group, result in groups.get(name, {}).items():
                files.append(result.save(folder / f"{name}.{group}.sharpness.npz"))
    comparison = compare(results, groups)
    if ranks().first:
        files += [WRITERS[path.suffix.lower()](comparison, path) for path in tables]
    told = _values(results, groups, comparison, of) | named(files)
    show(of.json, told, *of_comparison(comparison), *written(files))


def _places(
    of: MeasurementOptions, out: Sequence[Path], endings: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Separate folders, which are held, from tables; all must be writable.

    Raises:
        InputError: another ending, or a place that cannot be written to.
    """
    folders = [path for path in out if path.is_dir() or not path.suffix]
    tables = [path for path in out if path not in folders]
    for path in tables:
        if path.suffix.lower() not in endings:
            raise InputError(
                f"--out {path}: a table ends in {', '.join(endings)}, and a folder has no ending"
            )
        writable(path.parent)
    for folder in folders:
        of.hold(folder)
    return folders, tables


def _values(
    results: "Mapping[str, Sharpness]",
    groups: "Mapping[str, Mapping[str, Sharpness]]",
    comparison: "Contrasts",
    of: MeasurementOptions,
) -> dict[str, Any]:
    from landscape.flatness.tables import entries

    def listed(found: "Mapping[str, Sharpness]") -> list[dict[str, Any]]:
        return [{"path": str(of.checkpoints[name]), **result.entry} for name, result in found.items()]

    values: dict[str, Any] = {"checkpoints": listed(results)}
    if len(results) > 1:
        values["comparison"] = entries(comparison)
    if groups:
        values["groups"] = {
            group: listed({name: found[group] for name, found in groups.items() if group in found})
            for group in dict.fromkeys(group for found in groups.values() for group in found)
        }
    return values

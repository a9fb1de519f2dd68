"""`landscape compare`: every measurement of several checkpoints, and one page."""

import hashlib
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from landscape.tasks import TaskOptions

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.storage.results import Result

R = TypeVar("R", bound="Result")
PROBES, STEPS = 4, 40  # of the spectral density: about half as long again as all else


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    out: Annotated[Path, typer.Option(help="Folder for the results and report.html.")] = Path("compare"),
    radius: Annotated[float, typer.Option(help="Of the surfaces, in units of their directions.")] = 1.0,
    tol: Annotated[float, typer.Option(help="Largest error of a surface, relative to its range.")] = 1e-3,
    grid: Annotated[
        int | None,
        typer.Option(min=2, help="Plain planes of so many points an axis instead; lines take twice as many."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many top eigenvalues.")] = 5,
    rho: Annotated[float, typer.Option(help="Radius ρ of the sharpness measures.")] = 0.1,
    density: Annotated[bool, typer.Option(help="Measure the density of all eigenvalues too.")] = True,
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare up to six checkpoints: training, ranking, surfaces, spectra, sharpness, in one report.html.

    What an earlier run left in the folder is taken over where weights, data and settings are the same.

    Example:

      landscape compare --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out compare
    """
    from landscape.report.report import MOST

    if len(ckpt) > MOST:
        raise InputError(f"{len(ckpt)} checkpoints are given; one report compares {MOST} at most")
    options.hold(context, out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    names = options.names_of(ckpt)
    of = " and ".join(names) if len(names) < 3 else f"{len(names)} checkpoints"
    title = f"Loss landscape{'s' if len(names) > 1 else ''} of {of}"
    summary = compare(
        dict(zip(names, ckpt, strict=True)), out, settings, title, radius, tol, grid, top, rho, task, density
    )
    show_comparison(summary, json)


def compare(
    checkpoints: dict[str, Path],
    out: Path,
    settings: TaskOptions,
    title: str,
    radius: float,
    tol: float,
    grid: int | None,
    top: int,
    rho: float,
    task: str | None = None,
    density: bool = True,
    ideal_hr10: float | None = None,
) -> dict[str, Any]:
    """Measure each checkpoint, save the results and the page in `out`; return what `--json` prints.

    Ranks that were joined share the batches, of surfaces the points, of the ranking the users.

    Raises:
        InputError: as `objectives_of` and `Objective.distribute`.
    """
    from landscape import (
        Eigenpairs,
        Sharpness,
        Slice,
        SpectralDensity,
        Trace,
        hessian,
        line,
        plane,
        sharpness,
        spectral_density,
        top_eigenpairs,
        trace,
    )
    from landscape.report.report import PAGE, Compared, Comparison, render, result_path, write_index
    from landscape.storage.checkpoints import read_checkpoint
    from landscape.tasks import objectives_of
    from samrec.checkpoint import TASK

    shape = {"radius": radius, "tol": tol}
    seed = settings.seed
    compared, entries = [], []
    objectives = objectives_of(checkpoints.values(), settings, task)
    shares = [objective.distribute(ranks()) for objective in objectives]
    for (name, path), objective, shared in zip(checkpoints.items(), objectives, shares, strict=True):
        at = _Measuring(out, name, seed, _identity(objective))
        operator = hessian(shared)
        at.result("plane", Slice, plane, objective, **shape, grid=grid)
        at.result("line", Slice, line, objective, **shape, grid=grid and 2 * grid - 1)
        pairs = at.result("hessian", Eigenpairs, top_eigenpairs, operator, k=top)
        estimate = at.result("trace", Trace, trace, operator)
        if density:
            at.result("density", SpectralDensity, spectral_density, operator, probes=PROBES, steps=STEPS)
        elif ranks().first:  # what lies there may be of other weights or data
            result_path(out, name, "density").unlink(missing_ok=True)
        rises = at.result("sharpness", Sharpness, sharpness, shared, rho=rho)
        trained = task is None and read_checkpoint(path).get("task") == TASK
        compared.append(Compared(name=name, path=str(path), **(_trained(path, settings) if trained else {})))
        entries.append(
            {
                "name": name,
                "path": str(path),
                **rises.entry,
                "eigenvalues": pairs.eigenvalues.tolist(),
                "smallest": pairs.smallest,
                "converged": pairs.converged,
                "trace": estimate.value,
                "trace_se": estimate.standard_error,
                "test": compared[-1].test,
            }
        )
    index = Comparison(
        title=title,
        checkpoints=compared,
        ideal_hr10=ideal_hr10,
        command=shlex.join(["landscape", *sys.argv[1:]]),
        version=version("samrec-landscape"),
    )
    if ranks().first:
        write_index(index, out)
        render(out)
    return {"report": str(out / PAGE), "checkpoints": entries}


@dataclass(frozen=True)
class _Measuring:
    """The measurements of one checkpoint, in the files of a folder.

    Attributes:
        folder, name: where, and the stem of the files.
        seed: of every measurement.
        identity: of what is measured, see `_identity`.
    """

    folder: Path
    name: str
    seed: int
    identity: str

    def result(self, part: str, kind: type[R], measure: Callable[..., R], of: Any, **asked: Any) -> R:
        """Return what an earlier run found, if it asked the same of the same; else measure, and save it."""
        from landscape.report.report import result_path

        asked["seed"] = self.seed
        path = result_path(self.folder, self.name, part)
        request = hashlib.sha256(dumps([part, asked, self.identity]).encode()).hexdigest()
        found = _answer(kind, path, request)
        everywhere = all(ranks().gathered(found is not None))  # ranks measure together or not at all
        if found and everywhere:
            return found
        result = measure(of, **asked)
        result = replace(result, provenance={**result.provenance, "request": request})
        result.save(path)
        return result


def _answer(kind: type[R], path: Path, request: str) -> R | None:
    """Read the result of an earlier run, if there is one and it is what was asked for now."""
    from landscape.storage.results import load_as

    if path.exists():
        with suppress(InputError):  # it is damaged, or something else
            found = load_as(kind, path)
            if found.provenance.get("request") == request:
                return found
    return None


def _identity(objective: "Objective") -> str:
    """Identify what is measured and with what: weights, data, the loss to its last bit, versions, device.

    Of the whole objective: shares of the batches are summed in another order, which moves that last bit.
    """
    from landscape.storage.results import surroundings
    from landscape.surface.record import fingerprint

    told = surroundings(objective.theta.device) | {"landscape": version("samrec-landscape")}
    return dumps([fingerprint(objective, (), objective.value()), told])


def show_comparison(summary: dict[str, Any], as_json: bool) -> None:
    """Print what `compare` returned."""
    show(
        as_json,
        summary,
        Table(
            f"Report: {summary['report']}",
            ["", "test NDCG@10", "L(θ)", "‖θ‖", "λmax", "trace", "sam", "asam"],
            [
                [
                    e["name"],
                    f"{e['test']['ndcg@10']:.4f}" if e["test"] else "–",
                    f"{e['loss']:.4f}",
                    f"{e['weight_norm']:.2f}",
                    f"{e['eigenvalues'][0]:.4f}",
                    f"{e['trace']:.1f} ± {e['trace_se']:.1f}",
                    *(f"{e['measures'][m]['value']:.4g}" for m in ("sam", "asam")),
                ]
                for e in summary["checkpoints"]
            ],
        ),
    )


def _trained(path: Path, settings: TaskOptions) -> dict[str, Any]:
    """What the trainer knows of its checkpoint: ranking, and the run's log where it lies beside it."""
    from samrec.data.split import Part
    from samrec.evaluation import intervals, metrics
    from samrec.task import ranking
    from samrec.training.log import read_log

    valid, test = (
        ranking(path, part, settings.data, settings.device, among=ranks()).ranks for part in get_args(Part)
    )
    log = path.parent / "metrics.jsonl"
    return {
        "users": len(test),
        "valid": metrics(valid),
        "test": metrics(test),
        "valid_intervals": intervals(valid, settings.seed),
        "test_intervals": intervals(test, settings.seed),
        "log": read_log(log),
    }

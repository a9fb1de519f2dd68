"""`landscape compare`: every measurement of several checkpoints, and one page."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.files import writable
from landscape.tasks import TaskOptions


def command(
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
    users: Users = 2048,
    data: Data = None,
    include: Include = None,
    exclude: Exclude = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare checkpoints: training curves, ranking, surfaces, eigenvalues, sharpness, in one report.html.

    Example:

      landscape compare --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --out compare
    """
    writable(out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    names = options.names_of(ckpt)
    title = "Loss landscapes of " + (" and ".join(names) if len(names) < 3 else f"{len(names)} checkpoints")
    summary = compare(
        dict(zip(names, ckpt, strict=True)), out, settings, title, radius, tol, grid, top, rho, task
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
    ideal_hr10: float | None = None,
) -> dict[str, Any]:
    """Measure each checkpoint, save the results and the page in `out`; return what `--json` prints."""
    from landscape import hessian, line, plane, sharpness, top_eigenpairs, trace
    from landscape.files import read_checkpoint
    from landscape.plots.report import Compared, Comparison, render, result_path, write_index
    from landscape.tasks import objectives_of
    from samrec.checkpoint import TASK

    seed = settings.seed
    compared, entries = [], []
    objectives = objectives_of(checkpoints.values(), settings, task)
    for (name, path), objective in zip(checkpoints.items(), objectives, strict=True):
        twice = grid and 2 * grid - 1
        plane(objective, radius=radius, tol=tol, grid=grid, seed=seed).save(result_path(out, name, "plane"))
        line(objective, radius=radius, tol=tol, grid=twice, seed=seed).save(result_path(out, name, "line"))
        operator = hessian(objective)
        pairs = top_eigenpairs(operator, top, seed=seed)
        pairs.save(result_path(out, name, "hessian"))
        estimate = trace(operator, seed=seed)
        estimate.save(result_path(out, name, "trace"))
        rises = sharpness(objective, rho=rho, seed=seed)
        rises.save(result_path(out, name, "sharpness"))
        ranks = task is None and read_checkpoint(path).get("task") == TASK
        compared.append(Compared(name=name, path=str(path), **(_trained(path, settings) if ranks else {})))
        entries.append(
            {
                "name": name,
                "path": str(path),
                "loss": rises.loss,
                "weight_norm": rises.weight_norm,
                "eigenvalues": pairs.eigenvalues.tolist(),
                "smallest": pairs.smallest,
                "converged": pairs.converged,
                "trace": estimate.value,
                "trace_se": estimate.standard_error,
                "measures": rises.measures,
                "test": compared[-1].test,
            }
        )
    index = Comparison(title=title, checkpoints=compared, ideal_hr10=ideal_hr10)
    write_index(index, out)
    return {"report": str(render(out)), "checkpoints": entries}


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
    from samrec.evaluation import metrics
    from samrec.log import read_log
    from samrec.task import ranking

    valid, test = (ranking(path, part, settings.data, settings.device).ranks for part in get_args(Part))
    log = path.parent / "metrics.jsonl"
    return {"users": len(test), "valid": metrics(valid), "test": metrics(test), "log": read_log(log)}

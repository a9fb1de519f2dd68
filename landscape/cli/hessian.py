"""`landscape hessian`: top eigenvalues and trace."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Exclude, Include, Json, Seed, Task, Users
from landscape.cli.output import Table, show
from landscape.files import writable


def command(
    ckpt: Checkpoints,
    top: Annotated[int, typer.Option(min=1, help="How many top eigenvalues.")] = 5,
    method: Annotated[
        Literal["lanczos", "power"], typer.Option(help="Lanczos also gives the smallest.")
    ] = "lanczos",
    tol: Annotated[float, typer.Option(help="Largest ‖Hv - λv‖ / |λ|.")] = 1e-3,
    trace: Annotated[bool, typer.Option("--trace", help="Estimate the trace too (Hutchinson).")] = False,
    probes: Annotated[int, typer.Option(min=2, help="Of the trace.")] = 30,
    out: Annotated[
        Path | None, typer.Option(help="Folder to save the results in, eigenvectors among them.")
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
    """Find the top eigenvalues of the Hessian of the frozen training loss, with measured residuals.

    Examples:

      landscape hessian --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt --top 5 --trace

      landscape hessian --ckpt runs/sasrec/best.pt --exclude 'item*'
    """
    from landscape.curvature.eigenpairs import top_eigenpairs
    from landscape.curvature.trace import trace as estimate_trace
    from landscape.tasks import objectives_of

    if out is not None:
        writable(out)
    settings = options.task_options(users, seed, device, data, include, exclude)
    entries, rows = [], []
    objectives = objectives_of(ckpt, settings, task)
    for name, path, objective in zip(options.names_of(ckpt), ckpt, objectives, strict=True):
        found = top_eigenpairs(objective, top, method, tol=tol, seed=seed)
        estimate = estimate_trace(objective, probes=probes, seed=seed) if trace else None
        entries.append(
            {
                "path": str(path),
                "eigenvalues": found.eigenvalues.tolist(),
                "smallest": found.smallest,
                "residuals": found.residuals.tolist(),
                "converged": found.converged,
                "products": found.products,
                "gradient_norm": found.gradient_norm,
                "seconds": found.seconds,
                "trace": estimate and estimate.value,
                "trace_se": estimate and estimate.standard_error,
            }
        )
        rows.append(
            [
                name,
                ", ".join(
                    f"{v:.4f}{'' if c else ' (not converged)'}"
                    for v, c in zip(found.eigenvalues, found.converged, strict=True)
                ),
                "–" if found.smallest is None else f"{found.smallest:.4f}",
                f"{found.gradient_norm:.4f}",
                f"{estimate.value:.2f} ± {estimate.standard_error:.2f}" if estimate else "–",
                str(found.products),
                f"{found.seconds:.1f}",
            ]
        )
        if out is not None:
            found.save(out / f"{name}.hessian.npz")
            if estimate:
                estimate.save(out / f"{name}.trace.npz")
    show(
        json,
        {"checkpoints": entries},
        Table("Hessian", ["", "top eigenvalues", "λmin", "‖∇L‖", "trace", "products", "seconds"], rows),
    )

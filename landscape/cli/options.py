"""Options that several commands share, declared once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from landscape.errors import InputError
from landscape.runtime.devices import DeviceName
from landscape.storage.files import locked, writable
from landscape.tasks import TaskOptions

F = TypeVar("F", bound=Callable[..., Any])

Checkpoints = Annotated[
    list[Path], typer.Option("--ckpt", help="Checkpoint; several may be given, to compare.")
]
Checkpoint = Annotated[Path, typer.Option("--ckpt", help="Checkpoint.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
Device = Annotated[DeviceName, typer.Option(help="Where to compute.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Data = Annotated[
    Path | None, typer.Option(help="The data file, if it is no longer where the checkpoint says.")
]
Users = Annotated[
    int, typer.Option(min=1, help="How many users the frozen loss holds (at most all of them).")
]


Task = Annotated[
    str | None,
    typer.Option(
        help="package.module:function that makes an Objective of a checkpoint, for models of your own."
    ),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Only parameters whose name matches take part (may be repeated).")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Parameters whose name matches are held still (may be repeated).")
]


def task_options(
    users: int,
    seed: int,
    device: str,
    data: Path | None,
    include: list[str] | None,
    exclude: list[str] | None,
) -> TaskOptions:
    """Gather the options of a measurement."""
    return TaskOptions(users, seed, device, data, tuple(include or ("*",)), tuple(exclude or ()))


def by_ranks(command: F) -> F:
    """Mark a command that the processes of `torchrun --nproc-per-node N -m landscape …` share."""
    command.by_ranks = True  # type: ignore[attr-defined]  # a function may have any
    return command


def hold(context: typer.Context, folder: Path) -> None:
    """Keep other processes out of an output folder until the command of this context has ended.

    Raises:
        InputError: another process holds it, or it is not ours to write to.
    """
    context.with_resource(locked(writable(folder)))


def names_of(checkpoints: list[Path]) -> list[str]:
    """Name each checkpoint: by its file, or by its folder where the file is a run's best.pt or last.pt.

    Where that does not tell them apart, by as much of the path as does.

    Raises:
        InputError: the same checkpoint is given twice.
    """
    if len({c.resolve() for c in checkpoints}) < len(checkpoints):
        raise InputError("the same checkpoint is given twice; each --ckpt must be another file")
    files = [c.resolve().with_suffix("").parts[1:] for c in checkpoints]
    runs = [parts[:-1] if parts[-1] in ("best", "last") else parts for parts in files]
    for depth in range(1, max(map(len, files)) + 1):
        for places, length in ((runs, depth), (files, depth + 1)):
            names = ["-".join(parts[-length:]) for parts in places]
            if all(names) and len(set(names)) == len(names):
                return names
    return [f"{parts[-1]}-{number}" for number, parts in enumerate(files, start=1)]

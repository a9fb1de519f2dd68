"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.devices import DeviceName
from landscape.errors import InputError
from landscape.files import locked, writable
from landscape.parallel import ranks
from landscape.tasks import TaskOptions

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
Columns = Annotated[
    str | None,
    typer.Option(
        help="Columns of a table: USER,ITEM[,TIME[,RATING]], by name, or by number from 0.",
        rich_help_panel="Data",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(help="What separates fields: , ; | :: or tab (found if not given).", rich_help_panel="Data"),
]
Quote = Annotated[
    str | None,
    typer.Option(
        help="Character that quotes a field, or none (found for CSV, none for other text).",
        rich_help_panel="Data",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of the text, such as latin-1 (UTF-8, UTF-16).", rich_help_panel="Data"),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the times, such as %d/%m/%Y %H:%M (found if there is only one way to read them).",
        rich_help_panel="Data",
    ),
]
MinRating = Annotated[
    float | None, typer.Option(help="Leave out rows with a lower rating.", rich_help_panel="Data")
]
DropMissing = Annotated[
    bool,
    typer.Option(
        "--drop-missing",
        help="Leave out rows without a user, an item or a time; without it they are refused.",
        rich_help_panel="Data",
    ),
]
Users = Annotated[
    int, typer.Option(min=1, help="How many users the frozen loss holds (at most all of them).")
]


def _among_ranks(asked: bool) -> bool:
    if asked and ranks().size == 1:
        raise InputError("--shard-items shares items among the processes of torchrun; here is one")
    return asked


ShardItems = Annotated[
    bool,
    typer.Option(
        "--shard-items", callback=_among_ranks, help="Let torchrun's processes share the item table, by rows."
    ),
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

"""`landscape export`: a stored surface, or what a checkpoint holds, as a file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Data, Json, Task
from landscape.cli.output import show, written
from landscape.errors import InputError
from landscape.runtime.table import Table
from landscape.tasks import TaskOptions, export_of

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors")


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Surface to read: a result (.npz), or an HDF5 file of Li et al.'s code; or a checkpoint."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="File to write. For a surface: .csv, .vtk (ParaView), .h5 or .npz; for a checkpoint, what "
            "its task exports."
        ),
    ],
    data: Data = None,
    task: Task = None,
    json: Json = False,
) -> None:
    """Convert a stored surface, or export what a checkpoint holds, to the format that TARGET's ending names.

    Nothing is computed again. For a recommender's checkpoint, .parquet, .csv and .jsonl are the embeddings of
    the items with their ids, in the order of the item table's rows; .pt2 is the scorer of all items after
    histories, as a program of torch.export.

    HDF5 files have the layout of github.com/tomgoldstein/loss-landscape; they can be read too. Only .npz
    keeps the settings and the provenance.

    Examples:

      landscape export surface/sasrec.surface.npz sasrec.vtk

      landscape export resnet56_surface.h5 resnet56.surface.npz

      landscape export runs/sasrec/best.pt items.parquet

      landscape export runs/sasrec/best.pt scorer.pt2
    """
    if source.suffix.lower() in CHECKPOINTS:
        what = export_of(source, target, TaskOptions(data=data), task)
        shown = {"source": str(source), "file": str(target), "what": what}
        show(json, shown, Table(what, [], []), *written([target]))
        return
    if given := [name for name, value in (("--data", data), ("--task", task)) if value]:
        raise InputError(f"{given[0]} is for checkpoints ({', '.join(CHECKPOINTS)}); {source} is a surface")
    from landscape.storage.results import load_as
    from landscape.surface.export import HDF5, export, read_hdf5
    from landscape.surface.slice import Slice

    found = read_hdf5(source) if source.suffix.lower() in HDF5 else load_as(Slice, source)
    file = export(found, target)
    show(
        json,
        {"source": str(source), "file": str(file), "points": found.losses.size},
        Table(f"{found.losses.size:,} points", [], []),
        *written([file]),
    )

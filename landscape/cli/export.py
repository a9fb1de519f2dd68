"""`landscape export`: a stored surface as a file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Json
from landscape.cli.output import show, written
from landscape.runtime.table import Table


def command(
    source: Annotated[
        Path, typer.Argument(help="Surface to read: a result (.npz), or an HDF5 file of Li et al.'s code.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write: .csv, .vtk (ParaView), .h5 or .npz.")],
    json: Json = False,
) -> None:
    """Convert a stored surface to the format that the ending of TARGET names. Nothing is computed again.

    HDF5 files have the layout of github.com/tomgoldstein/loss-landscape; they can be read too. Only .npz
    keeps the settings and the provenance.

    Examples:

      landscape export surface/sasrec.surface.npz sasrec.vtk

      landscape export resnet56_surface.h5 resnet56.surface.npz
    """
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

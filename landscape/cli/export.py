"""`landscape export`: a stored surface as a file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Json
from landscape.cli.output import Table, show


def command(
    source: Annotated[
        Path, typer.Argument(help="Result (.npz) of a surface, or an HDF5 file of Li et al.'s code.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write: .csv, .vtk (ParaView), .h5 or .npz.")],
    json: Json = False,
) -> None:
    """Write a stored surface in the format that the ending of TARGET names. Nothing is measured anew.

    HDF5 is in the layout of github.com/tomgoldstein/loss-landscape, and is read as well as written. Of the
    formats, only .npz keeps settings and provenance.

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
        Table("", ["exported", "points"], [[str(file), f"{found.losses.size:,}"]]),
    )

"""`landscape report`: the page of a comparison, from its stored results."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Device, Json, Seed
from landscape.cli.output import Table, show


def command(
    folder: Annotated[
        Path, typer.Argument(help="Folder that `landscape compare` or `landscape demo` wrote.")
    ],
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write report.html again from the results in a folder. Nothing is measured anew.

    Nothing is drawn or computed on a device either: --seed and --device change nothing here.

    Example:

      landscape report compare
    """
    from landscape.report.report import render

    page = render(folder)
    show(json, {"report": str(page)}, Table(f"Report: {page}", [], []))

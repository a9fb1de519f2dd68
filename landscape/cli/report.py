"""`landscape report`: the page of a comparison, from its stored results."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Json
from landscape.cli.output import show
from landscape.runtime.table import Table


def command(
    folder: Annotated[
        Path, typer.Argument(help="Folder that `landscape compare` wrote, or of a run with monitor.jsonl.")
    ],
    json: Json = False,
) -> None:
    """Write report.html again from the results in a folder. Nothing is measured.

    The folder of a run that was trained with --monitor gets a page of its sharpness over the steps.

    Examples:

      landscape report compare

      landscape report runs/sasrec
    """
    from landscape.report.report import render

    page = render(folder)
    show(json, {"report": str(page)}, Table(f"Report: {page}", [], []))

"""`landscape data`: what is in a file of interactions."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Columns, Device, Format, Json, Seed
from landscape.cli.output import Table, show

app = typer.Typer(help="Look at data before training on them.", no_args_is_help=True)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="File of interactions.")],
    format: Annotated[Format, typer.Option(help="What the file is; its ending tells a table.")] = "auto",
    columns: Columns = None,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Keep a user's first interaction with an item only.")
    ] = False,
    core: Annotated[int, typer.Option(min=0, help="Leave out users and items with fewer interactions.")] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print users, items, interactions, density, lengths, repeats and ties in time.

    Text is sequence lines (user item item …) or pairs (user item), in time order. Tables are CSV, TSV,
    Parquet, RecBole's .inter, JSON lines such as Amazon's, MovieLens' .dat and .data, all but Parquet
    also with .gz. --seed and --device change nothing here.

    Examples:

      landscape data info Beauty.txt

      landscape data info reviews_Beauty.json.gz --core 5

      landscape data info ratings.csv --columns 0,1,3
    """
    from samrec.data.describe import describe
    from samrec.data.readers import read

    found = describe(read(path, format, columns, deduplicate, core))
    show(
        json,
        {"path": str(path), **found},
        Table(
            str(path), ["", ""], [[name.replace("_", " "), _shown(value)] for name, value in found.items()]
        ),
    )


def _shown(value: float | str | dict[str, float] | None) -> str:
    if value is None:
        return "not known"
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4%}"

"""`landscape data`: public data sets, and what is in a file of interactions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import (
    Columns,
    Device,
    DropMissing,
    Encoding,
    Json,
    MinRating,
    Quote,
    Seed,
    Separator,
    TimeFormat,
)
from landscape.cli.output import Table, show
from samrec.choices import Format

if TYPE_CHECKING:
    from samrec.data.catalog import Fetched, File

app = typer.Typer(help="Get public data, and look at data before training on them.", no_args_is_help=True)


@app.command("list")
def catalog(seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """Print the public data sets that `landscape data get` knows.

    Nothing is downloaded; --seed and --device change nothing here.

    Example:

      landscape data list
    """
    from dataclasses import asdict

    from samrec.data.catalog import CATALOG

    show(
        json,
        {"data": [asdict(entry) for entry in CATALOG.values()]},
        Table(
            "Reviews, 5-core, as S3Rec's authors prepared them; landscape data get NAME",
            ["name", "users", "items", "interactions", "source"],
            [
                [e.name, f"{e.users:,}", f"{e.items:,}", f"{e.interactions:,}", e.source]
                for e in CATALOG.values()
            ],
        ),
    )


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="Of the data set, as landscape data list prints it.")],
    out: Annotated[Path, typer.Option(help="Folder to put it in.")] = Path("data"),
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Get the items' attributes (JSON) too.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Download a public data set, and check that it is the file that the papers used (SHA-256).

    A download that broke off continues where it stopped; what is there is not downloaded again.
    --seed and --device change nothing here.

    Examples:

      landscape data get beauty

      landscape data get yelp --attributes --out data/yelp
    """
    from samrec.data.catalog import fetch, find

    entry = find(name)
    files = [entry.sequences, entry.attributes] if attributes else [entry.sequences]
    found = [fetch(file, out) for file in files]
    shown = [_plain(file, one) for file, one in zip(files, found, strict=True)]
    show(
        json,
        {"name": entry.name, **shown[0], "attributes": shown[1] if attributes else None},
        Table(
            "",
            [f"{entry.name}: {entry.source}"],
            [
                *([f"{one.path}: {_came(one)}"] for one in found),
                [f"To train on it: landscape train --data {found[0].path}"],
            ],
        ),
    )


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="File of interactions.")],
    format: Annotated[Format, typer.Option(help="What the file is; its ending tells a table.")] = "auto",
    columns: Columns = None,
    separator: Separator = None,
    quote: Quote = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    min_rating: MinRating = None,
    drop_missing: DropMissing = False,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Keep a user's first interaction with an item only.")
    ] = False,
    core: Annotated[int, typer.Option(min=0, help="Leave out users and items with fewer interactions.")] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print how a file is understood, and its users, items, density, lengths, repeats and ties in time.

    Text is sequence lines (user item item …) or pairs (user item), in time order. Tables are CSV, TSV,
    Parquet, RecBole's .inter, JSON lines such as Amazon's, MovieLens' .dat and .data, all but Parquet
    also with .gz or in a .zip; a folder or a pattern ('part-*.parquet') reads several files as one. What is
    missing or can be read in two ways is refused, with the option that decides it. --seed and --device
    change nothing here.

    Examples:

      landscape data info Beauty.txt

      landscape data info reviews_Beauty.json.gz --core 5

      landscape data info ratings.csv --columns 0,1,3

      landscape data info ml-20m.zip/ml-20m/ratings.csv --min-rating 4

      landscape data info visits.csv --time-format "%d/%m/%Y %H:%M" --drop-missing
    """
    from samrec.data.describe import describe
    from samrec.data.readers import read

    found = describe(
        read(
            path,
            format,
            columns,
            deduplicate,
            core,
            separator,
            quote,
            encoding,
            time_format,
            min_rating,
            drop_missing,
        )
    )
    show(
        json,
        {"path": str(path), **found},
        Table(
            str(path), ["", ""], [[name.replace("_", " "), _shown(value)] for name, value in found.items()]
        ),
    )


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown_in(one)}" for name, one in value.items()) or "nothing"
    if isinstance(value, list):
        return "\n".join(" | ".join(row) for row in value)
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4%}"


def _shown_in(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _plain(file: "File", found: "Fetched") -> dict[str, str | int]:
    return {
        "path": str(found.path),
        "sha256": file.sha256,
        "bytes": file.bytes,
        "downloaded": found.downloaded,
    }


def _came(found: "Fetched") -> str:
    return f"{found.downloaded:,} bytes downloaded" if found.downloaded else "already there"

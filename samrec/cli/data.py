"""`landscape data`: public data sets, and what is in a file of interactions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import Json
from landscape.cli.output import show
from landscape.runtime.table import Table
from samrec.choices import OF_READING
from samrec.cli.settings import with_settings

if TYPE_CHECKING:
    from samrec.data.catalog import Fetched, File

app = typer.Typer(
    help="Download public data, and describe data before training on them.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list")
def catalog(json: Json = False) -> None:
    """Print the public data sets that `landscape data get` knows.

    Nothing is downloaded.

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
    name: Annotated[str, typer.Argument(help="Name of the data set, as landscape data list prints it.")],
    out: Annotated[Path, typer.Option(help="Folder to save it in.")] = Path("data"),
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Download the items' attributes (JSON) too.")
    ] = False,
    json: Json = False,
) -> None:
    """Download a public data set, and check that it is the file that the papers used (SHA-256).

    An interrupted download continues where it stopped; a file that is there is not downloaded again.

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
@with_settings(*OF_READING)
def info(
    settings: dict[str, Any],
    path: Annotated[Path, typer.Argument(help="File of interactions.")],
    json: Json = False,
) -> None:
    """Print how a file is understood, and its users, items, density, lengths, repeats and ties in time.

    Text is sequence lines (user item item …) or pairs (user item), in time order. Tables are CSV, TSV,
    Parquet, RecBole's .inter, JSON lines such as Amazon's, MovieLens' .dat and .data; all except Parquet
    may be compressed as .gz or .zip. A folder or a pattern ('part-*.parquet') reads several files as one.
    A field that is missing, or that can be read in two ways, is refused with the option that decides.

    Examples:

      landscape data info Beauty.txt

      landscape data info reviews_Beauty.json.gz --core 5

      landscape data info ratings.csv --columns 0,1,3

      landscape data info ml-20m.zip/ml-20m/ratings.csv --min-rating 4

      landscape data info visits.csv --time-format "%d/%m/%Y %H:%M" --drop-missing
    """
    from samrec.config import configure
    from samrec.data.describe import describe
    from samrec.data.readers import read

    found = describe(read(path, **configure(settings | {"data": str(path)}).reading))
    rows = [[name.replace("_", " "), _shown(value)] for name, value in found.items() if name != "sha256"]
    told = Table(str(path), ["", ""], rows), Table(f"SHA-256 {found['sha256']}", [], [])
    show(json, {"path": str(path), **found}, *told)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return "\n".join(f"{name} {_shown_in(one)}" for name, one in value.items()) or "nothing"
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

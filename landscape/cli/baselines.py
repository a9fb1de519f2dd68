"""`landscape baselines`: what a trained model must beat."""

from pathlib import Path
from typing import Annotated, Literal

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
from landscape.cli.train import METRICS
from samrec.choices import Format


def command(
    data: Annotated[
        Path, typer.Option(help="Sequence lines, pairs, or a table; see landscape data info --help.")
    ],
    split: Annotated[Literal["valid", "test"], typer.Option(help="Which held-out items to rank.")] = "test",
    train_fraction: Annotated[
        float, typer.Option(help="Count on this share of the users, drawn by --seed, and test on all.")
    ] = 1.0,
    noise: Annotated[
        float, typer.Option(help="Count with this share of the interactions replaced, drawn by --seed.")
    ] = 0.0,
    format: Annotated[Format, typer.Option(help="Of the data; a file's ending tells a table.")] = "auto",
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
    core: Annotated[int, typer.Option(help="Leave out users and items with fewer interactions.")] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rank every user's held-out item by counts alone: what a trained model should beat.

    popularity: an item's interactions. markov: how often it came right after the history's last item.
    item-knn: its similarity to all items of the history, by the users they share; in recent-knn an item
    counts half of what the next one does. Counted on what landscape train trains on with the same options,
    and ranked as landscape evaluate does; of equal scores, the more popular item's is higher. --device
    changes nothing here.

    Examples:

      landscape baselines --data Beauty.txt

      landscape baselines --data Beauty.txt --split valid --train-fraction 0.2
    """
    from landscape.progress import bar
    from samrec.config import configure
    from samrec.data.readers import read
    from samrec.data.split import leave_one_out
    from samrec.methods.baselines import BASELINES, evaluated

    config = configure(
        {
            "data": str(data),
            "format": format,
            "columns": columns,
            "separator": separator,
            "quote": quote,
            "encoding": encoding,
            "time_format": time_format,
            "min_rating": min_rating,
            "drop_missing": drop_missing,
            "deduplicate": deduplicate,
            "core": core,
            "train_fraction": train_fraction,
            "noise": noise,
            "seed": seed,
        }
    )
    known = leave_one_out(read(data, **config.reading)).fraction(config.train_fraction, config.seed)
    known = known.noisy(config.noise, config.seed)
    found = {}
    with bar("baselines", len(BASELINES)) as advance:
        for name, reached in evaluated(known, split):
            found[name] = reached
            advance(name)
    users = len(known.evaluated)
    show(
        json,
        {"path": str(data), "split": split, "users": users, "baselines": found},
        Table(
            f"{data}: {split}, {users} users",
            ["", *METRICS],
            [[name, *(f"{values[m]:.4f}" for m in METRICS)] for name, values in found.items()],
        ),
    )

"""`landscape baselines`: what a trained model must beat."""

from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.options import Json, Seed
from landscape.cli.output import show
from landscape.runtime.table import Table, metric_name
from samrec.choices import METRICS, OF_READING
from samrec.cli.options import Part
from samrec.cli.settings import with_settings


@with_settings(*OF_READING, "split", "train_fraction", "noise")
def command(
    settings: dict[str, Any],
    data: Annotated[Path, typer.Option(help="File of interactions; see landscape data info --help.")],
    part: Part = "test",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Rank every user's held-out item by counts alone, which a trained model should beat.

    popularity scores an item by its interactions; markov by how often it follows the last item of the
    history; item-knn by its similarity to all items of the history, from the users they share; recent-knn is
    the same with each item counting half as much as the next one. Counts are of what landscape train trains
    on with the same options, and ranking is that of landscape evaluate; ties go to the more popular item.
    Only --train-fraction and --noise depend on --seed.

    Examples:

      landscape baselines --data Beauty.txt

      landscape baselines --data Beauty.txt --part valid --train-fraction 0.2
    """
    from landscape.runtime.progress import bar
    from samrec.config import configure
    from samrec.data.readers import read
    from samrec.data.split import split_by
    from samrec.methods.baselines import BASELINES, evaluated

    config = configure(settings | {"data": str(data), "seed": seed})
    known = split_by(config.split, read(data, **config.reading))
    known = known.fraction(config.train_fraction, config.seed).noisy(config.noise, config.seed)
    found = {}
    with bar("baselines", len(BASELINES)) as advance:
        for name, reached in evaluated(known, part):
            found[name] = reached
            advance(name)
    users = len(known.evaluated(part))
    show(
        json,
        {"path": str(data), "part": part, "split": config.split, "users": users, "baselines": found},
        Table(
            f"{data}: {part}, {users} users",
            ["", *map(metric_name, METRICS)],
            [[name, *(f"{values[m]:.4f}" for m in METRICS)] for name, values in found.items()],
        ),
    )

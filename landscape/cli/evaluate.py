"""`landscape evaluate`: full ranking with a checkpoint."""

from typing import Annotated, Literal

import typer

from landscape.cli.options import Checkpoint, Data, Device, Json, Seed
from landscape.cli.output import Table, show
from landscape.cli.train import METRICS


def command(
    ckpt: Checkpoint,
    split: Annotated[Literal["valid", "test"], typer.Option(help="Which held-out items to rank.")] = "test",
    data: Data = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rank every user's held-out item among all items: HR, NDCG and MRR at 5, 10 and 20.

    Below each is the 95% interval of a bootstrap over users, drawn by --seed.

    Example:

      landscape evaluate --ckpt runs/sasrec/best.pt
    """
    from samrec.evaluation import intervals, metrics
    from samrec.task import ranking

    ranks = ranking(ckpt, split, data, device)
    values, between = metrics(ranks), intervals(ranks, seed)
    bounds = [[f"{between[m][end]:.4f}" for m in METRICS] for end in (0, 1)]
    show(
        json,
        {"path": str(ckpt), "split": split, "users": len(ranks), **values, "intervals": between},
        Table(
            f"{ckpt}: {split}, {len(ranks)} users",
            ["", *METRICS],
            [
                ["", *(f"{values[m]:.4f}" for m in METRICS)],
                *([name, *row] for name, row in zip(("from", "to"), bounds, strict=True)),
            ],
        ),
    )

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

    Nothing is drawn, so --seed changes nothing; it is there as everywhere.

    Example:

      landscape evaluate --ckpt runs/sasrec/best.pt
    """
    from samrec.task import ranking

    users, values = ranking(ckpt, split, data, device)
    show(
        json,
        {"path": str(ckpt), "split": split, "users": users, **values},
        Table(f"{ckpt}: {split}, {users} users", list(METRICS), [[f"{values[m]:.4f}" for m in METRICS]]),
    )

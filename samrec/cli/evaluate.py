"""`landscape evaluate`: full ranking with a checkpoint."""

import math
from collections.abc import Mapping
from typing import Annotated

import typer

from landscape.cli.options import Checkpoint, Data, Device, Json, Seed, by_ranks
from landscape.cli.output import Table, show
from landscape.runtime.ranks import ranks
from samrec.choices import METRICS
from samrec.cli.options import Part, ShardItems


@by_ranks
def command(
    ckpt: Checkpoint,
    split: Part = "test",
    noise: Annotated[
        float,
        typer.Option(min=0, max=1, help="Insert this share of random items into each history."),
    ] = 0.0,
    cold: Annotated[int, typer.Option(min=0, help="Maximum history length of a cold user.")] = 5,
    head: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the most popular items that form the head.")
    ] = 0.2,
    data: Data = None,
    seed: Seed = 0,
    shard_items: ShardItems = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rank every user's held-out item among all items: HR, NDCG and MRR at 5, 10 and 20.

    The rows below give the 95% interval of a bootstrap over users, drawn by --seed, and the metrics by group:
    cold users, with a short history, and warm users; users whose held-out item is among the most popular in
    training (head), and the others (tail); and, if only a share of the users was trained on, these users and
    the others.

    The items that --noise inserts, drawn by --seed, are not among the user's own and count as history. The
    groups are those of the data without noise.

    Examples:

      landscape evaluate --ckpt runs/sasrec/best.pt

      landscape evaluate --ckpt runs/sasrec/best.pt --noise 0.2 --cold 10 --head 0.1

      torchrun --nproc-per-node 8 -m landscape evaluate --ckpt runs/big/best.pt --shard-items
    """
    from samrec.evaluation import groups, intervals, metrics
    from samrec.task import ranking

    found = ranking(ckpt, split, data, device, noise, seed, ranks(), shard_items)
    of_users = found.ranks
    values, between = metrics(of_users), intervals(of_users, seed)
    members = groups(found.split, split, cold, head)
    apart = {name: {"users": int(who.sum()), **metrics(of_users[who])} for name, who in members.items()}
    inserted = f", {100 * noise:g}% random items inserted" if noise else ""
    pairs = {
        ("cold", "warm"): f"with {cold} items or fewer in the history",
        ("head", "tail"): f"whose item is among the {100 * head:g}% most popular",
        ("trained", "untrained"): "trained on",
    }
    notes = [
        f"{one}: {apart[one]['users']} users {who}; {other}: {apart[other]['users']}"
        for (one, other), who in pairs.items()
        if one in apart
    ]
    show(
        json,
        {
            "path": str(ckpt),
            "split": split,
            "noise": noise,
            "cold": cold,
            "head": head,
            "users": len(of_users),
            **values,
            "intervals": between,
            "groups": apart,
        },
        Table(
            f"{ckpt}: {split}, {len(of_users)} users{inserted}",
            ["", *METRICS],
            [
                ["all", *_written(values)],
                *(
                    [f"  {name}", *_written({m: ends[end] for m, ends in between.items()})]
                    for end, name in enumerate(("from", "to"))
                ),
                *([name, *_written(of)] for name, of in apart.items()),
            ],
        ),
        *(Table(note, [], []) for note in notes),
    )


def _written(values: Mapping[str, float]) -> list[str]:
    return ["–" if math.isnan(values[m]) else f"{values[m]:.4f}" for m in METRICS]

"""`landscape evaluate`: full ranking with a checkpoint."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from landscape.cli.options import Checkpoint, Data, Device, Json, Seed, by_ranks
from landscape.cli.output import show
from landscape.runtime.ranks import ranks
from landscape.runtime.table import Table
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
    members = groups(found.split, split, cold, head)
    summary = {
        "path": str(ckpt),
        "split": split,
        "noise": noise,
        "cold": cold,
        "head": head,
        "users": len(of_users),
        **metrics(of_users),
        "intervals": intervals(of_users, seed),
        "groups": {
            name: {"users": int(who.sum()), **metrics(of_users[who])} for name, who in members.items()
        },
    }
    show(json, summary, *_tables(summary))


def _tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the table of all users and of each group, and a note on each pair of groups."""
    inserted = f", {100 * summary['noise']:g}% random items inserted" if summary["noise"] else ""
    found, between = summary["groups"], summary["intervals"]
    ends = [{metric: pair[end] for metric, pair in between.items()} for end in (0, 1)]
    rows = {"all": summary, "  from": ends[0], "  to": ends[1], **found}
    yield Table(
        f"{summary['path']}: {summary['split']}, {summary['users']} users{inserted}",
        ["", *METRICS],
        [[name, *_written(values)] for name, values in rows.items()],
    )
    pairs = {
        ("cold", "warm"): f"with {summary['cold']} items or fewer in the history",
        ("head", "tail"): f"whose item is among the {100 * summary['head']:g}% most popular",
        ("trained", "untrained"): "trained on",
    }
    for (one, other), who in pairs.items():
        if one in found:
            counts = found[one]["users"], found[other]["users"]
            yield Table(f"{one}: {counts[0]} users {who}; {other}: {counts[1]}", [], [])


def _written(values: Mapping[str, float]) -> list[str]:
    return ["–" if math.isnan(values[m]) else f"{values[m]:.4f}" for m in METRICS]

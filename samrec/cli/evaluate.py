"""`landscape evaluate`: full ranking with a checkpoint."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from landscape.cli.options import Checkpoint, Data, Device, Json, Seed, by_ranks
from landscape.cli.output import show
from landscape.runtime.ranks import ranks
from landscape.runtime.rounding import between
from landscape.runtime.table import Table, metric_name
from samrec.choices import METRICS, Sampled
from samrec.cli.options import Part, ShardItems, some_of


@by_ranks
def command(
    ckpt: Checkpoint,
    part: Part = "test",
    noise: Annotated[
        float,
        typer.Option(min=0, max=1, help="Insert this share of random items into each history."),
    ] = 0.0,
    cold: Annotated[int, typer.Option(min=0, help="Maximum history length of a cold user.")] = 5,
    head: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the most popular items that form the head.")
    ] = 0.2,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric to show (repeatable), with any K: hr@K, ndcg@K, mrr@K, recall@K, precision@K, "
            "map@K, mrr; coverage@K, novelty@K, popularity@K (default: HR and NDCG at 5, 10, 20, and MRR)."
        ),
    ] = None,
    repeats: Annotated[
        Literal["candidate", "miss"],
        typer.Option(help="How to count a held-out item that the user has had before."),
    ] = "candidate",
    sampled: Annotated[
        list[str] | None, some_of(Sampled, "Also rank among 100 items drawn uniformly or by popularity")
    ] = None,
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

    One item is held out per user, so recall is HR, precision is HR/K, and MAP is MRR. coverage@K is the share
    of the items that are among the top K of at least one user; popularity@K is the mean number of training
    interactions of these K, and novelty@K their mean self-information in bits. With --repeats miss, a
    held-out item from the user's own history counts as not found, as in systems that never repeat an item.

    --sampled adds metrics named like HR@10 (uni100). They rank the held-out item among 100 items that --seed
    draws from outside the user's sequence. They are higher than those of the full ranking, and may order
    models differently; compare them only with papers that sample in the same way.

    The items that --noise inserts, drawn by --seed, are not among the user's own and count as history. The
    groups are those of the data without noise.

    Examples:

      landscape evaluate --ckpt runs/sasrec/best.pt

      landscape evaluate --ckpt runs/sasrec/best.pt --noise 0.2 --cold 10 --head 0.1

      landscape evaluate --ckpt runs/sasrec/best.pt --metric recall@50 --metric coverage@50 --repeats miss

      landscape evaluate --ckpt runs/sasrec/best.pt --sampled uni100 --sampled pop100

      torchrun --nproc-per-node 8 -m landscape evaluate --ckpt runs/big/best.pt --shard-items
    """
    from samrec.catalogue import separated
    from samrec.evaluation import RANKED, groups, intervals, metrics, missing_repeats
    from samrec.task import ranking

    chosen, catalogue = separated(metric or METRICS)
    names = tuple(dict.fromkeys((*RANKED, *chosen)))
    few_among = cast(list[Sampled], sampled or [])
    found = ranking(ckpt, part, data, device, noise, seed, ranks(), shard_items, catalogue, few_among)

    every = {"": found.ranks, **found.sampled}
    if repeats == "miss":
        every = {kind: missing_repeats(of, found.split, part) for kind, of in every.items()}
    of_users = every.pop("")
    few = {f"{name} ({kind})": v for kind, of in every.items() for name, v in metrics(of, names).items()}
    members = groups(found.split, part, cold, head)
    summary = {
        "path": str(ckpt),
        "part": part,
        "split": found.split.rule,
        "noise": noise,
        "cold": cold,
        "head": head,
        "repeats": repeats,
        "users": len(of_users),
        "without_target": found.split.interactions.num_users - len(of_users),
        **metrics(of_users, names),
        **found.catalogue,
        "sampled": few,
        "intervals": intervals(of_users, seed, names=names),
        "groups": {
            name: {"users": int(who.sum()), **metrics(of_users[who], names)} for name, who in members.items()
        },
    }
    more = *_of_catalogue(found.catalogue), *_of_samples(few, chosen), *_to_compare(summary, data)
    show(json, summary, *_tables(summary, chosen), *more)


def _to_compare(summary: Mapping[str, Any], data: Path | None) -> Iterator[Table]:
    """Yield a sentence on what these numbers are to be compared with, where that ranks in the same way."""
    if summary["noise"] or summary["repeats"] == "miss":
        return
    said = ["--data", str(data or "FILE"), "--part", summary["part"], "--split", summary["split"]]
    command = shlex.join(["landscape", "baselines", *said])
    yield Table(
        f"What counting alone reaches: {command}, with the training's other options of the data", [], []
    )


def _of_catalogue(values: Mapping[str, float]) -> list[Table]:
    return [Table("catalogue", list(values), [[f"{v:.4f}" for v in values.values()]])] if values else []


def _of_samples(values: Mapping[str, float], names: Sequence[str]) -> list[Table]:
    """Return a table of the metrics among sampled items, whose names say how these were drawn."""
    told = [(*name.partition(" "), value) for name, value in values.items()]
    rows = [[f"{metric_name(name)} {kind}", f"{value:.4f}"] for name, _, kind, value in told if name in names]
    title = "among 100 sampled items; not comparable with the full ranking"
    return [Table(title, ["", "mean"], rows)] if rows else []


def _tables(summary: Mapping[str, Any], names: Sequence[str]) -> Iterator[Table]:
    """Yield the table of all users and of each group, and a note on each pair of groups."""
    inserted = f", {100 * summary['noise']:g}% random items inserted" if summary["noise"] else ""
    without = f" ({summary['without_target']} without an item to predict)"
    found = summary["groups"]
    ends = [between(low, high, 4) for low, high in (summary["intervals"][metric] for metric in names)]
    rows = {
        "all": _written(summary, names),
        "  95% from": [end[0] for end in ends],
        "  95% to": [end[1] for end in ends],
    }
    rows |= {name: _written(values, names) for name, values in found.items()}
    yield Table(
        f"{summary['path']}: {summary['part']}, {summary['users']} users"
        + (without if summary["without_target"] else "")
        + inserted,
        ["", *map(metric_name, names)],
        [[name, *row] for name, row in rows.items()],
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


def _written(values: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return ["–" if math.isnan(values[m]) else f"{values[m]:.4f}" for m in names]

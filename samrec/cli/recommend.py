"""`landscape recommend`: what a trained model recommends to whom."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import Checkpoint, Data, Device, Json
from landscape.cli.output import show, written
from landscape.errors import InputError
from landscape.runtime.table import Table
from landscape.storage.files import existing
from samrec.cli.options import listed

if TYPE_CHECKING:
    from samrec.recommendation import Recommendations


def command(
    ckpt: Checkpoint,
    user: Annotated[
        list[str] | None, typer.Option(help="Id of a user in the data (repeatable; default: all users).")
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="Item ids in time order, ID,ID,…, instead of a user.")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="File of user ids, one per line.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of items per user.")] = 10,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Leave out the items of the user's history.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .csv, .parquet or .jsonl (default: print a table).")
    ] = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Recommend the items that a model scores highest, for users of its data or after a history.

    Ids are those of the data. A user's history is everything in the data, including the items held out for
    the test. The columns are user, rank (from 1), item and score; scores of different users cannot be
    compared. Items with equal scores are in the order of their ids. --history needs no data, unless the
    checkpoint stores no ids (best.safetensors, and checkpoints of earlier versions).

    Examples:

      landscape recommend --ckpt runs/sasrec/best.pt --user A1YJEY40YUW4SE

      landscape recommend --ckpt runs/sasrec/best.pt --history 12,7,3051 --top 5 --exclude-seen

      landscape recommend --ckpt runs/sasrec/best.pt --users buyers.txt --top 100 --out recommended.parquet
    """
    from samrec.recommendation import recommend, writer_of

    if sum(given is not None for given in (user or None, history, users)) > 1:
        raise InputError("give one of --user, --history and --users")
    if out is not None:
        writer_of(out)
    elif not json and not user and history is None and users is None:
        raise InputError("recommendations for all users are too many to print; give --out FILE, or --user ID")
    names = _ids_in(users) if users else user or None
    found = recommend(
        ckpt, names, None if history is None else [listed(history)], top, exclude_seen, data, device
    )
    count = {"path": str(ckpt), "users": found.num_users, "recommendations": len(found.ranks)}
    if out is not None:
        said = f"Recommendations: {len(found.ranks):,}. Users: {found.num_users:,}."
        show(json, count | {"file": str(found.save(out))}, Table(said, [], []), *written([out]))
        return
    told = [{"user": one, "items": items, "scores": scores} for one, items, scores in found.by_user()]
    show(json, count | {"top": top, "by_user": told}, _table(found, str(ckpt)))


def _table(found: "Recommendations", title: str) -> Table:
    columns = found.users, found.ranks, found.items
    rows = zip(*(column.tolist() for column in columns), found.scores.tolist(), strict=True)
    return Table(
        title,
        ["user", "rank", "item", "score"],
        [[str(user), str(rank), str(item), f"{score:.4f}"] for user, rank, item, score in rows],
    )


def _ids_in(path: Path) -> list[str]:
    try:
        lines = existing(path, "file of user ids", 2**28).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; expected one user id per line") from None
    if not (ids := [line.strip() for line in lines if line.strip()]):
        raise InputError(f"{path} holds no user ids; expected one per line")
    return ids

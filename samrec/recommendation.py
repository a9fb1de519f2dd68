"""What a trained model recommends: the best items for users of its data, or for histories of others."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import InputError
from landscape.runtime.devices import device_named
from landscape.storage.display import Brief, framed
from landscape.storage.files import replacing
from samrec.checkpoint import Checkpoint, load
from samrec.chunks import chunk_rows
from samrec.data.interactions import Ints
from samrec.data.labels import Ids, rows_of
from samrec.data.packing import pack
from samrec.data.ragged import Ragged, slices
from samrec.model import Recommender
from samrec.scores import need_finite, summands

if TYPE_CHECKING:
    import polars as pl

BATCH = 1024  # histories at once
CHUNKS = 6  # of scores at once on a CPU: float64 products of 500 rows take three quarters of the time of 86's


@dataclass(frozen=True, eq=False, repr=False)
class Recommendations(Brief):
    """Recommended items, user after user, the best first. All arrays have the shape (recommendations,).

    Attributes:
        users: the user's id, or the number of the history, from 1.
        ranks: the place among the user's recommendations, from 1.
        items: the item's id.
        scores: the model's score of the item; scores of different users cannot be compared.
    """

    users: Ids
    ranks: Ints
    items: Ids
    scores: NDArray[np.float64]

    @property
    def num_users(self) -> int:
        """Number of users, or histories, with a recommendation."""
        return int((self.ranks == 1).sum())

    def by_user(self) -> Iterator[tuple[Any, list[Any], list[float]]]:
        """Yield each user's id, items and scores."""
        bounds = [*np.flatnonzero(self.ranks == 1).tolist(), len(self.ranks)]
        for first, end in pairwise(bounds):
            yield self.users[first].tolist(), self.items[first:end].tolist(), self.scores[first:end].tolist()

    def save(self, path: Path) -> Path:
        """Write the columns user, rank, item and score as the ending says: .csv, .parquet or .jsonl.

        Raises:
            InputError: another ending, or it cannot be written.
        """
        write_table(self.to_frame("polars"), path)
        return path

    def to_frame(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """Return the columns user, rank, item and score as a data frame, a row per recommendation.

        Args:
            library: `pandas` or `polars`; by default pandas where it is installed, else polars.

        Raises:
            InputError: that library is not installed.
        """
        columns = {"user": self.users, "rank": self.ranks, "item": self.items, "score": self.scores}
        return framed({name: _column(values) for name, values in columns.items()}, library)


def recommend(
    checkpoint: Path,
    users: Sequence[Any] | None = None,
    histories: Sequence[Sequence[Any]] | None = None,
    top: int = 10,
    exclude_seen: bool = False,
    data: Path | None = None,
    device: str = "auto",
) -> Recommendations:
    """Return the items with the highest scores after each history; of equal scores, the lower row first.

    A user's history is everything in the data, including the items held out for validation and test. The
    model sees its last `max_length` items. Scores are exact sums (`samrec.scores`), so the order does not
    depend on which other users are asked for.

    Args:
        checkpoint: a checkpoint that samrec wrote.
        users: ids of users in the data, as numbers or text; by default all of them.
        histories: item ids in time order, instead of users. They need no data, unless the checkpoint
            stores no ids (best.safetensors, and files of earlier versions).
        top: the number of items; fewer where there are no more.
        exclude_seen: leave out the items of the whole history. Who has all items gets none, and a warning
            counts them.
        data: the file of interactions, if it has moved since the training.
        device: as `landscape.device_named` takes it.

    Raises:
        InputError: the checkpoint or its data cannot be used, an id is unknown, a history is empty, there is
            nothing to recommend for, users and histories are given, `top` is below 1, or the weights are not
            finite.
    """
    if top < 1:
        raise InputError(f"top is the number of items to recommend, at least 1; it is {top}")
    if users is not None and histories is not None:
        raise InputError("give users or histories, not both")
    loaded = load(Path(checkpoint))
    model = loaded.model().to(device_named(device)).eval()
    if histories is None:
        known = loaded.interactions(data)
        item_ids, names = known.item_ids, known.user_ids
        assert names is not None  # what is read from a file names its users
        rows = np.arange(len(names)) if users is None else rows_of(names, users, "user")
        names = names[rows]
        shown = slices(known.items, known.offsets[rows], known.lengths[rows])
    else:
        item_ids = _item_ids(loaded, data)
        names = np.arange(1, len(histories) + 1)
        lengths = np.array([len(history) for history in histories], np.int64)
        shown = Ragged(rows_of(item_ids, (one for own in histories for one in own), "item"), lengths)
    if not len(shown):
        raise InputError("no users and no histories are given, so there is nothing to recommend for")
    if not shown.lengths.all():
        raise InputError("a history is empty; a recommendation needs at least one item")
    owner, item, score = best(model, shown, min(top, len(item_ids)), exclude_seen)
    if nothing := len(shown) - len(np.unique(owner)):
        warnings.warn(f"{nothing} of {len(shown)} histories hold every item, and get none", stacklevel=2)
    ranks = 1 + Ragged(item, np.bincount(owner)).within
    return Recommendations(names[owner], ranks, item_ids[item], score)


def save_items(loaded: Checkpoint, path: Path, data: Path | None = None) -> None:
    """Write the id and the embedding of each row of the item table, in order: .parquet, .jsonl or .csv.

    The columns are item and embedding, a list of d numbers; in CSV, embedding_0 to embedding_{d-1}.

    Raises:
        InputError: the checkpoint or its data cannot be used, another ending, or the file cannot be written.
    """
    import polars as pl

    writer_of(path)
    table = loaded.model().item.weight.detach().numpy()
    items = pl.Series("item", _column(_item_ids(loaded, data)))
    embedding = pl.Series("embedding", table)
    columns = [items, embedding]
    if path.suffix.lower() == ".csv":
        columns = [items, *(pl.Series(f"embedding_{at}", table[:, at]) for at in range(table.shape[1]))]
    write_table(pl.DataFrame(columns), path)


def _item_ids(loaded: Checkpoint, data: Path | None) -> Ids:
    """Return the id of each row of the item table: the checkpoint's, or those of data that are named."""
    kept = loaded.item_ids()
    return loaded.interactions(data).item_ids if kept is None or data is not None else kept


@torch.no_grad()
def best(
    model: Recommender, shown: Ragged, top: int, exclude_seen: bool
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Return the best items of each history: its number, ascending, the item's row and score, best first."""
    table = summands(model.item.weight)
    chunks = CHUNKS if table.device.type == "cpu" else 1
    size = min(BATCH, chunks * chunk_rows(len(table), table.device))
    buffer = table.new_empty(size, len(table))
    items = torch.from_numpy(shown.values).to(table.device)
    kept = np.minimum(shown.lengths, model.max_length)
    found = []
    for begin in range(0, len(shown), BATCH):
        batch = slice(begin, begin + BATCH)
        starts = (shown.starts + shown.lengths - kept)[batch]
        histories, _, _ = pack(items, starts, kept[batch], model.max_length, model.asks)
        expected = summands(model.ends(histories))
        need_finite(bool(expected.isfinite().all()))
        for first in range(0, len(expected), size):
            part = expected[first : first + size]
            scores = torch.mm(part, table.T, out=buffer[: len(part)])
            if exclude_seen:
                seen = shown.take(np.arange(begin + first, begin + first + len(part)))
                row, item = torch.from_numpy(np.stack([seen.owner, seen.values])).to(table.device)
                scores[row, item] = -torch.inf
            found.append(highest(scores, top))
    column, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    possible = score > -np.inf  # also leaves out what is not a number
    return np.nonzero(possible)[0], column[possible], score[possible]


def highest(scores: Tensor, top: int) -> tuple[Ints, NDArray[np.float64]]:
    """Return the columns of the `top` highest scores of each row, and the scores; equal ones by column.

    `topk` alone takes three times as long, and any of equal scores. Here the columns are cut into blocks, of
    which there are at least `top`: the top-th largest of the blocks' maxima is at most the top-th largest
    score, and what lies below it need not be sorted.

    Args:
        scores: shape (rows, columns), with at least `top` columns.

    Returns:
        Both in descending order of the scores, shape (rows, top).
    """
    columns = scores.shape[1]
    width = max(1, columns // (4 * top))
    blocks = scores[:, : columns // width * width].view(len(scores), width, -1).amax(1)
    bound = blocks.topk(top, dim=1).values[:, -1:]
    place = np.flatnonzero((scores >= bound).cpu().numpy())  # ten times as fast as torch's nonzero
    row, column = np.divmod(place, columns)
    kept = Ragged(column, np.bincount(row))
    shape = len(scores), int(kept.lengths.max())
    lowered, columns_of = np.full(shape, np.inf), np.zeros(shape, np.int64)
    lowered[row, kept.within] = -scores.flatten()[torch.from_numpy(place).to(scores.device)].cpu().numpy()
    columns_of[row, kept.within] = column
    order = np.argsort(lowered, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(columns_of, order, 1), -np.take_along_axis(lowered, order, 1)


def _csv(frame: "pl.DataFrame", path: Path) -> None:
    frame.write_csv(path)


def _parquet(frame: "pl.DataFrame", path: Path) -> None:
    frame.write_parquet(path)


def _json_lines(frame: "pl.DataFrame", path: Path) -> None:
    frame.write_ndjson(path)


WRITERS: Mapping[str, Callable[["pl.DataFrame", Path], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
}


def writer_of(path: Path) -> Callable[["pl.DataFrame", Path], None]:
    """Return what writes a table in the format of a path's ending; to be asked before long work.

    Raises:
        InputError: the ending is of no such format.
    """
    if (found := WRITERS.get(path.suffix.lower())) is None:
        raise InputError(f"cannot write {path}: the ending must be {', '.join(WRITERS)}")
    return found


def write_table(frame: "pl.DataFrame", path: Path) -> None:
    """Write a table in the format of the path's ending, whole or not at all.

    Raises:
        InputError: as `writer_of`, or the file cannot be written.
    """
    write = writer_of(path)
    with replacing(path) as temporary:
        write(frame, temporary)


def _column(values: NDArray[Any]) -> NDArray[Any] | list[Any]:
    """Return what both libraries of data frames take: strings as a list."""
    return values.tolist() if values.dtype.kind in "UO" else values

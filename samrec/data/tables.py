"""Read interactions from a table: CSV, Parquet, RecBole's .inter, Amazon's JSON lines, MovieLens' `::`."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import polars as pl

from landscape.errors import InputError, first_line
from landscape.storage.apart import apart
from samrec.data import parquet
from samrec.data.columns import Chosen, choose
from samrec.data.interactions import Interactions
from samrec.data.json_tables import JsonTable
from samrec.data.reading import TableOptions
from samrec.data.rows import Layout, interactions_of
from samrec.data.sources import Source, need_text, sources
from samrec.data.text_tables import HEADLESS, TextTable

JSON = (".json", ".jsonl", ".ndjson")
MOVIELENS = "0,1,2,3"  # user, item, rating, time
IDLE = {
    ".parquet": ("--separator", "--quote", "--encoding"),
    **dict.fromkeys(JSON, ("--separator", "--quote")),
}
"""Options of delimited text that say nothing about other tables."""


class Table(Protocol):
    """A file of a table: its columns' names, whether they are its own, and the columns by their number."""

    names: list[str]
    header: bool

    def take(self, chosen: Sequence[int]) -> pl.DataFrame: ...


class ParquetTable:
    """A table of Parquet."""

    header = True

    def __init__(self, source: Source) -> None:
        self.content = source.content
        with apart() as process:
            (names,) = process.read(parquet.schema, self.content)
        self.names: list[str] = json.loads(bytes(names))

    def take(self, chosen: Sequence[int]) -> pl.DataFrame:
        """Return the chosen columns, named by their number.

        Raises:
            InputError: there are fewer or more rows than the file says, or far more than its size.
        """
        with apart() as process:
            found = process.read(parquet.columns, self.content, [self.names[at] for at in chosen])
            parts = {str(at): parquet.column(next(found), next(found)) for at in chosen}
            assert next(found, None) is None
        return pl.DataFrame(parts)


def read_table(path: Path, kind: str, options: TableOptions) -> Interactions:
    """Read a table of interactions, sorted by user and then by time.

    Rows of one user at one time stay in the file's order, and are counted in `Interactions.ties`: where
    there are many, the order of a history is partly an accident. Without a time column the file's order
    is taken for the order of time, with a warning if another column may be one. Ids may be numbers or text.

    Args:
        path: a file, a folder, a pattern, or a member of a .zip, see `samrec.data.sources`.
        kind: the ending that says which table it is, `.gz` left out.

    Raises:
        InputError: the file is damaged, a column is not there or cannot be told, or a user, an item or a time
            is missing or not one (with its row).
    """
    for name in options.given:
        if name in IDLE.get(kind, ()):
            warnings.warn(f"{path} is read as {kind}, so {name} has no effect", stacklevel=3)
    with _one_line(str(path), kind), apart():
        files = sources(path)
        tables = [_opened(file, kind, options) for file in files]
        chosen = _chosen(tables[0], kind, options)
        parts = []
        for file, table in zip(files, tables, strict=True):
            with _one_line(file.name, kind):
                parts.append(_taken(table, tables[0], chosen))
        names, heights = [file.name for file in files], [part.height for part in parts]
        if not any(heights):
            raise InputError(f"{path} holds no interactions")
        first = tables[0]
        layout = Layout(str(path), names, heights, first.names, first.header, chosen, options)
        return interactions_of(_joined(parts), layout)


def _opened(file: Source, kind: str, options: TableOptions) -> Table:
    with _one_line(file.name, kind):
        if kind == ".parquet":
            return ParquetTable(file)
        need_text(file.name, file.content)
        return JsonTable(file, options) if kind in JSON else TextTable(file, kind, options)


def _chosen(table: Table, kind: str, options: TableOptions) -> Chosen:
    usual = MOVIELENS if isinstance(table, TextTable) and kind in HEADLESS and table.usual_separator else None

    def among(names: list[str]) -> Chosen:
        return choose(names, table.header, usual, options.columns, options.min_rating is not None)

    if isinstance(table, JsonTable):
        with suppress(InputError):
            if (chosen := among(table.names)).times or chosen.asked:
                return chosen
        table.look_further()
    return among(table.names)


def _taken(table: Table, first: Table, chosen: Chosen) -> pl.DataFrame:
    """Take the chosen columns of a file, by the names that they have in the first one."""
    if table.names == first.names or not (table.header or first.header):
        if len(table.names) != len(first.names):
            raise InputError(f"{len(table.names)} columns, but the first file has {len(first.names)}")
        return table.take(chosen.all)
    names = [first.names[at] for at in chosen.all]
    if isinstance(table, JsonTable):
        table.look_further()
    if not (table.header and first.header) or not set(names) <= set(table.names):
        raise InputError(f"the columns are not those of the first file: {', '.join(names)}")
    numbers = [table.names.index(name) for name in names]
    return table.take(numbers).select(
        pl.col(str(own)).alias(str(at)) for own, at in zip(numbers, chosen.all, strict=True)
    )


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Lay the rows of several files end to end; empties the list, so that no one holds them on."""
    if len(parts) == 1:
        return parts.pop()
    for name in parts[0].columns:
        kinds = {part[name].dtype for part in parts}
        if len(kinds) > 1 and not all(kind.is_integer() for kind in kinds):
            raise InputError(f"a column is {' in one file and '.join(sorted(map(str, kinds)))} in another")
    joined = pl.concat(parts, how="vertical_relaxed", rechunk=False)
    parts.clear()
    return joined


@contextmanager
def _one_line(name: str, kind: str) -> Iterator[None]:
    """Whatever damaged bytes provoke in the readers, say in one line that the file cannot be used."""
    try:
        yield
    except InputError as error:
        said = str(error)
        raise InputError(said if name in said else f"{name}: {said}") from None
    except Warning:  # which a caller made an error
        raise
    # Polars' panic is no Exception.
    except (Exception, pl.exceptions.PanicException) as error:
        raise InputError(f"{name} is not readable as {kind}: {first_line(error)}") from None

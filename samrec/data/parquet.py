"""Columns of Parquet, read in a process of its own: `landscape.storage.apart`."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from landscape.errors import InputError
from landscape.storage.apart import Buffer

NUMBERS = (
    pl.Int8,
    pl.Int16,
    pl.Int32,
    pl.Int64,
    pl.UInt8,
    pl.UInt16,
    pl.UInt32,
    pl.UInt64,
    pl.Float32,
    pl.Float64,
)


def schema(file: Path | bytes) -> Iterator[bytes]:
    """Yield the names of the columns, as JSON."""
    yield json.dumps(list(pl.read_parquet_schema(_opened(file)))).encode()


def columns(file: Path | bytes, names: Sequence[str]) -> Iterator[Buffer]:
    """Yield of each column the name of its type in NumPy, and its numbers; or nothing, and a file of Arrow's.

    The latter is for text, dates, and columns with gaps, and takes twice as long.

    Raises:
        InputError: a column has fewer or more rows than the file says.
    """
    rows = pl.scan_parquet(_opened(file)).select(pl.len()).collect().item()
    for name in names:  # one by one, so that only one of them is here at a time
        column = pl.read_parquet(_opened(file), columns=[name]).to_series()
        if len(column) != rows:
            raise InputError(f"{len(column)} rows were read of {rows}")
        if len(column) and column.dtype in NUMBERS and not column.null_count():
            numbers = column.to_numpy()
            yield numbers.dtype.str.encode()
            yield numbers.view(np.uint8).data
        else:
            packed = io.BytesIO()
            column.to_frame().write_ipc(packed, compression="uncompressed")
            yield b""
            yield packed.getbuffer()


def column(kind: Buffer, content: Buffer) -> pl.Series:
    """Return a column from what `columns` yielded of it."""
    if kind:
        return pl.Series(np.frombuffer(content, bytes(kind).decode()))
    return pl.read_ipc(bytes(content)).to_series()


def _opened(file: Path | bytes) -> Path | io.BytesIO:
    return file if isinstance(file, Path) else io.BytesIO(file)

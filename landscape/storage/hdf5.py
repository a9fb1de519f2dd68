"""Numbers in HDF5: strangers' files are read in a process of their own, and a new one is built in memory."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.storage.apart import Buffer, apart

Array = NDArray[np.float64]
MOST_VALUES = 2**24  # of a dataset: 128 MiB. A file of a few bytes may claim any size
LARGEST_CHUNK = 2**27  # bytes: libhdf5 takes whole chunks, whatever is in them
GZIP, SHUFFLE = 1, 2
"""Filters that need no plugin. Others are code of other people, which a damaged stream can crash."""


def read_datasets(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return those of the named datasets that a file has, as float64. Nothing outside the file is read.

    Raises:
        InputError: one is not a dataset stored in the file itself, is not of numbers, is larger than 2²⁴
            values, or is packed by a filter other than gzip and shuffle; or h5py is not installed.
        ValueError: the file is damaged, or no HDF5.
    """
    h5py()
    found = {}
    with apart() as process:
        parts = process.read(datasets, path, list(names))
        for header in parts:
            name, shape = json.loads(bytes(header))
            found[name] = np.frombuffer(next(parts), np.float64).reshape(shape)
    return found


def datasets(path: Path, names: Sequence[str]) -> Iterator[Buffer]:
    """Yield of each of these datasets that is there its name and shape, as JSON, and its numbers.

    Raises:
        InputError: as `read_datasets`.
    """
    with h5py().File(path, "r") as file:
        for name in names:
            if name in file:
                values = _values(file, name)
                yield json.dumps([name, values.shape]).encode()
                yield values.tobytes()


def _values(file: Any, name: str) -> Array:
    library = h5py()
    own = isinstance(file.get(name, getlink=True), library.HardLink)  # others may name another file
    found = file[name] if own else None
    if not isinstance(found, library.Dataset) or found.is_virtual or found.external:
        raise InputError(f"no dataset {name}")
    if found.dtype.kind not in "fiu":
        raise InputError(f"{name} must be of numbers, found {found.dtype}")
    if found.size > MOST_VALUES:
        raise InputError(f"{name} has {found.size:,} values, more than the {MOST_VALUES:,} that are read")
    created = found.id.get_create_plist()
    filters = {created.get_filter(number)[0] for number in range(created.get_nfilters())}
    if not filters <= {GZIP, SHUFFLE}:
        raise InputError(f"{name} is packed by a filter other than gzip and shuffle")
    if found.chunks and prod(found.chunks) * found.dtype.itemsize > LARGEST_CHUNK:
        raise InputError(f"{name} has chunks of more than {LARGEST_CHUNK:,} bytes")
    return np.asarray(found[...], dtype=np.float64)


def write_datasets(values: Mapping[str, Array], path: Path) -> None:
    """Write a file that holds these datasets: libhdf5 can crash on a disk that is full, and never sees it.

    Raises:
        OSError: it cannot be written.
        InputError: h5py is not installed.
    """
    with h5py().File(path, "w", driver="core", backing_store=False) as file:
        for name, numbers in values.items():
            file[name] = numbers
        file.flush()
        content = file.id.get_file_image()
    path.write_bytes(content)


def h5py() -> Any:
    """Return the library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 needs h5py: pip install h5py") from None
    return h5py

"""Files of `torch.save`: what they hold, from one reader that checks what it reads."""

import io
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.storage.archives import most_unpacked, open_archive
from landscape.storage.files import existing
from landscape.storage.pickles import OTHER, Storage, Stored, next_outline, outline

MOST_ENTRIES = 10**6  # of all containers; a shared one counts wherever it stands
DEEPEST = 100  # containers in containers
MOST_AXES = 64
DATA = "data/"  # before the key of a storage, in an archive
PICKLE = b"\x80"  # what a pickle begins with, and no archive
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of torch's format before archives
PLAIN = (str, bool, int, float, type(None), torch.dtype)


class Members(Protocol):
    """The parts of a file of `torch.save`: its pickle, and the numbers of each storage."""

    content: Any

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each storage, by its key."""
        ...

    def read(self, key: str) -> bytes:
        """Return the numbers of a storage."""
        ...


class Archive:
    """A zip archive, as torch writes since 1.6. One reader gives pickle and numbers, and checks CRC-32."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        if len(self._members) < len(archive.namelist()):
            raise zipfile.BadZipFile("two members have one name")
        if "byteorder" in self._members and (order := self._read("byteorder").decode()) != sys.byteorder:
            raise ValueError(f"its numbers are {order}-endian")
        self.content = outline(self._read("data.pkl"))
        stored = {name: member for name, member in self._members.items() if name.startswith(DATA)}
        self.sizes = {name.removeprefix(DATA): member.file_size for name, member in stored.items()}

    def read(self, key: str) -> bytes:
        return self._read(DATA + key)

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(self._members[name])
        except zipfile.BadZipFile:  # whose words quote the file
            raise zipfile.BadZipFile("a member is not what was written") from None


class Stream:
    """A file of torch before 1.6: pickles, then length and numbers of each storage. It has no checksums."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        (magic, _), (version, _), (system, _) = (next_outline(file) for _ in range(3))
        if (magic, version) != (MAGIC, VERSION) or not isinstance(system, dict):
            raise ValueError("it does not begin as those of torch do")
        if system.get("little_endian") is not (sys.byteorder == "little"):
            raise ValueError("its numbers are in the byte order of another machine")
        self.content, storages = next_outline(file)
        keys, _ = next_outline(file)
        self._places: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        at = file.tell()
        end = file.seek(0, io.SEEK_END)
        for key in keys:
            file.seek(at)
            (elements,) = struct.unpack("<q" if sys.byteorder == "little" else ">q", file.read(8))
            size = elements * storages[key].dtype.itemsize
            if not 0 <= size <= end - at - 8 or key in self.sizes:
                raise ValueError(f"storage {key} is not whole")
            self._places[key], self.sizes[key] = at + 8, size
            at += 8 + size

    def read(self, key: str) -> bytes:
        self._file.seek(self._places[key])
        return self._file.read(self.sizes[key])


class Saved:
    """A file of `torch.save`, of which nothing is run.

    `torch.load` is not used: it checks no sum, finds members by another rule than `zipfile`, and even with
    `weights_only` takes as much memory as a file names and can be made to crash (a deep tuple as a key).

    Attributes:
        content: what the file holds, with a `Stored` for each tensor; see `landscape.storage.pickles`.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self.content = members.content
        self._storages: dict[str, Tensor] = {}
        self._bytes_left = most_unpacked(sum(members.sizes.values()))
        # By the id of what `content` has in their place, which lives as long.
        self._containers: dict[int, tuple[Any, int, int]] = {}

    def tensor(self, stored: Stored) -> Tensor:
        """Read a tensor. Tensors that share their numbers in the file share them in memory.

        Raises:
            ValueError: it claims more than the file holds; or all tensors together are far larger than it.
            zipfile.BadZipFile: its numbers are not those that were written.
        """
        storage, dtype, offset, size, stride, bits = stored
        whole = all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
        if not whole or not len(size) == len(stride) <= MOST_AXES:
            raise ValueError("a tensor has an impossible shape")
        numbers, elements = self._numbers(storage).view(dtype), prod(size)
        if elements > len(numbers):
            raise ValueError(f"a tensor is claimed to hold {elements:,} elements, its storage has fewer")
        self._bytes_left -= elements * dtype.itemsize
        if self._bytes_left < 0:
            raise ValueError("its tensors are far larger than the file")
        found = numbers.as_strided(size, stride, offset)
        found = found.conj() if bits.get("conj") else found
        return -found if bits.get("neg") else found

    def everything(self) -> Any:
        """Return what the file holds, with its tensors made. Containers that it shares are shared again.

        Raises:
            UnpicklingError: something is neither a tensor nor a plain value.
            ValueError: its containers are too many or too deep to be copied, compared and printed.
            ValueError, zipfile.BadZipFile: as `tensor`.
        """
        return self._made(self.content, 0)[0]

    def _made(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """Return a value with its tensors made, its entries if shared ones count each time, its depth."""
        if isinstance(value, Stored):
            return self.tensor(value), 0, 0
        if isinstance(value, PLAIN):
            return value, 0, 0
        if type(value) not in (dict, list, tuple) or (isinstance(value, dict) and OTHER in value):
            raise UnpicklingError("neither a tensor nor a plain value")
        if id(value) not in self._containers:
            inner = value.values() if isinstance(value, dict) else value
            parts = [self._made(part, depth + 1) for part in inner] if depth < DEEPEST else []
            entries = len(parts) + sum(part[1] for part in parts)
            height = 1 + max((part[2] for part in parts), default=0)
            if entries > MOST_ENTRIES or max(height, depth) >= DEEPEST:
                raise ValueError("its containers are nested without end")
            made = (part[0] for part in parts)
            whole = dict(zip(value, made, strict=True)) if isinstance(value, dict) else type(value)(made)
            self._containers[id(value)] = whole, entries, height
        return self._containers[id(value)]

    def _numbers(self, storage: Storage) -> Tensor:
        """Return the bytes of a storage, shape (bytes,)."""
        key, dtype, elements = storage
        if elements * dtype.itemsize != self._members.sizes[key]:
            raise ValueError(f"storage {key} is claimed to hold {elements:,} elements, and does not")
        if key not in self._storages:
            content = bytearray(self._members.read(key))
            whole = (
                torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
            )
            self._storages[key] = whole
        return self._storages[key]


@contextmanager
def open_saved(path: Path, old: bool = False) -> Iterator[Saved]:
    """Open a file of `torch.save`.

    Args:
        path: the file.
        old: also read the format of torch before 1.6, which has no checksums.

    Raises:
        InputError: it cannot be read, or the block fails in any way that a file can make it fail.
    """
    existing(path, "checkpoint")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # torch says more of a bad file than one line
            path.open("rb") as file,
        ):
            if old and file.peek(1)[:1] == PICKLE:
                yield Saved(Stream(file))
                return
            with open_archive(file) as archive:
                yield Saved(Archive(archive))
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors and plain values; a pickle that could run code is never loaded"
        ) from None
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a readable checkpoint: not a complete archive of torch.save ({error}); "
            "a pickle without one is never loaded"
        ) from None
    except Exception as error:  # whatever damaged bytes provoke in the readers, the file cannot be used
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from error

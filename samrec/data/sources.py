"""The files behind a path, unpacked: a file, a folder, a pattern such as `part-*.csv`, a .zip's member."""

import gzip
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from landscape.errors import InputError
from landscape.runtime.devices import free_main_memory
from landscape.storage.archives import most_unpacked
from landscape.storage.files import existing

TABLES = (".csv", ".tsv", ".parquet", ".inter", ".json", ".jsonl", ".ndjson", ".data", ".dat")
_GZIP = b"\x1f\x8b"
_BINARY = {
    _GZIP: "compressed by gzip; unpack it",
    b"PAR1\x15": "a Parquet file; name it .parquet",
    b"ARROW1\0": "an Arrow (Feather) file; write it as .parquet or .csv",
    b"Obj\x01": "an Avro file; write it as .parquet or .csv",
    b"SQLite format 3\0": "an SQLite database; write its table as .csv",
    b"\x89HDF": "an HDF5 file; write its table as .parquet or .csv",
    b"\x93NUMPY": "an array of NumPy; write it as .csv",
    b"PK\x03\x04": "an Excel workbook or another archive; write its table as .csv, or name the archive .zip",
    **{b"BZh%d1AY&SY" % n: "compressed by bzip2; unpack it" for n in range(1, 10)},
    b"\xfd7zXZ\0": "compressed by xz; unpack it",
    b"(\xb5/\xfd": "compressed by Zstandard; unpack it",
    **{
        bytes([0x80, n]): "a pickle, which can run code and is not read; write it as .parquet"
        for n in range(2, 6)
    },
    b"<!DOCTYPE": "a web page and not data; download the file itself",
    b"<!doctype": "a web page and not data; download the file itself",
    b"<html": "a web page and not data; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself: git lfs pull",
}
"""How files begin that are not text, whatever their name says; what they are, and what to do.

A name may begin with PAR1 or BZh, and stand first in a table.
"""
LONGEST = 2**28
"""Bytes of a line that are read: a file may be one line, and larger than the memory."""


@dataclass(frozen=True)
class Source:
    """A file of a table.

    Attributes:
        name: to be shown.
        content: the file, or the bytes that were packed in it.
    """

    name: str
    content: Path | bytes


def ending(name: str) -> str:
    """Return a name's ending in lower case, `.gz` left out."""
    return Path(name.removesuffix(".gz")).suffix.lower()


def kind_of(path: Path) -> str:
    """Return the ending that says what the files behind a path are.

    Raises:
        InputError: there are none, or they differ in kind.
    """
    return ending(_names(path)[0])


def last_change(path: Path) -> int:
    """Return when the files behind a path were last written, in ns since 1970; 0 where there are none."""
    return max((file.stat().st_mtime_ns for file in files_behind(path) if file.exists()), default=0)


def files_behind(path: Path) -> list[Path]:
    """Return the files that hold what a path names, whether or not they exist."""
    archive = _archive(path)
    return [archive[0]] if archive else _matching(path)


def plain_name(path: str) -> str:
    """Return a path's name without its ending and the signs of a pattern, to name a run by."""
    return re.sub(r"[*?\[\]]+", "", Path(path).stem) or "data"


def sources(path: Path) -> list[Source]:
    """Return the files behind a path in the order of the numbers in their names, packed ones unpacked.

    Raises:
        InputError: there are none, one is empty, they differ in kind, or one unpacks to far too much.
        OSError, EOFError, zlib.error, zipfile.BadZipFile: a packed file is damaged.
    """
    names = _names(path)
    if archive := _archive(path):
        file, _ = archive
        room, found = most_unpacked(file.stat().st_size), []
        with zipfile.ZipFile(file) as opened:
            for name in names:
                found.append(Source(f"{file}/{name}", content := _member(opened, name, room, file)))
                room -= len(content)
        return found
    return [_unpacked(Path(name)) for name in names]


def _names(path: Path) -> list[str]:
    """Return the names of the files behind a path, or of the members of an archive."""
    if archive := _archive(path):
        return _members(*archive)
    files = _matching(path)
    if not files and path.is_dir():
        raise InputError(f"{path} is a folder, not a data file, and holds no {', '.join(TABLES[:4])} … files")
    if not files:
        raise InputError(f"no file matches {path}")
    if path.is_dir() and any(inner.is_dir() and not _hidden(inner.name) for inner in path.iterdir()):
        raise InputError(f"{path} holds files and folders; name the files with a pattern: '{path}/*.parquet'")
    for file in files:
        existing(file, "data file")
    return _of_one_kind([str(file) for file in files], str(path))


def _matching(path: Path) -> list[Path]:
    """Return the table files in a folder, those that a pattern matches, or the file itself."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file() and ending(file.name) in TABLES]
    elif any(sign in path.name for sign in "*?[") and not path.exists():
        files = [file for file in path.parent.glob(path.name) if file.is_file()]
    else:
        return [path]
    return sorted((file for file in files if not _hidden(file.name)), key=lambda file: _by_number(file.name))


def _of_one_kind(names: Sequence[str], where: str) -> list[str]:
    if len(kinds := sorted({ending(name) for name in names})) > 1:
        raise InputError(
            f"{where} holds {' and '.join(kinds)} files; name those of one kind with a pattern: '*{kinds[0]}'"
        )
    plain = [name.removesuffix(".gz") for name in names]
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        raise InputError(f"{where} holds {twice} packed and unpacked; name one of the two")
    return list(names)


def _archive(path: Path) -> tuple[Path, str] | None:
    """Return the .zip file of a path such as `a.zip` or `a.zip/folder/ratings.csv`, and the member's name."""
    for outer in (path, *path.parents):
        if outer.suffix.lower() == ".zip" and outer.is_file():
            return outer, path.relative_to(outer).as_posix().removeprefix(".")
    return None


def _members(file: Path, wanted: str) -> list[str]:
    existing(file, "data file")
    try:
        with zipfile.ZipFile(file) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{file} is not readable as .zip: {error}") from None
    names = [name for name in names if not any(map(_hidden, name.split("/")))]
    if wanted:
        found = [name for name in names if name == wanted or fnmatch(name, wanted)]
    else:
        found = [name for name in names if ending(name) in TABLES]
    if not found or (not wanted and len(found) > 1):
        shown = ", ".join((found or names)[:6]) or "nothing"
        raise InputError(f"{file} holds {shown}; name the member to read: {file}/{(found or ['MEMBER'])[0]}")
    return _of_one_kind(sorted(found, key=_by_number), str(file))


def lines(file: IO[bytes], where: str = "") -> Iterator[bytes]:
    """Yield the lines of a file that is open; `where` stands in front of what is wrong with it.

    Raises:
        InputError: one is longer than `LONGEST`.
    """
    number = 1
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise InputError(f"{where}line {number} has more than {LONGEST:,} bytes")
        yield line
        number += 1


def whole(content: Path | bytes) -> bytes:
    """Return all bytes of a file, or those that were packed in it.

    Raises:
        InputError: they are more than the memory that is free.
    """
    if isinstance(content, bytes):
        return content
    if (size := content.stat().st_size) > (free := free_main_memory()):
        raise InputError(f"its {size:,} bytes must be in memory at once, where {free:,} are free")
    return content.read_bytes()


def need_text(name: str, content: Path | bytes) -> None:
    """Make sure that a file is not of another kind than text.

    Raises:
        InputError: it begins as one does.
    """
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        head = file.read(32)
    if said := next((said for begin, said in _BINARY.items() if head.startswith(begin)), None):
        raise InputError(f"{name} is {said}")


def _hidden(name: str) -> bool:
    """Whether a name is not one of data: `.DS_Store`, `_SUCCESS`, `__MACOSX`."""
    return name.startswith((".", "_"))


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names by the numbers in them, part-9 before part-10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _member(opened: zipfile.ZipFile, name: str, room: int, file: Path) -> bytes:
    with opened.open(name) as member:
        content = _all(member, room, file)
    return _plain(content, room, file)


def _unpacked(file: Path) -> Source:
    with file.open("rb") as opened:
        if opened.read(2) != _GZIP:
            return Source(str(file), file)
    with gzip.open(file) as unpacked:
        return Source(str(file), _all(unpacked, most_unpacked(file.stat().st_size), file))


def _plain(content: bytes, room: int, file: Path) -> bytes:
    """Unpack what is packed within an archive, which is still to be at most `room` bytes."""
    if not content.startswith(_GZIP):
        return content
    with gzip.open(io.BytesIO(content)) as unpacked:
        return _all(unpacked, room, file)


def _all(packed: IO[bytes] | gzip.GzipFile, room: int, file: Path) -> bytes:
    """Read a packed file, as far as `room` bytes."""
    parts = []
    while chunk := packed.read(2**20):
        room -= len(chunk)
        if room < 0:
            raise InputError(f"{file} unpacks to far more than its size")
        parts.append(chunk)
    return b"".join(parts)

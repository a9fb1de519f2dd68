"""Files that are either whole or not there, and never run; folders that one process writes to at a time."""

import hashlib
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from landscape.errors import InputError
from landscape.parallel import ranks

_PART = ".part."
"""What names of files begin with that are being written."""

LARGEST = 2**28  # bytes that any packed file may unpack to
RATIO = 64  # times its size, that a larger one may


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` once the block has succeeded.

    A reader therefore never sees half a file, and an exception (or a kill) leaves the old one as it was.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PART}{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except OSError as error:  # of whatever the block calls: not every one has a number
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def drop_parts(folder: Path) -> None:
    """Remove what a kill left half-written in a folder that no other process writes to."""
    for part in folder.glob(f"{_PART}*"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; it is made, and removed if left empty.

    The lock (`flock`, on the folder itself, so that no file is left behind) dies with the process that holds
    it; of several ranks, the first does for all. What an earlier process left half-written is removed. On a
    system or a disk that cannot lock, the folder is free to all.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    if not ranks().first:
        ranks().gathered(None)  # the first holds it
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{folder} is in use: another process writes to it") from None
            except OSError:
                pass  # a disk that cannot lock
        drop_parts(folder)
        ranks().gathered(None)
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()  # only if it is empty
        os.close(handle)


def writable(folder: Path) -> Path:
    """Return `folder` if it is one to write to, or can be made: to be asked before long work. Makes nothing.

    Raises:
        InputError: it (or the nearest folder above it that exists) is a file, or not ours to write to.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InputError(f"cannot write to {folder}: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: no permission in {nearest}")
    return folder


def existing(path: Path, what: str) -> Path:
    """Return `path` if it is a readable, non-empty file; `what` names it in the error.

    Raises:
        InputError: there is no such file, it is a folder or a device, or it holds nothing.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a {what}")
    if path.exists() and not path.is_file():  # a pipe may never end
        raise InputError(f"{path} is no regular file; expected a {what}")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty; expected a {what}")
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"cannot read {what} {path}: {error}") from None
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of the numbers in their names, 9 before 10.

    Raises:
        InputError: there is no such folder, or no file in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of checkpoints")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} holds no checkpoints")
    parts = {path: re.split(r"(\d+)", path.name) for path in files}  # text and digits in turn
    return sorted(files, key=lambda p: [int(t) if i % 2 else t for i, t in enumerate(parts[p])])


def most_unpacked(size: int) -> int:
    """Return how many bytes a packed file of this size may unpack to: 256 MiB, or 64 times its size."""
    return max(LARGEST, RATIO * size)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors and plain values for `read_checkpoint`.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; an old file stays as it was.
    """
    import torch

    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # which is all that torch says of a disk
            raise InputError(f"cannot write {path}: the disk is full, or the file grew too large") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values that `torch.save` wrote, onto the CPU.

    Nothing in the file is run: what is more than tensors and plain values is refused. It must be as it was
    written, which its checksums tell, and hold all that its tensors claim.

    Raises:
        InputError: the file is missing, empty, damaged, in the format of before torch 1.6, or no such
            dictionary.
    """
    import torch

    from landscape.pickles import DryRun, check_extent

    with sound_archive(path) as (opened, archive, members):
        DryRun(members).run(archive.read(members["data.pkl"]))
        opened.seek(0)
        content = torch.load(opened, map_location="cpu", weights_only=True)
        check_extent(content)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} is not a checkpoint: expected a dictionary, found {type(content).__name__}")
    return content


@contextmanager
def sound_archive(path: Path) -> Iterator[tuple[BinaryIO, zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an archive of `torch.save` whose checksums are right: the file, and its members by their names.

    Raises:
        InputError: there is none, or the block fails in whatever way a file can make it fail.
    """
    from landscape.archives import open_archive

    existing(path, "checkpoint")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # torch says more of a bad file than one line
            path.open("rb") as opened,
            open_archive(opened) as archive,
        ):
            members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
            if archive.testzip() or len(members) < len(archive.namelist()):
                raise zipfile.BadZipFile("a member is not what was written")
            yield opened, archive, members
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors and plain values; a pickle that could run code is never loaded"
        ) from None
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a readable checkpoint: no whole archive of torch.save ({error}); "
            "a pickle without one is never loaded"
        ) from None
    except Exception as error:  # whatever damaged bytes provoke in the readers, the file cannot be used
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from error

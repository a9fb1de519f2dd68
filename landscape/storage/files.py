"""Files that are either whole or not there, and never run; folders that one process writes to at a time."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from landscape.errors import InputError
from landscape.runtime.ranks import ranks

HAS_FLOCK = find_spec("fcntl") is not None
_PART = ".part."
"""What names of files begin with that are being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` once the block has succeeded.

    A reader therefore never sees half a file, and an exception (or a kill) leaves the old one as it was.

    Raises:
        InputError: the folder cannot be made or written to, the disk is full, or the path is of a folder, a
            pipe or a device.
    """
    # The name is known before there is a file: an interrupt at any instant leaves none.
    suffix = path.suffix if len(path.suffix) < 16 else ""  # a name has 255 bytes
    begins = f"{_PART}{path.name[:32]}."
    temporary, handle = path.parent / f"{begins}{token_hex(8)}{suffix}", None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plain_file(path, "file")  # a device, as root, would be replaced too
        if HAS_FLOCK:
            drop_parts(path.parent, begins)
            handle = _created(temporary)
        else:  # Windows, where nothing that is open is replaced
            temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        with temporary.open("rb+") as written:  # Windows flushes none that is only read
            os.fsync(written.fileno())
        temporary.chmod(_mode(path))  # until now only its owner could read it
        temporary.replace(path)
    except OSError as error:  # of whatever the block calls: not every one has a number
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # a folder that was never there, or may not be read
            temporary.unlink()
        if handle is not None:
            os.close(handle)


def write_text(path: Path, text: str) -> Path:
    """Replace a file by a text in UTF-8, as `replacing` does, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def _created(path: Path) -> int:
    """Create a file and lock it, so that nobody drops it; return its handle.

    Another process may have dropped it before it was locked. Then it is created anew.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _flock(handle)
        if path.exists():
            return handle
        os.close(handle)


def _mode(path: Path) -> int:
    """Return the permissions of a file that is replaced, and those of any new file else."""
    if path.is_file() and not path.is_symlink():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def drop_parts(folder: Path, begins: str = _PART) -> None:
    """Remove what a kill left half-written in a folder, and nothing that a process still writes.

    Args:
        folder: where it lies.
        begins: what its names begin with.
    """
    for part in folder.glob(f"{escape(begins)}*"):
        with suppress(OSError):  # it is being written, or gone
            if not HAS_FLOCK or part.is_symlink() or not part.is_file():
                part.unlink()  # Windows refuses where it is open
                continue
            handle = os.open(part, os.O_RDONLY)
            try:
                _flock(handle)
                part.unlink()
            finally:
                os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; it is made, and removed if left empty.

    The lock (`flock`) dies with the process that holds it; of several ranks, the first holds it for all. What
    an earlier process left half-written is removed. On a disk that cannot lock, the folder is free to all.
    The lock is on the folder itself: one of `filelock` is a file, which a kill leaves behind. On Windows,
    which locks no folders, it is a file too.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    if not ranks().first:
        ranks().gathered(None)  # the first holds it
        yield
        return
    try:
        handle, made = _made_and_held(folder)
    except BlockingIOError:
        raise InputError(f"{folder} is in use: another process writes to it") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        drop_parts(folder)
        ranks().gathered(None)
        yield
    finally:
        _leave(folder, handle, made)


def _leave(folder: Path, handle: int, made: list[Path]) -> None:
    """Unlock a folder, and remove those that were made; one that is not empty, or is held, stays."""
    with suppress(OSError):
        if (lock := _lock_of(folder)) != folder:
            os.close(handle)  # Windows removes nothing that is open
            lock.unlink()
            for path in made:
                path.rmdir()
            return
        for path in made:
            held = handle if path == folder else _held(path)
            try:
                path.rmdir()
            finally:
                if held != handle:
                    os.close(held)
    with suppress(OSError):  # it is closed already
        os.close(handle)


def _made_and_held(folder: Path) -> tuple[int, list[Path]]:
    """Make a folder and lock it; return its handle, and which folders were made, the lowest first.

    Another process may remove the folder, as it leaves it, between any two steps of this. A lock on what is
    no longer at the path keeps nobody out, so that it is taken anew.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    for _ in range(100):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            handle = _held(folder)
            try:
                if os.path.samestat(os.fstat(handle), _lock_of(folder).stat()):
                    return handle, made
            except FileNotFoundError:
                pass
            os.close(handle)
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again")


def _held(folder: Path) -> int:
    """Open and lock a folder, and return its handle, which holds the lock until it is closed."""
    lock = _lock_of(folder)
    handle = os.open(lock, os.O_RDONLY if lock == folder else os.O_RDWR | os.O_CREAT)
    try:
        if lock == folder:
            _flock(handle)
        else:
            _lock_byte(handle)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _lock_of(folder: Path) -> Path:
    """Return what is locked: the folder, or where that cannot be (on Windows) a file in it."""
    return folder if HAS_FLOCK else folder / ".lock"


def _flock(handle: int) -> None:
    """Lock an open file or folder, where the disk can.

    Raises:
        BlockingIOError: another process holds it.
    """
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a disk that cannot lock


def _lock_byte(handle: int) -> None:
    """Lock the first byte of an open file, as Windows can.

    Raises:
        BlockingIOError: another process holds it.
    """
    msvcrt: Any = import_module("msvcrt")
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, "another process holds it") from None


def own(folder: Path, *names: str) -> Path:
    """Return `folder` if none of these names in it is a link, through which something else would be changed.

    Raises:
        InputError: one is a link, a pipe or a device.
    """
    for name in names:
        if not (folder / name).is_dir():
            plain_file(folder / name, "file")
        if (path := folder / name).is_symlink():
            raise InputError(f"{path} is a link; remove it, since what it leads to would be changed")
    return folder


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


def plain_file(path: Path, what: str) -> None:
    """Make sure that what is at a path, if anything, is a file.

    Raises:
        InputError: it is a folder, a pipe or a device, or cannot be looked at.
    """
    try:
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    except OSError as error:  # a name that is too long, a folder that is not ours
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
    if is_folder:
        raise InputError(f"{path} is a folder, not a {what}")
    if is_other:  # a pipe may never end
        raise InputError(f"{path} is not a regular file; expected a {what}")


def existing(path: Path, what: str, most: int | None = None) -> Path:
    """Return `path` if it is a readable, non-empty file; `what` names it in the error.

    Args:
        path: the file.
        what: what it is called in the error.
        most: maximum size in bytes.

    Raises:
        InputError: there is no such file, it is a folder or a device, or it holds nothing or too much.
    """
    plain_file(path, what)
    try:
        if most is not None and (size := path.stat().st_size) > most:
            raise InputError(f"{path} has {size:,} bytes; expected a {what} of at most {most:,}")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty; expected a {what}")
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"cannot read {what} {path}: {error}") from None
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What Windows lacks or forbids, simulated: no `flock`, no folder is opened, nothing open is replaced."""

import fcntl
import os
import sys
import types
from pathlib import Path

import pytest

from landscape import InputError
from landscape.storage import apart, files
from tests.readers import doubled


def locking(handle, mode, count):
    assert (mode, count) == (2, 1)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


@pytest.fixture
def windows(monkeypatch):
    opened, synced, replaced, unlinked = os.open, os.fsync, Path.replace, Path.unlink

    def open_(path, flags, *mode, **rest):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode, **rest)

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        synced(handle)

    def closed(act):
        def check(path, *rest, **how):
            if str(path) in map(_target, os.listdir("/proc/self/fd")):
                raise PermissionError(32, "The process cannot access the file")
            return act(path, *rest, **how)

        return check

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", closed(replaced))
    monkeypatch.setattr(Path, "unlink", closed(unlinked))
    monkeypatch.setattr(files, "HAS_FLOCK", False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking))


def _target(number):
    """What a handle is of, unless it has been closed since it was listed, as the one that listed them was."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return None


@pytest.mark.usefixtures("windows")
def test_a_folder_is_held_made_and_removed(tmp_path):
    folder = tmp_path / "a" / "b"
    with files.locked(folder):
        assert folder.is_dir()
        with pytest.raises(InputError, match="in use"), files.locked(folder):
            pass
    assert not (tmp_path / "a").exists()
    with files.locked(folder):
        (folder / "x.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["x.txt"]


@pytest.mark.usefixtures("windows")
def test_a_file_is_replaced_whole_and_none_that_is_written_is_dropped(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("one", "two"):
        with files.replacing(path) as temporary:
            temporary.write_text(text, "utf-8")
        assert path.read_text("utf-8") == text
    (tmp_path / ".part.left").touch()
    with (tmp_path / ".part.open").open("w"):
        files.drop_parts(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {"a.txt", ".part.open"}


def test_files_are_read_apart_without_limits(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    apart._limit(1)
    process = apart.Apart()
    assert len(list(process.read(doubled, b"1"))) == 2
    process.end()

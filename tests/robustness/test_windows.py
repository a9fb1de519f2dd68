"""What Windows lacks or forbids, simulated: no `flock`, no folder is opened, nothing open is replaced."""

import fcntl
import io
import os
import signal
import sys
import types
from pathlib import Path

import pytest

from landscape import InputError
from landscape.storage import apart, files
from tests.conftest import RUN
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


@pytest.fixture
def other_system(windows, monkeypatch):
    """What macOS lacks too; texts end lines with two signs, in another encoding if none is said."""
    opened, made = io.open, os.mkdir

    def named(path):
        for part in Path(os.fspath(path)).parts[1:]:
            if set(part) & set('<>:"|?*\\') or part[-1] in ". ":
                raise OSError(22, "The filename, directory name, or volume label syntax is incorrect")

    def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **rest):
        if isinstance(file, int):
            return opened(file, mode, buffering, encoding, errors, newline, **rest)
        if str(file).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory")
        if set(mode) & set("wxa"):
            named(file)
        if "b" not in mode:
            encoding = "cp1252" if encoding in (None, "locale") else encoding
            newline = "\r\n" if newline is None and set(mode) & set("wxa") else newline
        return opened(file, mode, buffering, encoding, errors, newline, **rest)

    def mkdir(path, *rest, **how):
        named(path)
        return made(path, *rest, **how)

    monkeypatch.setattr(io, "open", open_)  # of pathlib
    monkeypatch.setattr("builtins.open", open_)
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setitem(sys.modules, "resource", None)
    for name in ("sched_getaffinity", "sysconf", "fork", "symlink"):
        monkeypatch.delattr(os, name)
    for name in ("SIGKILL", "SIGHUP", "SIGPIPE"):
        monkeypatch.delattr(signal, name)


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


@pytest.mark.slow
@pytest.mark.usefixtures("other_system")
def test_a_run_is_trained_resumed_measured_and_reported(data_file, tmp_path, landscape, answer):
    run = tmp_path / "run"
    train = "train", "--data", data_file, "--out", run, *RUN, "--monitor", 2
    first = answer(*train, "--epochs", 2)
    assert answer(*train, "--epochs", 4, "--resume")["best_epoch"] >= first["best_epoch"]
    measure = "--ckpt", run / "best.pt", "--users", 20, "--device", "cpu"
    for command in (
        ("report", run),
        ("hessian", *measure, "--top", 1),
        ("surface", *measure, "--grid", 3, "--out", tmp_path / "surface"),
        ("surface", *measure, "--grid", 3, "--out", tmp_path / "surface"),  # in place of the first
        ("sharpness", *measure, "--measure", "sam", "--out", tmp_path / "table.csv"),
        ("recommend", "--ckpt", run / "best.pt", "--out", tmp_path / "items.csv"),
    ):
        code, _, err = landscape(*command)
        assert code == 0, err
    assert not list(tmp_path.rglob(".part.*"))
    assert not list(tmp_path.rglob(".lock"))
    assert "\r\r" not in (tmp_path / "table.csv").read_bytes().decode()

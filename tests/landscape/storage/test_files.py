"""Folders that one process writes to, and disks that are full."""

import fcntl
import subprocess
import sys
from contextlib import ExitStack
from shutil import copytree

import numpy as np
import pytest

from landscape import InputError, load
from landscape.storage.files import locked
from tests.conftest import ROOT, RUN
from tests.forked import ended

HOLD = """
import sys, time
from pathlib import Path
from landscape.storage.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    folder = tmp_path / "held"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"held\n"
    yield folder, holder
    holder.kill()
    holder.communicate()


def test_a_folder_is_one_processes_and_free_when_that_dies(held, landscape, data_file):
    folder, holder = held
    train = ("train", "--data", data_file, "--out", folder, *RUN)
    code, out, err = landscape(*train)
    assert (code, out) == (2, "")
    assert err == f"landscape: {folder} is in use: another process writes to it\n"
    (folder / ".part.best.pt.x.pt").write_bytes(b"half of it")
    holder.kill()
    holder.wait()
    assert landscape(*train)[0] == 0
    assert not list(folder.glob(".part.*"))


@pytest.mark.parametrize("name", ["surface", "compare", "hessian", "sharpness", "sweep"])
def test_every_command_that_fills_a_folder_holds_it(held, landscape, runs, data_file, name):
    folder, _ = held
    of = {"sweep": ("--data", data_file, "--vary", "seed=0")}
    given = of.get(name, ("--ckpt", runs / "sasrec" / "best.pt"))
    code, out, err = landscape(name, *given, "--out", folder)
    assert (code, out, err) == (2, "", f"landscape: {folder} is in use: another process writes to it\n")


def test_a_folder_is_made_and_removed_again_if_nothing_came(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder):
        assert folder.is_dir()
    assert not (tmp_path / "a").exists()
    with locked(folder):
        (folder / "x.txt").touch()
    assert (folder / "x.txt").exists()


def test_a_lock_is_not_shared_within_a_process_either(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="in use"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("again", [True, False])
def test_a_folder_that_is_removed_while_it_is_taken_lets_one_process_in(tmp_path, monkeypatch, again):
    """Another process leaves it, empty, after it was opened and before it is locked; a third may make it."""
    folder, lock = tmp_path / "a" / "b", fcntl.flock

    def lock_late(handle, how):
        if not left:
            left.append(folder)
            folder.rmdir()
            if again:
                folder.mkdir()
        lock(handle, how)

    left = []
    monkeypatch.setattr(fcntl, "flock", lock_late)
    with locked(folder):
        assert left
        with pytest.raises(InputError, match="in use"), locked(folder):
            pass
        assert folder.is_dir()


def test_a_folder_that_another_process_holds_is_not_removed_with_what_was_in_it(tmp_path):
    above = tmp_path / "a"
    with ExitStack() as other:
        with locked(above / "b"):
            other.enter_context(locked(above))
        assert above.is_dir()
        with pytest.raises(InputError, match="in use"), locked(above):
            pass
    assert above.is_dir()  # it was there when the second came


def test_a_folder_that_cannot_stay_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (tmp_path / "a").rmdir())
    with pytest.raises(InputError, match="removed again and again"), locked(tmp_path / "a"):
        pass


ENTER = """
import signal, sys, time
from pathlib import Path
from landscape import InputError
from landscape.storage.files import locked
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
end, entered = time.monotonic() + 1.5, 0
signal.alarm(300)
while time.monotonic() < end or entered < 4:  # each has its turns, on a busy machine too
    try:
        with locked(folder):
            inside.mkdir()  # of two at once, one finds it there
            inside.rmdir()
            entered += 1
    except InputError:
        pass
print(entered)
"""


def test_processes_that_come_and_go_are_never_in_a_folder_together(tmp_path):
    given = [sys.executable, "-c", ENTER, tmp_path / "a" / "b", tmp_path / "inside"]
    processes = [subprocess.Popen(given, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(3)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert min(map(int, said)) >= 4


@pytest.mark.parametrize("room", [300, 2500, 20_000])
def test_a_full_disk_is_one_line_and_leaves_the_last_good_file(runs, data_file, tmp_path, room):
    """In whichever file the disk is full: the log, a checkpoint."""
    out, said = copytree(runs / "sasrec", tmp_path / "run"), tmp_path / "said.txt"
    train = ["train", "--data", data_file, "--out", out, *RUN]
    before = {name: (out / name).read_bytes() for name in ("best.pt", "best.safetensors", "last.pt")}
    more = [*train, "--epochs", 6, "--resume"]
    ended(more, said, room, code=2)
    assert said.read_text("utf-8").startswith("landscape: cannot write ")
    assert said.read_text("utf-8").count("\n") == 1
    assert {name: (out / name).read_bytes() for name in before} == before
    ended(more, said)


@pytest.mark.slow
def test_a_full_disk_under_a_surface_keeps_the_points_that_are_whole(runs, tmp_path):
    said = tmp_path / "said.txt"
    surface = ["surface", "--ckpt", runs / "sasrec" / "best.pt", "--dim", 1, "--grid", 101, "--users", 8]
    ended([*surface, "--out", tmp_path / "whole"], said)
    ended([*surface, "--out", tmp_path / "out"], said, 2000, code=2)
    assert said.read_text("utf-8").startswith(f"landscape: cannot write {tmp_path}/out/sasrec.points.jsonl: ")
    ended([*surface, "--out", tmp_path / "out"], said)
    found, expected = (load(tmp_path / name / "sasrec.surface.npz") for name in ("out", "whole"))
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    assert found.settings["reused"] > 10

"""Ctrl-C at any instant, and a disk that is full: one line, its exit code, nothing lost or half-written.

Some commands in the suite, once or twice; in `make soak` all of them, fifty times (STOPS). A full disk is a
limit on the size of every file (RLIMIT_FSIZE) and, where this process may mount one, a small tmpfs. Commands
that `test_kills.py` does not kill are killed here.
"""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import landscape as ll
from samrec.checkpoint import load
from tests.forked import awaited, ended, started
from tests.robustness.test_every_command import RUN, SET
from tests.robustness.test_kills import COMMANDS as KILLED
from tests.robustness.test_kills import whole
from tests.samrec.training.test_training import same_weights

MANY = int(os.environ.get("STOPS", "50"))
BOTH = "--ckpt A --ckpt B --device cpu --users 24"
COMMANDS = {
    "train": f"train --data d.txt --out OUT {RUN} --epochs 12 --save-every 4 --resume",
    "sweep": f"sweep --data d.txt --vary seed=0,1 --out OUT --device cpu {SET}",
    "surface": f"surface {BOTH} --dim 1 --grid 41 --out OUT",
    "hessian": f"hessian {BOTH} --top 1 --tol .1 --trace --out OUT",
    "sharpness": f"sharpness {BOTH} --measure sam --measure average --out OUT",
    "compare": f"compare {BOTH} --grid 2 --top 1 --no-density --out OUT",
    "export": "export s/A.surface.npz OUT/a.h5",
    "report": "report OUT",
    "recommend": "recommend --ckpt A --out OUT/r.csv",
}
LINE = 512  # bytes: what the command says goes to a file under the same limit
QUICK = ("train", "sharpness", "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, two trained runs, a surface and a comparison; the current folder, since paths are relative."""
    made, before = tmp_path_factory.mktemp("stops"), Path.cwd()
    rows = (f"{u} {' '.join(str(1 + (u + k * (1 + u % 3)) % 9) for k in range(6))}\n" for u in range(1, 25))
    (made / "d.txt").write_text("".join(rows))
    os.chdir(made)
    said = made / "said.txt"
    for out, method in (("A", "sasrec"), ("B", "samrec")):
        ended(["train", "--data", "d.txt", "--out", out, "--method", method, *RUN.split()], said)
    ended(f"surface {BOTH} --dim 1 --grid 3 --out s".split(), said)
    yield made
    os.chdir(before)


@pytest.fixture(scope="module")
def compared(folder):
    ended(COMMANDS["compare"].replace("OUT", "c").split(), folder / "said.txt")
    return folder / "c"


def same(a, b):
    """Check that two folders hold the same results."""
    assert names(a) == names(b)
    for name in names(b):
        first, second = a / name, b / name
        if name.endswith(".npz"):
            results = ll.load(first), ll.load(second)
            for key, value in vars(results[1]).items():
                if isinstance(value, np.ndarray) and "second" not in key:
                    np.testing.assert_allclose(vars(results[0])[key], value, rtol=1e-4, atol=1e-6)
        elif name.endswith((".pt", ".safetensors")):
            assert same_weights(load(first), load(second))
        elif name.endswith(".html"):
            assert first.read_text("utf-8").rstrip().endswith("</html>")
        elif name.endswith((".csv", ".h5")):
            assert first.read_bytes() == second.read_bytes()


def names(folder):
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "log.txt"
    )


def sound(out, unbroken, parts=False):
    """Check that nothing is half-written, and nothing is there that a whole run does not leave.

    Args:
        parts: what was being written may still be there, under a name of its own, until the next run.
    """
    whole(out)
    found = names(out) if out.exists() else []
    assert parts or not [name for name in found if ".part." in name]
    for name in set(found) & set(names(unbroken)):
        if name.endswith((".csv", ".h5")):
            assert (out / name).read_bytes() == (unbroken / name).read_bytes()
        elif name.endswith(".html"):
            assert (out / name).read_text("utf-8").rstrip().endswith("</html>")


def one_line(said, begins):
    text = said.read_text("utf-8")
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("landscape: ")]
    slow = r"landscape: (warning: |.* \d+/\d+ · )"  # a line of progress, every 30 s
    found = [line for line in lines if not re.match(slow, line)]
    assert len(found) == 1, text
    (line,) = found
    assert line.startswith(begins), text


def interrupted(arguments, said, seconds, draw):
    """Interrupt a command once; return whether it had not ended."""
    said.unlink(missing_ok=True)
    process = started(arguments, said)
    while not said.exists() and process.is_alive():
        time.sleep(0.001)
    process.join(draw.uniform(0, seconds))
    if process.is_alive():
        os.kill(process.pid, signal.SIGINT)
    code = awaited(process)
    if code == 0:
        return False
    assert code == 130, said.read_text("utf-8")
    one_line(said, ("landscape: interrupted", "landscape: stopped by SIGINT"))
    return True


def killed(arguments, said, seconds, draw):
    """Kill a command once; return whether it had not ended."""
    process = started(arguments, said)
    process.join(draw.uniform(0, seconds))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), said.read_text("utf-8")
    return process.exitcode != 0


def filled(arguments, said, largest, draw):
    """Run a command none of whose files may grow past some size; return whether it failed."""
    process = started(arguments, said, draw.randrange(LINE, max(largest, 2 * LINE)))
    code = awaited(process)
    if code == 0:
        return False
    assert code == 2, said.read_text("utf-8")
    one_line(said, "landscape: ")
    return True


def stop(name, folder, compared, times, how):
    """Stop a command so many times; now and then it ends, as if it had not been stopped."""
    draw, said = random.Random(f"{name} {how}"), folder / f"{name}.txt"

    def place(number):
        out = folder / f"{name}-{how}-{number}"
        if name == "report":
            shutil.copytree(compared, out)
        return out, COMMANDS[name].replace("OUT", str(out)).split()

    unbroken, arguments = place("unbroken")
    seconds = ended(arguments, said)
    largest = max(p.stat().st_size for p in unbroken.rglob("*") if p.is_file())
    stopped = {
        "SIGINT": lambda: interrupted(arguments, said, seconds, draw),
        "SIGKILL": lambda: killed(arguments, said, seconds, draw),
        "full": lambda: filled(arguments, said, largest, draw),
    }[how]
    stops = attempts = 0
    while stops < times:
        out, arguments = place(attempts)
        tries = 0
        while stops < times and tries < 3:
            tries += 1
            stops += stopped()
            sound(out, unbroken, parts=how == "SIGKILL")
        ended(arguments, said)
        same(out, unbroken)
        shutil.rmtree(out)
        attempts += 1
    return stops


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "full"])
@pytest.mark.parametrize("name", QUICK)
def test_a_command_is_stopped(name, how, folder):
    stop(name, folder, None, 2 if name == "train" else 1, how)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["SIGINT", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_stopped_for_long(name, how, folder, compared):
    assert stop(name, folder, compared, MANY, how) == MANY


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in KILLED])
def test_a_command_is_killed_for_long(name, folder, compared):
    assert stop(name, folder, compared, MANY, "SIGKILL") == MANY


@contextmanager
def small_disk(path):
    """A disk of 64 kB at a path; give a function that sets its size. Skip where nothing may be mounted."""
    path.mkdir()

    def mount(options):
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        return shutil.which("mount") and not subprocess.run(call, capture_output=True, check=False).returncode

    if not mount("size=64k"):
        pytest.skip("this process may not mount a disk")
    try:
        yield lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_is_full_for_long(name, folder, compared, tmp_path):
    draw, said, unbroken = random.Random(name), tmp_path / "said.txt", tmp_path / "unbroken"
    if name == "report":
        shutil.copytree(compared, unbroken)
    ended(COMMANDS[name].replace("OUT", str(unbroken)).split(), said)
    needed = sum(-p.stat().st_size // 4096 * -4096 for p in unbroken.rglob("*"))
    stops, page = 0, resource.getpagesize()
    with small_disk(tmp_path / "disk") as resize:
        out = tmp_path / "disk" / "out"
        (tmp_path / "disk" / "other").write_bytes(bytes(page))  # a size of 0 would be none
        arguments = COMMANDS[name].replace("OUT", str(out)).split()
        while stops < MANY:
            shutil.rmtree(out, ignore_errors=True)
            resize(2**26)
            if name == "report":
                shutil.copytree(compared, out)
            held = sum(-p.stat().st_size // page * -page for p in (tmp_path / "disk").rglob("*"))
            resize(held + draw.randrange(0, max(page, needed), page))
            code = awaited(started(arguments, said))
            if code:
                stops += 1
                assert code == 2, said.read_text("utf-8")
                one_line(said, "landscape: ")
            sound(out, unbroken)
            resize(2**26)
            if draw.random() < 0.3 or not code:
                ended(arguments, said)
                same(out, unbroken)

"""A reader that crashes, never ends or takes all memory is one line, and the next file is read."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from landscape import InputError
from landscape.storage import apart as module
from landscape.storage.apart import Apart, apart
from landscape.surface.export import read_hdf5
from samrec.data import parquet
from samrec.data.readers import read
from tests.conftest import ROOT
from tests.readers import crashing, doubled, endless, failing, greedy, refusing, talkative, waiting

FEW = b"1234"
CRASH = "needs too much memory or time, or crashes the reader"


@pytest.fixture(scope="module")
def process():
    with apart() as found:
        yield found


CASES = {
    "abort": (crashing, [int(signal.SIGABRT)], ValueError, CRASH),
    "segmentation fault": (crashing, [int(signal.SIGSEGV)], ValueError, CRASH),
    "memory": (greedy, [], ValueError, "MemoryError"),
    "output": (endless, [], InputError, "it unpacks to far more than its size"),
    "refused": (refusing, [], InputError, "row 3 is not a row"),
    "failed": (failing, [], ValueError, "'a"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_reader_does_is_an_error_here_and_the_next_file_is_read(case, process):
    reader, arguments, error, said = CASES[case]
    with pytest.raises(error, match=said):
        list(process.read(reader, FEW, *arguments))
    assert [bytes(part) for part in process.read(doubled, FEW)] == [FEW, FEW * 2]


def test_a_disk_that_does_not_answer_is_waited_for_no_longer_than_a_reader_may_compute(process, monkeypatch):
    monkeypatch.setattr(module, "LEISURE", 1 / module.PATIENCE)
    with pytest.raises(ValueError, match=CRASH):
        list(process.read(waiting, FEW))
    monkeypatch.undo()
    assert [bytes(part) for part in process.read(doubled, FEW)] == [FEW, FEW * 2]


def test_limits_of_the_system_that_are_lower_are_kept():
    """Under `ulimit -v`, or a batch system's limits, nothing may be raised; files are read all the same."""
    code = (
        "import resource\n"
        "for limit, most in ((resource.RLIMIT_AS, 2**30), (resource.RLIMIT_CPU, 30)):\n"
        "    resource.setrlimit(limit, (most, most))\n"
        "from landscape.storage.apart import Apart; from tests.readers import doubled\n"
        "print(*map(bytes, Apart().read(doubled, b'1')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert found.stdout == b"b'1' b'11'\n", found.stderr


def test_what_a_library_prints_does_not_stand_among_the_answers(process):
    assert [bytes(part) for part in process.read(talkative, FEW)] == [FEW]


def test_an_answer_that_nobody_waits_for_is_not_taken_for_the_next(process):
    next(process.read(doubled, FEW))
    assert [bytes(part) for part in process.read(doubled, b"56")] == [b"56", b"5656"]


def test_a_process_that_does_not_end_by_itself_is_ended(monkeypatch):
    """One that still starts on a busy machine: left behind, it was a warning in whatever came next."""
    monkeypatch.setattr(module, "SERVE", "import time; time.sleep(600)")
    monkeypatch.setattr(module, "ENDING", 2)
    own = Apart()
    child = own._started()
    own.end()
    assert child.returncode == -signal.SIGKILL


def test_the_process_ends_with_its_block_or_with_its_parent():
    own = Apart()
    list(own.read(doubled, FEW))
    child = own._process
    own.end()
    assert child.returncode == 0
    code = (
        "import os, signal; from landscape.storage.apart import Apart; from tests.readers import doubled\n"
        "own = Apart(); list(own.read(doubled, b'1')); print(own._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, check=False)
    state, until = Path(f"/proc/{int(killed.stdout)}/stat"), time.monotonic() + 300
    with suppress(FileNotFoundError, ProcessLookupError):  # has ended, and somebody has asked
        while state.read_text("ascii").split()[2] != "Z":  # has ended, and nobody has asked
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_parquet_file_that_claims_millions_of_rows(tmp_path):
    path = tmp_path / "bomb.parquet"
    rows = pl.repeat(1, 36_000_000, eager=True)  # 288 MB in a file of some kB
    pl.DataFrame({"user": rows, "item": rows}).write_parquet(path)
    assert path.stat().st_size < 2**20
    with pytest.raises(InputError, match=r"bomb\.parquet(: it unpacks to far more|.* too much memory)"):
        read(path)


def test_columns_of_every_kind_come_back_as_they_are(tmp_path):
    dates = pl.Series([0, 1, None], dtype=pl.Datetime("us", "UTC"))
    gaps = pl.Series([1, None, 3], dtype=pl.Int32)
    frame = pl.DataFrame(
        {"a": [1, 2, 3], "b": ["x", "é", ""], "c": dates, "d": gaps, "e": [0.5, -0.0, 1e300]}
    )
    frame = frame.with_columns(pl.Series("f", [1, 2, 3], pl.UInt8), pl.Series("g", [True, False, True]))
    frame.write_parquet(tmp_path / "a.parquet")
    for content in (tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes()):
        parts = iter(list(parquet.columns(content, frame.columns)))
        found = pl.DataFrame({name: parquet.column(next(parts), next(parts)) for name in frame.columns})
        assert found.equals(frame)
        assert found.schema == frame.schema


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"compression": "lzf"}, "train_loss is packed by a filter other than gzip and shuffle"),
        ({"fletcher32": True}, "train_loss is packed by a filter other than gzip and shuffle"),
        ({"chunks": (2**25,), "maxshape": (None,)}, "train_loss has chunks of more than 134,217,728 bytes"),
        ({"compression": "gzip", "shuffle": True}, None),
    ],
    ids=str,
)
def test_filters_and_chunks_of_hdf5_are_few_and_small(how, said, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = np.arange(3.0)
        file.create_dataset("train_loss", data=np.arange(3.0), **how)
    if said is None:
        np.testing.assert_array_equal(read_hdf5(path).losses, np.arange(3.0))
        return
    with pytest.raises(InputError, match=said):
        read_hdf5(path)

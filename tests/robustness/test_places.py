"""Pipes, folders, devices, links and endless files where a file is expected: one line, no change."""

import gzip
import os
import subprocess
import sys
import warnings
import zipfile

import pytest

from landscape import InputError, weights_of
from landscape.curvature.history import read_history
from landscape.report.report import read_index
from landscape.storage.files import existing, replacing
from landscape.surface.point_log import PointLog
from samrec.cli.recommend import _ids_in
from samrec.config import configure, read_settings
from samrec.data import record_count, sources
from samrec.data.attributes import read_attributes
from samrec.data.interactions import Interactions
from samrec.data.readers import read
from samrec.training.log import read_log
from samrec.training.loop import train
from tests.conftest import ROOT

HISTORIES = Interactions.from_histories([[1, 2, 3]], "here")


def pipe(path):
    os.mkfifo(path)


def link(path):
    path.symlink_to("/dev/zero")


def endless(path):
    with path.open("wb") as file:
        file.truncate(100 * 2**30)  # of holes: it takes no room


READERS = {
    "settings": ("config.toml", read_settings),
    "attributes": ("a.json", lambda path: read_attributes(path, HISTORIES)),
    "log": ("metrics.jsonl", read_log),
    "comparison": ("compare.json", lambda path: read_index(path.parent)),
    "index": ("model.safetensors.index.json", weights_of),
    "monitor": ("monitor.jsonl", read_history),
    "users": ("users.txt", _ids_in),
}
PLACES = {pipe: "is not a regular file", link: "is not a regular file", endless: "107,374,182,400 bytes"}


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_not_read(name, make, tmp_path):
    file, read = READERS[name]
    make(tmp_path / file)
    with pytest.raises(InputError, match=PLACES[make]):
        read(tmp_path / file)


@pytest.mark.parametrize("after", [b"", b"1 2 3\n", b"user,item\n1,2\n", b'{"user": 1, "item": 2}\n', b"["])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.data", "a.jsonl", "a.dat", "a.parquet", "a.zip"])
def test_data_that_never_end_are_not_read_to_their_end(name, after, tmp_path, monkeypatch):
    for module in (sources, record_count):
        monkeypatch.setattr(module, "LONGEST", 2**24)
    (tmp_path / name).write_bytes(after)
    with (tmp_path / name).open("ab") as file:
        file.truncate(2**40)  # of holes
    with pytest.raises(InputError) as said, warnings.catch_warnings(action="ignore"):
        read(tmp_path / name)
    assert len(str(said.value)) <= 300


def test_names_that_no_file_can_have(tmp_path):
    for name in ("a" * 5000, "a" * 256, "a\0b"):
        with pytest.raises(InputError, match="cannot read file"):
            existing(tmp_path / name, "file")


def test_what_is_packed_twice_has_the_room_of_what_is_packed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "most_unpacked", lambda _: 2**20)
    row = b"user,item\n" + b"1,2\n" * 2**17
    for members in ({"a.csv.gz": gzip.compress(row * 4)}, {"a.csv": row, "b.csv": row, "c.csv": row}):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(InputError, match="unpacks to far more than its size"):
            read(tmp_path / "a.zip" / "*.csv*")


def test_points_of_another_surface_and_those_behind_a_link_are_not_cut(tmp_path):
    cut, path = b'{"mine": 1}\n{"mine', tmp_path / "a.jsonl"
    path.write_bytes(cut)
    PointLog(path, "abc", 1)
    assert path.read_bytes() == cut
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(InputError, match=r"link\.jsonl is a link"):
        PointLog(tmp_path / "link.jsonl", "abc", 1)
    path.write_bytes(b'{"fingerprint": "abc"}\n[0.0, 1.0]\n[1.0, 2')
    assert PointLog(path, "abc", 1).known == {(0.0,): 1.0}
    assert path.read_bytes() == b'{"fingerprint": "abc"}\n[0.0, 1.0]\n'


def test_training_appends_to_no_pipe(tmp_path):
    (tmp_path / "d.txt").write_text("1 1 2 3 4 5\n")
    (tmp_path / "run").mkdir()
    pipe(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl is not a regular file"):
        train(configure({"data": str(tmp_path / "d.txt")}), tmp_path / "run", "cpu")


@pytest.mark.parametrize("make", [pipe, link, lambda path: path.mkdir()], ids=["pipe", "device", "folder"])
def test_nothing_but_a_file_is_replaced(make, tmp_path):
    path = tmp_path / "out.csv"
    make(path)
    before = os.lstat(path)
    with pytest.raises(InputError, match=r"out\.csv is (not a regular file|a folder)"), replacing(path):
        pass
    assert os.path.samestat(before, os.lstat(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    with replacing(tmp_path / "out") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "out").read_text() == "new"
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("name", ["a" * 250, "a." + "b" * 240, "\udcff\udcfe.csv", "ä" * 120 + ".csv"])
def test_any_name_that_a_file_can_have(name, tmp_path):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"
    assert os.listdir(tmp_path) == [name]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(0o600)
    with replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


NONE = (
    "landscape: x holds no comparison (no compare.json) and no monitor.jsonl; "
    "make a comparison with: landscape compare --out x"
)
GONE = "landscape: the working directory has been removed; change to another one"


@pytest.mark.parametrize(("gone", "said"), [([], NONE), (["gone"], GONE)])
def test_an_unknown_backend_and_a_folder_that_is_gone(gone, said, tmp_path):
    code = (
        "import os, sys; sys.argv[1:] and os.rmdir(os.getcwd()); from landscape.__main__ import main\n"
        "sys.argv = ['landscape', 'report', 'x']; main()"
    )
    (tmp_path / "gone").mkdir()
    found = subprocess.run(
        [sys.executable, "-c", code, *gone],
        cwd=tmp_path / "gone",
        env=os.environ | {"MPLBACKEND": "nonsense", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.splitlines() == [said]

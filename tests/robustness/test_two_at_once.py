"""Two commands on one target: one wins, and the other says so or is as good; nothing is mixed in silence."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from landscape import InputError
from landscape.report import compare as comparing
from landscape.report import report
from landscape.report.compare import Measurements, compare_checkpoints
from landscape.report.report import PAGE, read_index, render, result_path, write_index
from landscape.storage import files
from landscape.storage.files import drop_parts, locked, replacing
from landscape.surface.export import export
from landscape.tasks import TaskOptions
from samrec.data.catalog import CATALOG, fetch
from tests.results import folder_of, line, plane
from tests.streams import nothing_drawn


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Let pictures be none: what is told here, a page says in words."""
    monkeypatch.setattr(Figure, "savefig", nothing_drawn)


def test_what_a_kill_left_of_a_file_is_dropped_when_that_is_written_again(tmp_path):
    left, other = tmp_path / ".part.a[1].txt.1f.txt", tmp_path / ".part.b.txt.1f.txt"
    for part in (left, other):
        part.write_text("half of it")
    with replacing(tmp_path / "a[1].txt") as temporary:
        temporary.write_text("of the first")
        with replacing(tmp_path / "a[1].txt") as second:  # which leaves the first alone
            second.write_text("whole")
    assert (tmp_path / "a[1].txt").read_text() == "of the first"
    assert sorted(tmp_path.iterdir()) == sorted([other, tmp_path / "a[1].txt"])


def test_an_interrupt_as_a_file_is_made_leaves_none(tmp_path, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_flock", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_part_that_was_dropped_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    calls = []

    def dropped(handle, lock=files._flock):
        calls.append(handle)
        if len(calls) == 1:
            for part in tmp_path.iterdir():
                part.unlink()
        lock(handle)

    monkeypatch.setattr(files, "_flock", dropped)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert len(calls) == 2


UNFINISHED = "This report is partial: landscape compare has not finished"


def test_what_is_being_written_is_not_dropped_by_a_command_that_begins(tmp_path):
    (tmp_path / ".part.left").write_text("by a kill")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        with locked(tmp_path):
            assert not (tmp_path / ".part.left").exists()
        drop_parts(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("ending", [".csv", ".vtk", ".h5", ".npz"])
def test_two_exports_to_one_file_leave_that_of_the_last(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    with replacing(path) as temporary:
        temporary.write_text("of the first")
        export(line(), path)
        second = path.read_bytes()
        assert second != b"of the first"
    assert path.read_text() == "of the first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_of_an_unfinished_comparison_says_so(tmp_path, landscape):
    folder = folder_of(tmp_path / "c", ["a"])
    write_index(read_index(folder).model_copy(update={"finished": False}), folder)
    with warnings.catch_warnings(action="always"):
        code, _, err = landscape("report", folder)
    assert (code, err.count("\n")) == (0, 1)
    assert "report.html is partial: landscape compare has not finished" in err
    assert UNFINISHED in (folder / PAGE).read_text("utf-8")


def test_a_report_that_a_comparison_overtakes_is_made_again(tmp_path, monkeypatch):
    folder, rendered = folder_of(tmp_path / "c", ["a"]), report._rendered
    whole = read_index(folder)
    write_index(whole.model_copy(update={"finished": False}), folder)

    def overtaken(of, comparison):
        text = rendered(of, comparison)
        plane(9.0).save(result_path(folder, "a", "plane"))
        write_index(whole, folder)
        return text

    monkeypatch.setattr(report, "_rendered", overtaken)
    assert UNFINISHED not in render(folder).read_text("utf-8")  # and no warning, which would be an error


def test_a_comparison_that_is_stopped_leaves_no_mixed_page_that_says_nothing(runs, tmp_path, monkeypatch):
    class StoppedError(Exception):
        pass

    def stopped(self, objective, shared, asked):
        if self.place[0] == 1:
            raise StoppedError
        return measured

    folder = folder_of(tmp_path / "c", ["a", "b"])
    _, every = report.read_comparison(folder)
    measured = every["a"]
    monkeypatch.setattr(comparing._Measuring, "all", stopped)
    best = {"a": runs / "sasrec" / "best.pt", "b": runs / "samrec" / "best.pt"}
    with pytest.raises(StoppedError):
        compare_checkpoints(best, folder, TaskOptions(users=8), "t", Measurements())
    found = read_index(folder)
    assert ([c.name for c in found.checkpoints], found.finished) == (["a"], False)
    with pytest.warns(UserWarning, match="is partial"):
        assert UNFINISHED in render(folder).read_text("utf-8")


def test_of_two_downloads_to_one_folder_one_says_that_it_is_in_use(tmp_path):
    file = replace(CATALOG["beauty"].sequences, url="https://localhost:1/none")
    with locked(tmp_path), pytest.raises(InputError, match="in use: another process writes to it"):
        fetch(file, tmp_path)
    assert list(Path(tmp_path).iterdir()) == []

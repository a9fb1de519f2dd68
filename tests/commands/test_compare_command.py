"""`landscape compare` measures each thing once."""

import shutil
from pathlib import Path

import pytest

import landscape as ll
from landscape.report.report import read_comparison, result_path
from landscape.runtime.ranks import Ranks

MEASUREMENTS = ("plane", "line", "top_eigenpairs", "trace", "spectral_density", "sharpness")


@pytest.fixture(scope="module")
def measured():
    """Gather which measurements `compare` makes; two of sharpness and a short density: all take long."""
    made = []

    def spied(name, function, **fixed):
        def call(*arguments, **settings):
            made.append(name)
            return function(*arguments, **settings, **fixed)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in MEASUREMENTS:
            fixed = {"measures": ("sam", "asam")} if name == "sharpness" else {}
            patch.setattr(ll, name, spied(name, getattr(ll, name), **fixed))
        patch.setattr("landscape.report.compare.PROBES", 2)
        patch.setattr("landscape.report.compare.STEPS", 5)
        yield made


@pytest.fixture
def compare(answer, measured):
    """Compare one checkpoint; return what is printed, and which measurements were made."""

    def run(ckpt, out, *options):
        measured.clear()
        small = ("--grid", 2, "--top", 1, "--users", 8)
        return answer("compare", "--ckpt", ckpt, "--out", out, *small, *options), tuple(measured)

    return run


@pytest.fixture(scope="module")
def sasrec(runs):
    return runs / "sasrec" / "best.pt"


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The folder of a comparison, made by the test that asks for it first."""
    return tmp_path_factory.mktemp("compared")


@pytest.fixture
def folder(once, sasrec, compare, tmp_path):
    """A copy of a finished comparison."""
    if not any(once.iterdir()):
        _, made = compare(sasrec, once)
        assert made == MEASUREMENTS
    return shutil.copytree(once, tmp_path / "out")


def test_compare_refuses_more_than_six(landscape, tmp_path):
    given = [part for number in range(7) for part in ("--ckpt", tmp_path / f"{number}.pt")]
    code, out, err = landscape("compare", *given, "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "7 checkpoints" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_report_is_rendered_anew(folder, sasrec, compare, answer):
    page = Path(compare(sasrec, folder)[0]["report"])
    text = page.read_text("utf-8")
    page.unlink()
    assert answer("report", folder) == {"report": str(page)}
    assert page.read_text("utf-8") == text


def test_what_was_measured_is_not_measured_again(folder, sasrec, compare):
    first, made = compare(sasrec, folder)
    assert made == ()
    found, made = compare(sasrec, folder, "--rho", 0.2)
    assert made == ("sharpness",)
    assert found["checkpoints"][0]["measures"] != first["checkpoints"][0]["measures"]


def test_another_seed_measures_all_anew(folder, sasrec, compare):
    assert compare(sasrec, folder, "--seed", 1)[1] == MEASUREMENTS


def test_other_weights_under_an_old_name_are_measured(folder, runs, compare):
    first = read_comparison(folder)[1]["sasrec"].sharpness.loss
    other = folder / "sasrec.pt"
    other.write_bytes((runs / "samrec" / "best.pt").read_bytes())
    found, made = compare(other, folder)
    assert made == MEASUREMENTS
    assert found["checkpoints"][0]["loss"] != first


def test_a_damaged_result_is_measured_again(folder, sasrec, compare):
    result_path(folder, "sasrec", "trace").write_bytes(b"damaged")
    assert compare(sasrec, folder)[1] == ("trace",)


def test_what_one_rank_cannot_read_is_measured_by_all(folder, sasrec, compare, monkeypatch):
    class Blind(Ranks):
        """This process, beside one that read nothing."""

        def gathered(self, value):
            return [value, False] if isinstance(value, bool) else [value]

    monkeypatch.setattr("landscape.report.compare.ranks", Blind)
    assert compare(sasrec, folder)[1] == MEASUREMENTS


def test_a_density_that_is_not_wanted_is_not_that_of_an_earlier_run(folder, sasrec, compare):
    density = result_path(folder, "sasrec", "density")
    assert isinstance(ll.load(density), ll.SpectralDensity)
    assert compare(sasrec, folder, "--no-density")[1] == ()
    assert not density.exists()


def test_what_is_known_of_the_training_stands_in_the_index(folder):
    comparison, _ = read_comparison(folder)
    (known,) = comparison.checkpoints
    (table,) = known.facts.tables
    assert [row.name for row in table.rows] == ["validation", "test"]
    for row in table.rows:
        assert all(low <= value <= high for value, (low, high) in zip(row.values, row.intervals, strict=True))
    loss, validated = known.facts.curves
    assert (loss.x, validated.x) == ((1, 2, 3, 4), (2, 4))
    assert comparison.title == "Loss landscape of sasrec"
    assert comparison.command.startswith("landscape compare")

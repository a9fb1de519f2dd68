"""`landscape sharpness`."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest

import landscape as ll
from landscape.cli import sharpness
from landscape.flatness.measures import MEASURES


def test_sharpness(answer, both):
    found = answer("sharpness", *both, "--measure", "sam", "--measure", "average")
    for entry in found["checkpoints"]:
        assert entry.keys() >= {"path", "loss", "weight_norm", "measures"}
        assert entry["measures"].keys() == {"sam", "average"}
        assert entry["measures"]["average"].keys() >= {"value", "se"}
    assert found["comparison"]["reference"] == "sasrec"
    rows = {row["measure"]: row["checkpoints"]["samrec"] for row in found["comparison"]["rows"]}
    assert rows.keys() == {"loss", "weight_norm", "sam", "average"}
    assert rows["sam"]["low"] <= rows["sam"]["ratio"] <= rows["sam"]["high"]
    assert min(row["difference_se"] for name, row in rows.items() if name != "weight_norm") > 0
    assert found["comparison"]["verdict"][0].startswith("samrec against sasrec: ")
    assert answer("sharpness", *both[:2], "--measure", "sam").keys() == {"checkpoints"}


def test_sharpness_by_group(answer, landscape, both):
    arguments = ["sharpness", *both, "--measure", "sam", "--by-group", "--users", 20]
    found = answer(*arguments)
    assert {"embedding", "attention", "norm"} <= found["groups"].keys()
    rows = {(row["measure"], row["group"]): row["checkpoints"] for row in found["comparison"]["rows"]}
    for group, entries in found["groups"].items():
        assert [entry["path"] for entry in entries] == [str(path) for path in both[1::2]]
        assert rows["sam", group]["samrec"]["value"] == entries[1]["measures"]["sam"]["value"]
    squared = sum(entries[0]["weight_norm"] ** 2 for entries in found["groups"].values())
    assert squared**0.5 == pytest.approx(found["checkpoints"][0]["weight_norm"])
    assert "\n    embedding " in landscape(*arguments)[1]


def test_sharpness_writes_folders_and_tables(answer, both, tmp_path):
    places = [tmp_path / name for name in ("results", "tables/a.tex", "a.csv", "a.JSON")]
    out = [option for place in places for option in ("--out", place)]
    options = ["--measure", "sam", "--users", 20, "--by-group"]
    found = answer("sharpness", *both, *options, *out)
    assert json.loads(places[3].read_text("utf-8")) == found["comparison"]
    assert r"samrec / sasrec \\" in places[1].read_text("utf-8")
    assert places[2].read_text("utf-8").startswith("measure,group,")
    files = {path.name for path in places[0].iterdir()}
    assert files >= {"sasrec.sharpness.npz", "samrec.sharpness.npz", "samrec.embedding.sharpness.npz"}
    assert set(map(Path, found["files"])) == {*places[0].iterdir(), *places[1:]}
    kept = ll.load(places[0] / "samrec.sharpness.npz")
    assert {key: m.entry for key, m in kept.measures.items()} == found["checkpoints"][1]["measures"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.xlsx", "a table ends in .json, .csv, .tex, and a folder has no ending"),
        ("file/table.tex", "is a file"),
        ("file", "is a file"),
    ],
)
def test_sharpness_refuses_a_place_before_it_measures(landscape, both, tmp_path, monkeypatch, name, message):
    monkeypatch.setattr("landscape.tasks.objectives_of", None)
    (tmp_path / "file").write_text("")
    code, out, err = landscape("sharpness", *both, "--out", tmp_path / "a.csv", "--out", tmp_path / name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sharpness_has_an_option_for_each_setting_and_names_each_measure():
    options = inspect.signature(sharpness.command).parameters
    for name, setting in inspect.signature(ll.sharpness).parameters.items():
        if setting.kind is setting.KEYWORD_ONLY:
            assert options[name].default == setting.default
    words = " ".join(sharpness.command.__doc__.split())
    (said,) = re.findall(
        r"Measures: ([^.]*); and, unchanged by [^,]* that keeps the function, ([^.]*)\.", words
    )
    others, kept = (part.split(", ") for part in said)
    assert sorted(others + kept) == sorted(MEASURES)
    assert set(kept) == {name for name, measure in MEASURES.items() if measure.invariant}


def test_sharpness_of_three_is_two_tables(landscape, both, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    third = shutil.copy(runs / "samrec" / "last.pt", tmp_path / "third.pt")
    code, out, err = landscape("sharpness", *both, "--ckpt", third, "--measure", "sam", "--users", 20)
    assert code == 0, err
    assert "Ratios, with 95% intervals" in out
    assert "third / sasrec" in out
    assert max(map(len, out.splitlines())) <= 100

"""Every measurement of several checkpoints, by the library."""

import json
from pathlib import Path

import pytest
import torch

from landscape import InputError
from landscape.report.compare import Measurements, compare_checkpoints
from landscape.report.report import MOST, read_comparison
from landscape.storage.files import locked
from landscape.tasks import FactCurve, FactRow, Facts, FactTable, TaskOptions
from tests import tasks

OPTIONS = TaskOptions(device="cpu")
QUICK = Measurements(grid=3, top=1)


class Told:
    """A task that knows the mean weight of a checkpoint."""

    def __call__(self, checkpoint, options):
        return tasks.regression(checkpoint, options)

    def facts(self, checkpoint, options):
        size = float(torch.load(checkpoint, weights_only=True)["weights"]["weight"].mean())
        row = FactRow("test", (size, None), note=f"seed {options.seed}")
        return Facts(
            (FactTable("Weights", ("mean", "unknown"), (row,), headline=("test", "mean")),),
            (FactCurve("size", "step", (0, 1), (0.0, size)),),
        )

    def differences(self, checkpoints, options):
        return [f"<{' and '.join(checkpoints)}> differ, seed {options.seed}."]


told = Told()


def test_what_the_task_tells_stands_beside_what_is_measured(checkpoints, tmp_path):
    task = "tests.landscape.report.test_compare:told"
    found = compare_checkpoints(checkpoints, tmp_path / "out", OPTIONS, "A title", QUICK, task)
    means = [float(torch.load(p)["weights"]["weight"].mean()) for p in checkpoints.values()]
    assert [entry["headlines"] for entry in found["checkpoints"]] == [{"test mean": mean} for mean in means]
    assert [entry["test"]["mean"] for entry in found["checkpoints"]] == means
    assert found["checkpoints"][0]["facts"] == {"Weights": {"test": {"mean": means[0], "unknown": None}}}
    json.dumps(found)
    index, measured = read_comparison(tmp_path / "out")
    assert [c.facts for c in index.checkpoints] == [told.facts(p, OPTIONS) for p in checkpoints.values()]
    for entry, part in zip(found["checkpoints"], measured.values(), strict=True):
        assert entry["trace"] == part.trace.value
        assert entry["loss"] == pytest.approx(part.plane.center)
    page = Path(found["report"]).read_text("utf-8")
    contents = {"Weights": "facts-1", "Curves": "curves"}
    for heading, anchor in contents.items():
        assert f'<h2 id="{anchor}">{heading}</h2>' in page
        assert f'<a href="#{anchor}">{heading}</a>' in page
    lead = page.split('<ul class="lead">')[1].split("</ul>")[0]
    assert "&lt;a and b&gt; differ, seed 0." in lead


def test_a_task_that_is_a_function_has_nothing_to_tell(checkpoints, tmp_path):
    out = tmp_path / "out"
    found = compare_checkpoints(checkpoints, out, OPTIONS, "t", QUICK, "tests.tasks:regression")
    assert [entry["facts"] for entry in found["checkpoints"]] == [{}, {}]
    assert [entry["test"] for entry in found["checkpoints"]] == [{}, {}]
    assert [c.facts for c in read_comparison(out)[0].checkpoints] == [Facts(), Facts()]


def test_it_refuses_too_many_checkpoints_and_a_folder_in_use(checkpoints, tmp_path):
    many = dict.fromkeys(map(str, range(MOST + 1)), tmp_path / "a.pt")
    with pytest.raises(InputError, match=f"{MOST + 1} checkpoints are given"):
        compare_checkpoints(many, tmp_path / "out", OPTIONS, "t", QUICK, "tests.tasks:regression")
    assert not (tmp_path / "out").exists()
    with locked(tmp_path), pytest.raises(InputError, match="another process"):
        compare_checkpoints(checkpoints, tmp_path, OPTIONS, "t", QUICK, "tests.tasks:regression")


def test_it_refuses_one_checkpoint_under_two_names(checkpoints, tmp_path):
    path = next(iter(checkpoints.values()))
    (tmp_path / "link.pt").symlink_to(path)
    for same in (path, tmp_path / "link.pt"):
        with pytest.raises(InputError, match="the same checkpoint is given twice"):
            compare_checkpoints(
                {"a": path, "b": same}, tmp_path / "out", OPTIONS, "t", QUICK, "tests.tasks:regression"
            )
        assert not (tmp_path / "out").exists()


def test_facts_of_another_shape_are_not_made():
    with pytest.raises(InputError, match="one value per column, 2"):
        FactTable("t", ("a", "b"), (FactRow("r", (1.0,)),))
    with pytest.raises(InputError, match="one value per column"):
        FactTable("t", ("a", "b"), (FactRow("r", (1.0, 2.0), ((0.0, 1.0),)),))
    for x, y in (((1.0,), ()), ((float("nan"),), (1.0,)), ((float("inf"),), (1.0,))):
        with pytest.raises(InputError, match="one y per x"):
            FactCurve("c", "x", x, y)


def test_a_headline_that_is_not_in_the_table_is_none():
    row = FactRow("test", (1.0,))
    wrong = [FactTable("t", ("a",), (row,), headline=pair) for pair in (("test", "b"), ("valid", "a"))]
    right = FactTable("t", ("a",), (row,), headline=("test", "a"))
    assert Facts((*wrong, right)).headlines() == {"test a": 1.0}


def test_a_checkpoint_whose_path_is_no_text_is_compared_like_any_other(checkpoints, tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    path = checkpoints["a"].rename(folder / "a.pt")
    out, command = tmp_path / "out", f"landscape compare --ckpt {path}"
    page = compare_checkpoints(
        {"a": path}, out, OPTIONS, "t", QUICK, "tests.tasks:regression", command=command
    )
    assert "caf?/a.pt" in Path(page["report"]).read_text("utf-8")
    assert read_comparison(out)[0].checkpoints[0].path.endswith("caf?/a.pt")

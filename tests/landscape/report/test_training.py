"""What a report says of a training that a monitor watched."""

import json
from pathlib import Path

import numpy as np
import pytest

import landscape as ll
from landscape.curvature.history import MONITOR, SharpnessRecord, history_of
from landscape.plots.tables import of_history
from landscape.report import compare, training
from landscape.report.compare import compare_checkpoints
from landscape.report.report import read_comparison, render, result_path
from tests.landscape.report.test_compare import OPTIONS, QUICK
from tests.results import HOSTILE

HEADER = {"monitor": 1, "settings": {"k": 2, "tol": 1e-3}, "provenance": {"data": HOSTILE}}


def record(step, top=1.0, threshold=2.0, residual=1e-4, **more):
    return {
        "step": step,
        "loss": 0.5,
        "gradient_norm": 0.1,
        "eigenvalues": [top, top / 2],
        "residuals": [residual, 1e-4],
        "alignment": [0.5, 0.5],
        "threshold": threshold,
        "products": 20,
        "seconds": 1.5,
        "overhead": 0.04,
        **more,
    }


def written(folder, *records, header=HEADER, tail=""):
    folder.mkdir(exist_ok=True)
    lines = [header, *records]
    (folder / MONITOR).write_text("".join(f"{json.dumps(line)}\n" for line in lines) + tail)
    return folder


def history(*tops, **more):
    records = [SharpnessRecord(**record(step, top, **more)) for step, top in enumerate(tops, start=1)]
    return history_of(records, settings=HEADER["settings"], provenance={})


def said(*tops, **more):
    return " ".join(training.section({"run": history(*tops, **more)})["sentences"])


def test_the_folder_of_a_run_has_a_page_of_what_was_measured_so_far(tmp_path):
    run = written(tmp_path / "a <b>run", record(10, 1.0), record(20, 1.9), tail='{"step": 30, "lo')
    text = render(run).read_text("utf-8")
    assert "Training of a &lt;b&gt;run" in text
    assert "<b>run" not in text
    assert "<script" not in text  # neither the hostile provenance nor plotly
    assert "&lt;script&gt;" in text
    assert "went from 1 at step 10 to 1.9 at step 20" in text
    assert ">40</td><td>3.0</td><td>4.0%</td>" in text  # products, seconds, overhead
    assert text.count('src="data:image/png;base64,') == 1


@pytest.mark.parametrize(
    ("ratios", "side"),
    [
        ((0.1, 0.2, 0.3, 0.85), "below the edge of stability, at 0.30 to 0.85 times"),
        ((0.1, 0.5, 0.93, 1.08), "at the edge of stability, at 0.93 to 1.08 times"),
        ((0.1, 0.5, 0.7, 1.4), "around the edge of stability, at 0.70 to 1.40 times"),
        ((0.1, 0.5, 1.2, 1.2), "above the edge of stability, at 1.20 times"),
        ((0.1, 0.5, 0.002, 0.004), "below the edge of stability, at 0.002 to 0.004 times"),
    ],
)
def test_the_side_of_the_edge_is_that_of_the_second_half(ratios, side):
    assert side in said(*(2 * ratio for ratio in ratios))
    adaptive = [
        SharpnessRecord(**record(step, 5.0, preconditioned=2 * ratio)) for step, ratio in enumerate(ratios)
    ]
    found = history_of(adaptive, settings=HEADER["settings"], provenance={})
    assert f"λ₁ of P⁻¹H was {side}" in training.section({"": found})["sentences"][1]
    assert training.pictures({"": found}).keys() == {"training", "preconditioned"}


def test_what_is_missing_is_said():
    assert "1 at step 1 (not converged)" not in said(1.0, 2.0)
    text = said(1.0, 2.0, residual=0.5, threshold=None)
    assert "went from 1 (not converged) at step 1 to 2 (not converged) at step 2" in text
    assert "2 of 4 eigenvalues have not converged" in text
    assert "the edge of stability of this optimizer and its settings is not known" in text.lower()
    lost = [SharpnessRecord(**record(1)), SharpnessRecord(step=2)]
    found = history_of(lost, settings=HEADER["settings"], provenance={})
    assert "run: 1 of 2 measurements have no eigenvalues." in training.section({"run": found})["sentences"]
    gone = history_of(lost[1:], settings=HEADER["settings"], provenance={})
    assert training.section({"run": gone})["sentences"] == [
        "run: No measurement has a finite loss and eigenvalues."
    ]
    assert training.pictures({"run": gone}) == {}


def test_a_table_marks_the_eigenvalues_that_have_not_converged():
    records = [SharpnessRecord(**record(step, residual=residual)) for step, residual in ((1, 0.1), (2, 1e-4))]
    found = history_of(records, settings=HEADER["settings"], provenance={})
    rows = {name: cells for name, *cells in of_history(found).rows}
    assert rows["λ₁"] == ["1.00 (not converged)", "1.00"]
    assert rows["λ₂"] == rows["L(θ)"] == ["0.500", "0.500"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ((), "holds no measurements yet"),
        ((record(1), record(1)), "line 3 is not a measurement"),
        ((record(10**400),), "line 2 is not a measurement"),
        ((record(1, products=-1),), "line 2 is not a measurement"),
        ((record(1, top=1e300),), "eigenvalues holds a number that is not from"),
        ((record(1, seconds=-5.0, eigenvalues="x"),), "line 2 is not a measurement"),
        ((record(1, eigenvalues=[[1.0]]),), "line 2 is not a measurement"),
    ],
)
def test_a_file_that_is_damaged_gives_one_line_and_no_page(records, message, tmp_path):
    run = written(tmp_path / "run", *records)
    with pytest.raises(ll.InputError, match=message):
        render(run)
    assert [file.name for file in run.iterdir()] == [MONITOR]


def test_a_file_does_not_grow_in_memory(tmp_path):
    """One wide record would make every other as wide."""
    wide = record(1, eigenvalues=[1.0] * 4000, residuals=[0.0] * 4000, alignment=[])
    run = written(tmp_path / "run", wide, *({"step": step} for step in range(2, 4000)))
    with pytest.raises(ll.InputError, match="more eigenvalues than can be read"):
        render(run)


def test_a_run_whose_folder_has_a_name_that_is_no_text_has_a_page(tmp_path):
    run = written(tmp_path / "caf\udce9", record(10))
    assert "Training of caf?" in render(run).read_text("utf-8")


def test_a_comparison_keeps_what_a_monitor_wrote_beside_a_checkpoint(checkpoints, tmp_path):
    out, one = tmp_path / "out", {"a <i>": checkpoints["a"]}
    written(tmp_path, record(1), record(2, 1.5))
    page = compare_checkpoints(one, out, OPTIONS, "t", QUICK, "tests.tasks:regression")["report"]
    (tmp_path / MONITOR).unlink()
    (part,) = read_comparison(out)[1].values()  # the folder is complete in itself
    np.testing.assert_array_equal(part.monitor.eigenvalues[:, 0], [1.0, 1.5])
    text = Path(page).read_text("utf-8")
    assert '<a href="#training">Sharpness during training</a>' in text
    assert "a &lt;i&gt;: λ₁ of the Hessian went from 1 at step 1 to 1.5 at step 2" in text


def test_a_monitors_file_that_is_damaged_does_not_end_a_comparison(tmp_path):
    kept = result_path(tmp_path, "a", "monitor")
    written(tmp_path, record(1))
    compare._keep_monitor(tmp_path / "a.pt", kept)
    assert ll.load(kept).steps.tolist() == [1]
    written(tmp_path, {"step": "x"})
    with pytest.warns(UserWarning, match="left out of the report: .*line 2 is not a measurement"):
        compare._keep_monitor(tmp_path / "a.pt", kept)
    assert not kept.exists()  # that of an earlier comparison


def test_a_training_is_shown_once_for_all_of_its_checkpoints():
    same, other = history(1.0, 2.0), history(1.0, 2.1)
    found = training.merged({"a": same, "b": other, "c": history(1.0, 2.0)})
    assert list(found) == ["a, c", "b"]
    assert list(training.section(found)["rows"]) == ["a, c", "b"]
    assert len(training.pictures(found)["training"].axes) == 2

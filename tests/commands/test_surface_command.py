"""`landscape surface`: every kind of direction, and what does not go together."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import landscape as ll

QUICK = ["--grid", 5, "--users", 20]


def test_a_tolerance_gives_a_certificate_that_is_stored_and_printed(answer, both, tmp_path):
    found = answer("surface", *both, "--dim", 1, "--radius", 0.2, "--tol", 0.05, "--out", tmp_path)
    for entry in found["checkpoints"]:
        assert entry["certificate"]["points"] == 60
        assert entry["certificate"]["max_error"] <= 0.05
        assert entry["certificate"] == asdict(ll.load(entry["file"]).certificate)
        assert "of the loss range" in entry["statement"]
        assert entry["basins"][0]["persistence"] is None  # of the lowest, which ends nowhere
    (difference,) = found["differences"]
    assert difference["center"] == found["checkpoints"][1]["center"] - found["checkpoints"][0]["center"]
    assert difference["standard_error"] > 0
    a, b = (entry["certificate"]["standard_error"] for entry in found["checkpoints"])
    assert difference["standard_error"] < np.hypot(a, b)  # the same users


def test_a_second_run_evaluates_nothing_anew(answer, both, tmp_path):
    first, second = (answer("surface", *both, *QUICK, "--out", tmp_path)["checkpoints"] for _ in range(2))
    assert [e["evaluations"] for e in first] == [25, 25]
    assert [e["evaluations"] for e in second] == [1, 1]
    assert [e["reused"] for e in second] == [24, 24]
    assert [e["max"] for e in first] == [e["max"] for e in second]


def test_an_automatic_radius_is_one_for_all_and_doubles_each(answer, both, tmp_path):
    found = answer("surface", *both, *QUICK, "--dim", 1, "--radius", "auto", "--out", tmp_path)["checkpoints"]
    assert found[0]["spans"] == found[1]["spans"]
    assert all(entry["max"] >= 1.9 * entry["center"] for entry in found)


def test_several_seeds_are_a_band(answer, both, tmp_path):
    found = answer("surface", *both, *QUICK, "--dim", 1, "--seeds", 3, "--seed", 4, "--out", tmp_path)
    assert [e["seed"] for e in found["checkpoints"]] == [4, 4, 5, 5, 6, 6]
    assert (tmp_path / "samrec-seed6.surface.npz").exists()
    assert (tmp_path / "surface.pdf").exists()


@pytest.mark.slow
def test_eigenvectors_and_the_quadratic_model(answer, both, tmp_path):
    found = answer(
        "surface",
        *both,
        *QUICK,
        "--directions",
        "eigen-ends",
        "--quadratic",
        "--radius",
        0.5,
        "--out",
        tmp_path,
    )
    model = ll.load(tmp_path / "sasrec.quadratic.npz")
    top, bottom = (d["eigenvalue"] for d in ll.load(found["checkpoints"][0]["file"]).directions)
    np.testing.assert_allclose(np.diag(model.hessian), [top, bottom], rtol=2e-2, atol=1e-4)
    assert (tmp_path / "sasrec.quadratic.png").exists()


def test_between_two_checkpoints_with_other_metrics(answer, both, tmp_path):
    options = ["--dim", 1, "--directions", "between", "--metric", "valid-loss", "--metric", "hr@10"]
    found = answer("surface", *both, *QUICK, *options, "--out", tmp_path)
    (entry,) = found["checkpoints"]
    assert [mark["name"] for mark in entry["marks"]] == ["sasrec", "samrec"]
    metric = ll.load(tmp_path / "sasrec.hr@10.surface.npz")
    assert metric.provenance["metric"] == "hr@10"
    assert ((metric.losses >= 0) & (metric.losses <= 1)).all()
    assert (tmp_path / "metrics.png").exists()


def test_all_that_is_measured_and_written_is_told(answer, landscape, both, tmp_path):
    options = ["--dim", 1, "--seeds", 2, "--quadratic", "--metric", "hr@10", "--out", tmp_path]
    found = answer("surface", *both, *QUICK, *options)
    told = list(found["pictures"])
    for entry in found["checkpoints"]:
        parts = entry, entry["quadratic"], entry["metrics"]["hr@10"]
        _, model, metric = (ll.load(part["file"]) for part in parts)
        told += [part["file"] for part in parts]
        assert (parts[1]["gradient"], parts[1]["hessian"]) == (
            model.gradient.tolist(),
            model.hessian.tolist(),
        )
        assert (parts[2]["center"], parts[2]["min"], parts[2]["max"]) == (metric.center, *metric.range)
    assert {file for file in tmp_path.iterdir() if file.suffix != ".jsonl"} == set(map(Path, told))
    out = landscape("surface", *both, *QUICK, *options)[1]
    assert all(Path(file).name in " ".join(out.split()) for file in told)
    assert all(row in out for row in ("‖g‖", "λ₁ of H", "HR@10    samrec-seed1"))


@pytest.mark.slow
def test_a_trajectory_on_its_plane_moving(answer, data_file, tmp_path):
    run = [
        "--dim",
        8,
        "--max-length",
        8,
        "--epochs",
        4,
        "--batch-size",
        16,
        "--save-every",
        1,
        "--eval-every",
        2,
    ]
    answer("train", "--data", data_file, "--out", tmp_path / "run", *run)
    options = ["--directions", "trajectory", "--animate", "--out", tmp_path / "out"]
    answer("surface", "--ckpt", tmp_path / "run" / "last.pt", *QUICK, *options)
    result = ll.load(tmp_path / "out" / "run.surface.npz")
    assert result.trajectory.shape == (5, 2)
    np.testing.assert_allclose(result.trajectory[-1], 0, atol=1e-5)
    assert sum(d["explained_variance"] for d in result.directions) <= 1

    from PIL import Image

    with Image.open(tmp_path / "out" / "run.gif") as moving:
        assert moving.n_frames == 5  # the frames held at the end are one


def test_a_metric_that_a_task_does_not_know_is_refused(landscape, both, tmp_path):
    line = ["--dim", 1, "--out", tmp_path]
    code, _, err = landscape("surface", *both, *line, "--metric", "hr@ten")
    assert (code, err.count("\n")) == (2, 1)
    assert "hr@K" in err
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "mine.pt")
    mine = ["--ckpt", tmp_path / "mine.pt", "--task", "tests.tasks:regression"]
    code, _, err = landscape("surface", *mine, *line, "--metric", "hr@10")
    assert code == 2
    assert "does not provide the metric 'hr@10'" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--directions", "eigen", "--seeds", 2], "does not depend on the seed"),
        (["--directions", "trajectory", "--dim", 1], "drawn on a plane"),
        (["--metric", "hr@10"], "add --dim 1"),
        (["--animate"], "add --directions trajectory"),
        (["--grid", "5x"], "expected a number of points"),
        (["--grid", "1"], "expected a number of points"),
        (["--grid", "5x5", "--dim", 1], "expected a number of points"),
        (["--radius", "wide"], "expected a number, or auto"),
        (["--radius", "nan"], "must be positive"),
        (["--tol", "0"], "must be positive"),
        (["--directions", "trajectory"], "keeps no trajectory"),
    ],
)
def test_what_makes_no_surface_is_one_line(landscape, both, tmp_path, options, message):
    code, out, err = landscape("surface", *both, "--out", tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("out/*.npz"))


def test_a_line_between_three_checkpoints_is_refused(landscape, both, runs, tmp_path):
    three = [*both, "--ckpt", runs / "sasrec" / "last.pt"]
    code, _, err = landscape("surface", *three, "--dim", 1, "--directions", "between", "--out", tmp_path)
    assert code == 2
    assert "a line takes 2" in err


def test_json_has_no_nan(landscape, both, tmp_path):
    code, out, _ = landscape("surface", *both, "--grid", 2, "--dim", 1, "--out", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["checkpoints"][0]["convex_share"] is None

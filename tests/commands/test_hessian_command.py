"""`landscape hessian`."""

from pathlib import Path

import pytest
import torch

import landscape as ll


@pytest.mark.parametrize("method", ["lanczos", pytest.param("power", marks=pytest.mark.slow)])
def test_hessian(answer, both, method, tmp_path):
    found = answer(
        "hessian", *both, "--top", 2, "--method", method, "--trace", "--tol", 0.01, "--out", tmp_path
    )
    for entry in found["checkpoints"]:
        assert entry.keys() >= {
            "path",
            "eigenvalues",
            "smallest",
            "residuals",
            "converged",
            "products",
            "gradient_norm",
            "seconds",
            "trace",
            "trace_se",
        }
        assert len(entry["eigenvalues"]) == 2
    assert set(map(Path, found["files"])) == set(tmp_path.iterdir())
    assert (
        ll.load(tmp_path / "sasrec.hessian.npz").eigenvalues.tolist()
        == found["checkpoints"][0]["eigenvalues"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("matrix", ["gauss-newton", "fisher"])
def test_matrices_akin_to_the_hessian_with_blocks_and_spectrum(answer, both, matrix, tmp_path):
    asked = ["--top", 1, "--tol", 0.01, "--by-group", "--density", "--steps", 5, "--out", tmp_path]
    found = answer("hessian", *both, "--matrix", matrix, *asked)["checkpoints"]
    for entry in found:
        assert entry["matrix"] == matrix
        assert entry["smallest"] > -1e-6
        assert sum(block["parameters"] for block in entry["groups"].values()) == entry["parameters"]
        largest = max(block["eigenvalues"][0] for block in entry["groups"].values())
        assert largest <= entry["eigenvalues"][0] * 1.01  # Cauchy's interlacing
        assert entry["density"]["moment_error"] < 1e-4
        assert entry["density"]["effective_dimension"] > 0
    assert {p.name for p in tmp_path.iterdir()} >= {"density.png", "density.pdf", "sasrec.density.npz"}
    block = ll.load(tmp_path / "samrec.norm.hessian.npz")
    assert block.eigenvalues.tolist() == found[1]["groups"]["norm"]["eigenvalues"]


def test_the_top_alone(answer, both):
    entry = answer("hessian", *both[:2], "--top", 2, "--smallest", 0, "--tol", 0.01)["checkpoints"][0]
    assert entry["smallest"] is None
    assert entry["smallest_eigenvalues"] == []


def test_a_checkpoint_that_is_no_minimum_is_said_to_be_none(landscape, both):
    code, out, err = landscape("hessian", *both[:2], "--top", 1, "--tol", 0.01)
    assert code == 0, err
    assert "The sasrec checkpoint is not a minimum: ‖∇L‖ =" in out


def test_questions_of_the_hessian_that_have_no_answer(landscape, both, tmp_path):
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "linear.pt")
    own = ["--ckpt", tmp_path / "linear.pt", "--task", "tests.tasks:regression"]
    for asked, said in (
        ([*both[:2], "--density", "--ridge", -1], "ridge and gamma must be positive"),
        ([*own, "--matrix", "fisher"], "not given the per_example of its loss"),
        ([*own, "--matrix", "gauss-newton"], "not given the forward and criterion of its loss"),
    ):
        code, out, err = landscape("hessian", *asked)
        assert code == 2
        assert said in err
        assert not out

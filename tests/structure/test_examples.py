"""The examples run, in small, with what is public alone; their pictures are there, and small."""

import ast
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import samrec

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLIC = {"landscape", "samrec", "samrec.data.synthetic"}
SMALL = {
    "char_gpt": {
        "STEPS": 3,
        "DIM": 8,
        "LAYERS": 1,
        "HEADS": 2,
        "CONTEXT": 8,
        "WINDOWS": 16,
        "PROBES": 2,
        "LANCZOS": 5,
        "TOL": 0.3,
    },
    "digits_resnet": {"EPOCHS": 1, "WIDTH": 4, "IMAGES": 64, "TOL": 0.3},
    "edge_of_stability": {"STEPS": 12, "EVERY": 3, "WIDTH": 4},
    "matrix_factorization": {"USERS": 12, "ITEMS": 8, "RANK": 2, "OBSERVED": 60, "SCALES": (1.0, 2.0)},
    "mlp_regression": {"STEPS": 20, "TOL": 0.1},
    "sasrec_samrec": {"USERS": 60, "EPOCHS": 1, "TOL": 0.1, "MEASURES": ("sam", "asam")},
    "two_optimizers": {"EPOCHS": 2, "TOL": 0.1},
}
"""The sizes that each example has at its top, as they are for the tests."""
SAID = {
    "matrix_factorization": "4 of 40 eigenvalues are 0, as a change of basis has 2² free numbers",
    "mlp_regression": "of the loss range on",
}


@pytest.mark.parametrize("name", SMALL)
def test_examples_end_in_a_picture_and_a_sentence(name, monkeypatch, tmp_path, capsys):
    example = import_module(f"examples.{name}")
    for constant, value in SMALL[name].items():
        assert hasattr(example, constant)
        monkeypatch.setattr(example, constant, value)
    example.main(tmp_path)
    assert (tmp_path / f"{name}.png").read_bytes()[1:4] == b"PNG"
    *_, sentence = capsys.readouterr().out.splitlines()
    assert SAID.get(name, "") in sentence
    assert sentence.endswith(".")
    assert " nan" not in sentence


def test_every_example_is_tried_and_shown():
    files = {path.stem for path in EXAMPLES.glob("*.py")}
    assert files == {*SMALL, "task"}
    shown = (EXAMPLES / "README.md").read_text("utf-8")
    for name in SMALL:
        assert f"[{name}.py]({name}.py)" in shown
        assert f"](pictures/{name}.png)" in shown
        assert (EXAMPLES / "pictures" / f"{name}.png").stat().st_size < 150_000


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_only_what_is_public_is_used(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert {n for n in names if n.split(".")[0] in ("landscape", "samrec")} <= PUBLIC


def test_sharpness_settles_at_the_edge_of_stability(monkeypatch):
    """Over the second half of the training (Cohen et al. 2021, 2022); SAM stays below 2/η."""
    example = import_module("examples.edge_of_stability")
    monkeypatch.setattr(example, "STEPS", 1600)
    monkeypatch.setattr(example, "EVERY", 100)
    for rate in (0.15, 0.2, 0.24):
        found = example.watched(lambda p, rate=rate: torch.optim.SGD(p, lr=rate))
        np.testing.assert_allclose(found.thresholds, 2 / rate)
        _, furthest = example.at_edge(found)
        assert furthest < 0.1
    monkeypatch.setattr(example, "STEPS", 800)
    monkeypatch.setattr(example, "EVERY", 50)
    adam = example.watched(lambda p: torch.optim.Adam(p, lr=example.ADAM))
    assert example.at_edge(adam)[0] == pytest.approx(1, abs=0.1)
    sam = example.watched(lambda p: samrec.SAM(p, torch.optim.SGD, rho=example.RHO, lr=0.08))
    assert (sam.eigenvalues[:, 0] < 0.8 * 2 / 0.08).all()

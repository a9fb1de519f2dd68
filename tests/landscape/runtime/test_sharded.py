"""A model that is sharded among ranks measures as it does in one process, and refuses what it has not."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

MANY = pytest.param(4, marks=pytest.mark.soak)


@pytest.fixture(scope="module", params=[2, MANY])
def ranks(request, tmp_path_factory):
    """How many ranks there were, what the first found, whether all found the same, and what one found."""
    folder = tmp_path_factory.mktemp("sharded")
    done = subprocess.run(
        [sys.executable, "-m", "tests.sharded", str(request.param), folder],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, *json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def one(ranks):
    """The same of each model by one process."""
    return ranks[3]


@pytest.mark.parametrize("kind", ["fsdp", "parallel"])
@pytest.mark.parametrize("name", ["mlp", "block"])
def test_ranks_find_what_one_process_finds(ranks, one, name, kind):
    found = ranks[1][f"{name} {kind}"]
    assert found.keys() <= one[name].keys()
    for what, numbers in found.items():
        expected = np.array(one[name][what])
        tolerance = 1e-3 if what == "power" else 1e-6  # its residuals have not converged
        np.testing.assert_allclose(
            numbers, expected, rtol=tolerance, atol=1e-6 * np.abs(expected).max(), err_msg=what
        )


def test_everything_is_measured_of_each_model_and_of_each_way_to_shard_it(ranks, one):
    assert ranks[1]["mlp fsdp"].keys() == one["mlp"].keys()
    assert ranks[1]["block parallel"].keys() == one["block"].keys()


def test_all_ranks_find_the_same_numbers(ranks):
    assert ranks[2]


def test_a_rank_holds_its_share_of_a_vector_alone(ranks):
    held, share = ranks[1]["share"]
    assert share <= held <= share + 4  # of four tensors each filled up


def test_a_model_that_computes_in_half_precision_is_measured_in_float32_which_is_said(ranks, one):
    assert ranks[1]["half"] == pytest.approx(one["mlp"]["value"][:1], rel=1e-6)
    assert "a model that computes in half precision is measured in float32" in ranks[1]["said"]


REFUSED = {
    "plain vector": "a vector of a sharded model is made from its own: objective.theta",
    "exponential": "exp is not available for a vector of a sharded model",
    "entry": "getitem is not available",
    "array": "numpy is not available",
    "shifted": "add is not available",
    "largest": "max is not available",
    "diagonal": "numpy is not available",
    "xtrace": "is not available for a vector of a sharded model",
    "eigenvectors": "draw along random directions",
    "file": "leave out the file",
    "tuned": "leave out tune",
    "followed": "make a new objective of it",
    "not copied": "measured with copy=True",
    "other batches": "must all be given the same batches",
    "knows": "its code must not depend on how it is sharded",
    "stages": "as the stages of a pipeline do",
    "buffers": "statistics is not sharded and differs between the ranks",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_sharded_model_has_not_is_refused_in_one_line(ranks, what):
    said = ranks[1]["refusals"][what]
    assert re.search(REFUSED[what], said)
    assert "\n" not in said


def test_a_mesh_of_some_ranks_is_refused(ranks):
    if ranks[0] == 2:
        pytest.skip("two ranks have no part of several")
    assert "lies on 2 of 4 ranks" in ranks[1]["refusals"]["part"]

"""The claims that need real data: Beauty, as S3Rec's authors prepared it."""

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.storage.files import sha256
from landscape.tasks import TaskOptions
from samrec import recommend
from samrec.checkpoint import load
from samrec.config import Config
from samrec.data.packing import pack
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.scores import summands
from samrec.task import objective
from samrec.training.log import read_log
from samrec.training.loop import train

pytestmark = pytest.mark.slow

BEAUTY = "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"


@pytest.fixture(scope="module")
def beauty(real_data):
    return real_data / "Beauty.txt"


@pytest.fixture(scope="module")
def run(beauty, tmp_path_factory):
    """Three epochs of the paper's setting."""
    config = Config(data=str(beauty), epochs=3, eval_every=3)
    return train(config, tmp_path_factory.mktemp("beauty") / "run", "cpu")


def test_beauty_is_read_whole(beauty):
    assert sha256(beauty) == BEAUTY
    data = read(beauty)
    assert (data.num_users, data.num_items, len(data.items)) == (22_363, 12_101, 198_502)
    assert len(leave_one_out(data).evaluated("test")) == 22_363


def test_three_epochs_learn_something(run):
    losses = [line["loss"] for line in read_log(run.out / "metrics.jsonl") if "loss" in line]
    assert losses[0] > losses[1] > losses[2]
    assert run.valid["hr@10"] > 5 * 10 / 12_101


def test_the_landscape_of_beauty(run, beauty):
    frozen = objective(run.out / "best.pt", TaskOptions(users=512, device="cpu", data=beauty))
    result = ll.plane(frozen, grid=3)
    assert abs(result.losses[1, 1] - frozen.value()) < 1e-6
    top = ll.top_eigenpairs(frozen, 2)
    assert top.converged == [True, True]
    assert top.residuals.max() <= 1e-3
    vectors = top.eigenvectors.astype(float)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-5)
    sharp = ll.sharpness(frozen, ["sam", "worst"], steps=3).measures
    assert 0 < sharp["sam"].value <= sharp["worst"].value


def test_everybody_gets_a_hundred_recommendations(run, beauty):
    """The same as a sort of all scores gives, for some of them."""
    found = recommend(run.out / "best.pt", top=100, device="cpu", data=beauty)
    assert (found.num_users, len(found.ranks)) == (22_363, 2_236_300)
    data = read(beauty)
    model = load(run.out / "best.pt").model().eval()
    items = torch.from_numpy(data.items)
    for begin in (0, 21 * 1024):  # whole batches of the product's, so that no rounding is another
        chunk = slice(begin, min(begin + 1024, data.num_users))
        kept = np.minimum(data.lengths[chunk], model.max_length)
        histories, _, _ = pack(items, data.offsets[1:][chunk] - kept, kept, model.max_length)
        with torch.no_grad():
            expected = summands(model(histories).flatten(0, 1)[histories.last])[:50].numpy()
            scores = expected @ summands(model.item.weight).numpy().T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :100]
        own = slice(100 * begin, 100 * (begin + len(order)))
        assert np.array_equal(found.items[own], data.item_ids[order].ravel())
        assert np.array_equal(found.scores[own], np.take_along_axis(scores, order, 1).ravel())

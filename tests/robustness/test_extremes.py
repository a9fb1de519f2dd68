"""Training at the ends of what data and settings may be: an answer, or one line; never a NaN that is kept."""

import numpy as np
import pytest
import torch

from landscape import InputError
from samrec.checkpoint import load
from samrec.config import Config
from samrec.data.interactions import Interactions
from samrec.data.split import leave_one_out
from samrec.evaluation import evaluate
from samrec.methods import new_model
from samrec.training.loop import train

SMALL = {"dim": 2, "heads": 1, "layers": 1, "max_length": 4, "epochs": 2, "eval_every": 2, "batch_size": 4}


def trained(folder, histories, **settings):
    lines = [" ".join(map(str, (user, *items))) for user, items in enumerate(histories, start=1)]
    (folder / "d.txt").write_text("\n".join(lines) + "\n")
    config = Config(**{**SMALL, "data": str(folder / "d.txt"), "format": "sequences", **settings})
    return train(config, folder / "run", "cpu")


ORDINARY = [[1, 2, 3, 4, 5], [2, 3, 4, 1], [5, 4, 1, 2]]
CASES = {
    "one user": ([[1, 2, 3, 4]], {}),
    "constant sequences": ([[1] * 5, [2] * 6, [3] * 4], {}),
    "one long history": ([list(np.arange(10_000) % 7 + 1), [1, 2, 3, 4]], {}),
    "one position": (ORDINARY, {"max_length": 1}),
    "one dimension": (ORDINARY, {"dim": 1}),
    "one of everything": ([[1, 2, 3, 4]], {"dim": 1, "max_length": 1, "batch_size": 1}),
}


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("name", CASES)
def test_small_worlds_are_learned(name, loss, tmp_path):
    histories, settings = CASES[name]
    found = trained(tmp_path, histories, method="samrec", loss=loss, **settings)
    assert np.isfinite([*found.losses.values(), *found.test.values()]).all()
    assert all(t.isfinite().all() for t in load(found.out / "last.pt").weights.values())


@pytest.mark.parametrize("loss", ["ce", "sampled"])
def test_one_item_leaves_no_negative_to_draw(loss, tmp_path):
    found = trained(tmp_path, [[1, 1, 1, 1, 1]], loss=loss)
    assert found.losses == {"recommendation": 0.0}  # it is certain
    assert found.test["hr@5"] == 1.0


def test_a_million_items():
    """All of them are ranked, and a history of one item among them."""
    count = 10**6
    data = Interactions(np.arange(count), np.array([0, 4, count]), np.arange(1, count + 1), "here")
    model = new_model(Config(data="", **{**SMALL, "dim": 1}), count)
    found = evaluate(model, leave_one_out(data), "test")
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("lr", [1e30, 3e38])
def test_what_overflows_is_not_kept(tmp_path, precision, lr):
    """One step an epoch: the first loss is of good weights, and they overflow after it."""
    with pytest.raises(InputError, match=r"training diverged: .* epoch \d"):
        trained(tmp_path, ORDINARY, precision=precision, lr=lr, epochs=9, eval_every=9)
    last = tmp_path / "run" / "last.pt"
    assert not last.exists() or all(t.isfinite().all() for t in load(last).weights.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_that_overflow_are_an_error_and_not_a_hit(dtype):
    split = leave_one_out(Interactions.from_histories(ORDINARY, "here"))
    model = new_model(Config(data="", **SMALL), split.num_items).to(dtype)
    with torch.no_grad():
        model.item.weight.fill_(torch.finfo(dtype).max)
        model.norm.weight.fill_(torch.finfo(dtype).max)
    with pytest.raises(InputError, match=r"not|NaN|nan"):
        evaluate(model, split, "test")

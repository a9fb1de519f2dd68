"""One loss means one loss: what is compared is of the same batches in one order, and of one criterion."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import landscape as ll
from landscape import InputError
from landscape.objective.identity import batches_digest, criterion_digest
from landscape.plots.tables import of_paths
from landscape.surface.points import own_end

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def pair(a, b):
    """Objectives of two models; each way of freezing gives batches and a criterion."""
    return [ll.supervised(net(seed), *of) for seed, of in enumerate((a, b))]


def loader(shuffle):
    return DataLoader(TensorDataset(X, Y), 16, shuffle=shuffle)


def noisy():
    return [(X + torch.randn_like(X), Y)]


OTHERWISE = {
    "shuffled": lambda: (loader(True), F.cross_entropy),
    "in reverse": lambda: (list(loader(False))[::-1], F.cross_entropy),
    "augmented": lambda: (noisy(), F.cross_entropy),
    "fewer": lambda: ([(X[:30], Y[:30])], F.cross_entropy),
    "other targets": lambda: (DataLoader(TensorDataset(X, 2 - Y), 16), F.cross_entropy),
    "another criterion": lambda: (loader(False), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "other weights": lambda: (loader(False), partial(F.cross_entropy, weight=torch.tensor([1.0, 2, 3]))),
    "another function": lambda: (loader(False), lambda o, t: 2 * F.cross_entropy(o, t)),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_two_losses_are_not_compared(name):
    torch.manual_seed(1)
    a, b = pair((loader(False), F.cross_entropy), OTHERWISE[name]())
    with pytest.raises(InputError, match=r"have different batches|loss '"):
        ll.compare({"a": ll.sharpness(a, ["sam"]), "b": ll.sharpness(b, ["sam"])})
    for measure in (
        lambda: ll.barrier(a, b, grid=3),
        lambda: ll.bezier(a, b, steps=1),
        lambda: ll.surfaces({"a": a, "b": b}, dim=1, grid=3),
    ):
        with pytest.raises(InputError, match=r"have different (batches|losses)"):
            measure()
    known = [ll.line(o, radius=0.1, tol=0.1) for o in (a, b)]
    assert ll.paired_error(*known) is None


def test_one_loss_is_compared_whoever_loaded_it():
    a, b = pair((loader(False), F.cross_entropy), (list(loader(False)), F.cross_entropy))
    assert ll.compare({"a": ll.sharpness(a, ["sam"]), "b": ll.sharpness(b, ["sam"])}).rows[0].contrasts[0].low
    known = [ll.line(o, radius=0.1, tol=0.1) for o in (a, b)]
    costs = [F.cross_entropy(net(seed)(X), Y, reduction="none") for seed in (0, 1)]
    expected = (costs[0] - costs[1]).std().item() / 60**0.5
    assert ll.paired_error(*known) == pytest.approx(expected, rel=1e-4)
    assert ll.barrier(a, b, grid=3).height >= 0


def test_a_digest_is_of_values_alone():
    words = ["a", "".join(["a"])]  # equal, and not one object
    rows = [{"x": X, "y": [1, 2.0, None], "words": words, "z": np.arange(6).reshape(2, 3)}]
    same = [{"x": X.clone(), "y": [1, 2.0, None], "words": ["a", "a"], "z": np.asfortranarray(rows[0]["z"])}]
    assert batches_digest(rows) == batches_digest(same)
    for change in (
        {"x": X.double()},
        {"x": X.view(5, 60)},
        {"x": X.T.contiguous()},
        {"y": [1, 2.0, 0]},
        {"words": ["a", "b"]},
        {"z": rows[0]["z"].astype(np.int32)},
    ):
        assert batches_digest([rows[0] | change]) != batches_digest(rows)
    assert batches_digest([torch.tensor(1 + 1j).conj()]) == batches_digest([torch.tensor(1 - 1j)])


def test_batches_that_cannot_be_pickled_are_like_no_others(tmp_path):
    batches = [(X, Y, threading.Lock())]
    assert batches_digest(batches) != batches_digest(batches)

    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])

    first = ll.line(ll.Objective(net(), batches, loss), grid=5, file=tmp_path / "a.jsonl")
    again = ll.line(ll.Objective(net(), batches, loss), grid=5, file=tmp_path / "a.jsonl")
    assert (first.settings["reused"], again.settings["reused"]) == (0, 4)


def test_a_criterion_is_known_by_what_it_does():
    def scaled(by):
        return lambda o, t: by * F.cross_entropy(o, t)

    assert criterion_digest(scaled(2)) == criterion_digest(scaled(2)) != criterion_digest(scaled(3))
    assert criterion_digest(nn.MSELoss()) == criterion_digest(nn.MSELoss()) != criterion_digest(nn.L1Loss())
    assert criterion_digest(F.cross_entropy).startswith("cross_entropy ")


def test_a_name_that_the_user_gives_stands_for_the_loss():
    options = {"provenance": {"loss": "mine", "batches_sha256": "ab"}}
    ways = ((False, F.cross_entropy), (True, nn.CrossEntropyLoss()))
    a, b = (ll.supervised(net(), loader(shuffle), of, **options) for shuffle, of in ways)
    assert {a.provenance[k] == b.provenance[k] for k in ("loss", "batches_sha256")} == {True}


def with_norm(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    for _ in range(20):
        model(3 * seed + X)
    return model


def frozen(seed):
    model = net(seed)
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("model", [with_norm, frozen])
def test_a_barrier_says_where_the_other_end_is_not_its_own(model):
    a, b = (ll.supervised(model(seed), loader(False), F.cross_entropy) for seed in (0, 1))
    with pytest.warns(UserWarning, match="BatchNorm statistics or frozen weights differ.*recomputed"):
        found = ll.barrier(a, b, grid=3)
    assert found.own_end == b.value()
    assert found.ends[1] == a.value(b.theta)
    assert f"own L of b {b.value():.5g}" in " ".join(repr(found).split())
    legend = found.plot().figure.legends[0].get_texts()
    said = " ".join(" ".join(text.get_text() for text in legend).split())  # long legends are broken
    assert f"own loss at its end is {b.value():.4g}" in said
    assert "barrier unknown" in said
    table = of_paths({"": found}, "")
    assert table.rows[0][table.columns.index("barrier")] == "unknown"  # not above a chord to another end
    assert any(b.value() in line.get_ydata() for line in found.plot().lines)
    assert sum(line.get_marker() == "_" for line in found.plot().lines) == 0
    with pytest.warns(UserWarning, match="BatchNorm statistics or frozen weights differ"):
        assert ll.bezier(a, b, steps=1, points=3).settings["own_end"] == b.value()
    with pytest.warns(UserWarning, match="BatchNorm statistics or frozen weights differ"):
        drawn = ll.surfaces({"a": a, "b": b}, directions="between", dim=1, grid=3).slices["a"]
    assert [mark.get("own_end") for mark in drawn.marks] == [None, b.value()]
    assert drawn.marks[1]["loss"] == pytest.approx(a.value(b.theta))
    labels = [text.get_text() for text in drawn.plot().texts]
    assert labels == ["a", f"b (its own loss is {b.value():.4g})"]


def test_a_model_has_an_own_end_whether_its_loss_there_is_more_or_less():
    model = ll.supervised(net(), loader(False), F.cross_entropy)
    for share in (0.9, 1.1):
        with pytest.warns(UserWarning, match="BatchNorm statistics or frozen weights differ"):
            assert own_end(model, share * model.value()) == {"own_end": model.value()}
    assert own_end(model, model.value()) == own_end(model.theta, 1.0) == {}


def test_recomputed_statistics_are_each_models_own():
    options = {"statistics": "recomputed"}
    a, b = (ll.supervised(with_norm(seed), loader(False), F.cross_entropy, **options) for seed in (0, 1))
    found = ll.barrier(a, b, grid=3)
    assert "own_end" not in found.settings
    drawn = ll.surfaces({"a": a, "b": b}, directions="between", dim=1, grid=3).slices["a"]
    assert not any("own_end" in mark for mark in drawn.marks)
    assert found.ends[1] == pytest.approx(b.value(), rel=1e-5)

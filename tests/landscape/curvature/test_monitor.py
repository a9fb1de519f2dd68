"""A monitor tells the truth about a training that it does not touch."""

import contextlib
import copy
import itertools
import json
import random
import shutil

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape.curvature.stability import edge_of
from samrec.sam import SAM

GROWN = torch.tensor([3.0, 2.0, 0.5])


class Quadratic(nn.Module):
    """L = ½ Σ h_i w_i², whose Hessian is diag(h)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))


def quadratic(model, batch):
    return (batch * model.w**2).sum() / 2, 1.0


def monitored(model, optimizer, **settings):
    probe = ll.Objective(model, [GROWN], quadratic)
    return ll.Monitor(model, probe, optimizer=optimizer, **{"k": 2, "at_most": None, **settings})


def descend(model, optimizer, steps, monitor=None):
    for _ in range(steps):
        optimizer.zero_grad()
        quadratic(model, GROWN)[0].backward()
        optimizer.step()
        if monitor:
            monitor.step()


def test_numbers_of_a_quadratic_are_known():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitored(model, optimizer, trace=4, rho=0.1)
    before = model.w.detach().clone()
    descend(model, optimizer, 1, monitor)
    (record,) = monitor.records
    w, h = model.w.detach(), GROWN
    gradient = h * w
    assert record.step == 1
    np.testing.assert_allclose(record.eigenvalues, [3, 2], rtol=1e-6)
    assert record.loss == pytest.approx(float((h * w**2).sum() / 2))
    assert record.gradient_norm == pytest.approx(float(gradient.norm()))
    assert record.threshold == pytest.approx(20.0)
    assert record.preconditioned is None
    assert record.trace == pytest.approx(5.5)  # a diagonal takes one probe
    above = w + 0.1 * gradient / gradient.norm()
    assert record.sam == pytest.approx(float((h * above**2).sum() / 2) - record.loss, rel=1e-4)
    update = (w - before).abs() / (w - before).norm()
    np.testing.assert_allclose(record.alignment, update[:2].numpy(), atol=1e-3)


def test_the_preconditioned_eigenvalue_is_that_of_the_hessian_by_the_preconditioner():
    model = Quadratic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    descend(model, optimizer, 3)
    record, edge = monitored(model, optimizer).measure(), edge_of(optimizer, model, ll.ParamSpace(model), 1.0)
    assert record.threshold == edge.threshold
    assert record.preconditioned == pytest.approx(float((edge.scale**2 * GROWN).max()), rel=1e-4)
    np.testing.assert_allclose(record.eigenvalues, [3, 2], rtol=1e-5)


def test_eigenvalues_are_kept_where_the_preconditioner_is_not_finite():
    """As Adam's is with ε = 0 where a weight has had no gradient."""
    model = Quadratic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.0)
    descend(model, optimizer, 1)
    (state,) = optimizer.state.values()
    state["exp_avg_sq"][2] = 0
    with pytest.warns(UserWarning, match="not finite"):
        found = monitored(model, optimizer, trace=2).measure()
    np.testing.assert_allclose(found.eigenvalues, [3, 2], rtol=1e-5)
    assert found.trace == pytest.approx(5.5)
    assert (found.threshold, found.preconditioned) == (None, None)


class Noisy(nn.Module):
    """Dropout, BatchNorm, and a hook that counts."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.body(x)


def train_noisy(make, watched, every=1, block=False, **settings):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 # what must not move
    model = Noisy()
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    optimizer = make(model.parameters())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 10, shuffle=True)
    monitor = None
    if watched:
        monitor = ll.Monitor(
            model,
            loader,
            nn.CrossEntropyLoss(),
            optimizer=optimizer,
            every=every,
            k=2,
            at_most=None,
            **settings,
        )
    with monitor if monitor and block else contextlib.nullcontext():
        for inputs, targets in itertools.chain.from_iterable(loader for _ in range(2)):

            def closure(inputs=inputs, targets=targets):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            optimizer.step(closure)
            if monitor and not block:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    monitor.step(model)
    state = {
        **model.state_dict(),
        **{f"{name}.grad": p.grad for name, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002 # what must not move
        "training": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "optimizer's hooks": len(optimizer._optimizer_step_post_hooks),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
    }
    return state, monitor


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), id="sgd"),
        pytest.param(lambda p: torch.optim.Adam(p, lr=1e-2), id="adam"),
        pytest.param(lambda p: SAM(p, torch.optim.SGD, rho=0.1, lr=0.1), id="sam"),
    ],
)
def test_a_training_is_the_same_bit_for_bit(make):
    expected, _ = train_noisy(make, watched=False)
    for settings in ({"trace": 2, "rho": 0.1}, {"block": True, "mode": "training"}):
        found, monitor = train_noisy(make, watched=True, **settings)
        assert [record.step for record in monitor.records] == list(range(1, 9))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_block_counts_no_step_outside_of_it():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitored(model, optimizer)
    with monitor:
        descend(model, optimizer, 2)
        with pytest.raises(ll.InputError, match="is already counting steps"):
            monitor.__enter__()
    descend(model, optimizer, 1)
    assert [record.step for record in monitor.records] == [1, 2]
    with pytest.raises(ll.InputError, match="has no optimizer"), monitored(model, None):
        pass


def test_a_multiple_of_every_that_was_passed_over_is_measured_at_the_next_step():
    monitor = monitored(Quadratic(), None, every=4)
    for step in (1, 3, 4, 5, 7, 9, 10, 11, 12, 30, 31):
        monitor.step(step)
    assert [record.step for record in monitor.records] == [4, 9, 12, 30]


def test_a_step_follows_the_model_that_it_is_given():
    monitor = monitored(Quadratic(), None)
    other = Quadratic()
    with torch.no_grad():
        other.w *= 2
    first, second = monitor.step(), monitor.step(other)
    assert second.loss == pytest.approx(4 * first.loss)
    with pytest.raises(ll.InputError, match="not the one that the objective was made of"):
        monitor.step(nn.Linear(2, 1))


def test_a_measurement_is_that_of_a_fresh_objective():
    """Of the weights and the statistics of BatchNorm that the model has by then."""
    _, monitor = train_noisy(lambda p: torch.optim.SGD(p, lr=0.5), watched=True, every=4)
    model = monitor.model
    fresh = ll.Objective(
        model,
        monitor.probe.batches,
        lambda m, b: (F.cross_entropy(m(b[0]), b[1], reduction="sum"), len(b[1])),
    )
    last = monitor.records[-1]
    assert last.loss == pytest.approx(fresh.value(), rel=1e-6)
    expected = ll.top_eigenpairs(fresh, 2, smallest=0).eigenvalues
    np.testing.assert_allclose(last.eigenvalues, expected, rtol=1e-4)


def test_a_file_reloads_and_is_continued(tmp_path):
    file = tmp_path / "monitor.jsonl"
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitored(model, optimizer, every=2, file=file, rho=0.1)
    descend(model, optimizer, 6, monitor)
    loaded = ll.load(file)
    assert isinstance(loaded, ll.SharpnessHistory)
    for name, value in vars(monitor.history).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(loaded, name), value)
    assert loaded.steps.tolist() == [2, 4, 6]
    again = ll.load(loaded.save(tmp_path / "history.npz"))
    np.testing.assert_array_equal(again.eigenvalues, loaded.eigenvalues)
    assert loaded.to_frame("polars").shape[0] == 3

    with file.open("a") as opened:
        opened.write('{"step": 8, "lo')  # a kill
    longer = shutil.copy(file, tmp_path / "longer.jsonl")
    monitored(model, optimizer, every=2, file=longer, rho=0.1).step(8)
    assert ll.load(longer).steps.tolist() == [2, 4, 6, 8]
    resumed = monitored(model, optimizer, every=2, file=file, rho=0.1)
    assert [r.step for r in resumed.records] == [2, 4, 6]
    resumed.step(4)
    assert [r["step"] for r in map(json.loads, file.read_text().splitlines()[1:])] == [2, 4]
    with pytest.raises(ll.InputError, match="different settings"):
        monitored(model, optimizer, file=file, rho=0.2)
    other = ll.Objective(model, [2 * GROWN], quadratic)
    with pytest.raises(ll.InputError, match=r"different batches \(.*; give another file"):
        ll.Monitor(model, other, optimizer=optimizer, k=2, at_most=None, file=file, rho=0.1)


def test_a_file_that_was_cut_or_removed_while_it_trains_is_whole_again(tmp_path):
    """A disk that is full for a while cuts a line; a header that is gone would make the file unreadable."""
    file = tmp_path / "monitor.jsonl"
    monitor = monitored(Quadratic(), None, file=file)
    for step, harm in enumerate((lambda: None, lambda: file.write_text(file.read_text()[:-9]), file.unlink)):
        harm()
        monitor.step(step + 1)
        assert ll.load(file).steps.tolist() == list(range(1, step + 2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{}\n", "first line is not a header"),
        ("no JSON\n", "first line is not a header"),
        ('{"monitor": 1, "settings": {"tol": 0.1}, "provenance": {}}\n{"step": "x"}\n', "line 2 is not"),
        (
            '{"monitor": 1, "settings": {"tol": 0.1}, "provenance": {}}\n{"step": 2}\n{"step": 1}\n',
            "line 3 is not",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    file = tmp_path / "monitor.jsonl"
    file.write_text(content)
    with pytest.raises(ll.InputError, match=message):
        ll.Monitor.read(file)


def test_a_training_that_diverges_goes_on(tmp_path):
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitored(model, optimizer, file=tmp_path / "monitor.jsonl")
    monitor.step()
    model.w.data.fill_(torch.nan)
    monitor.step()
    model.w.data.fill_(1.0)
    monitor.step()
    first, broken, last = monitor.records
    assert broken.eigenvalues == ()
    assert broken.loss is None
    assert last.alignment == ()  # with a step from what was no number
    np.testing.assert_allclose(last.eigenvalues, first.eigenvalues, rtol=1e-6)
    assert np.isnan(monitor.history.eigenvalues[1]).all()


def test_the_last_update_is_not_what_lies_between_a_start_and_a_resumed_training():
    """Trainers load a checkpoint after the monitor was made: what moved θ then is no step."""
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitored(model, optimizer)
    model.w.data.copy_(torch.tensor([0.0, 0.0, 9.0]))
    descend(model, optimizer, 1)
    assert monitor.step(101).alignment == ()
    descend(model, optimizer, 1)
    assert len(monitor.step(102).alignment) == 2


def test_numbers_go_to_a_logger():
    told = {}
    model = Quadratic()
    monitor = monitored(
        model, torch.optim.SGD(model.parameters(), lr=0.1), log=lambda m, step: told.update({step: m})
    )
    monitor.step(7)
    assert told[7]["eigenvalue_1"] == pytest.approx(3)
    assert told[7]["threshold"] == pytest.approx(20)


def test_what_is_wrong_is_said():
    model, other = Quadratic(), Quadratic()
    probe = ll.Objective(model, [GROWN], quadratic)
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    for arguments, settings, message in (
        ((model, probe), {"k": 0}, "k is 0; it must be a whole number"),
        ((model, probe), {"tol": float("nan")}, "must be positive"),
        ((model, probe), {"at_most": 0.0}, "must be positive"),
        ((model, probe), {"trace": 1}, "two probes or more"),
        ((model, probe), {"rho": -1.0}, "rho is -1.0; it must be positive"),
        ((model, probe, nn.MSELoss()), {}, "an Objective of the model alone"),
        ((model, [GROWN]), {}, "batches and a criterion"),
        ((model, probe), {"mode": "training"}, "has a mode of its own"),
        ((model, probe), {"optimizer": foreign}, "does not update any parameter of this model"),
        ((nn.Linear(2, 1), probe), {}, "w is missing"),
    ):
        with pytest.raises(ll.InputError, match=message):
            ll.Monitor(*arguments, **settings)


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_that_several_processes_name_is_written_by_one(shared, monkeypatch, tmp_path):
    """As the ranks of `DistributedDataParallel` do, which all run the same lines."""
    store, monitors = dist.HashStore(), []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    for rank in (0, 1):
        model = Quadratic()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        name = "monitor.jsonl" if shared else f"monitor{rank}.jsonl"
        monitors.append((model, optimizer, monitored(model, optimizer, file=tmp_path / name)))
    for _ in range(3):
        for rank, training in enumerate(monitors):
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            descend(*training[:2], 1, training[2])
    found = [ll.load(path).steps.tolist() for path in tmp_path.iterdir()]
    assert found == [[1, 2, 3]] * (1 if shared else 2)
    assert [len(monitor.records) for *_, monitor in monitors] == [3, 3]

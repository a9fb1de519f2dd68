"""A training step waits for nothing, and mixes no devices: on a GPU it is then one graph."""

from itertools import count

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samrec.config import Config
from samrec.methods import batches_of, initial_learner
from samrec.rows import add_rows
from samrec.training.engines.solo import Solo, with_bits
from tests.waits import Waits

ATEN = torch.ops.aten
ANY_ORDER = {ATEN.index_add, ATEN.index_add_, ATEN.scatter_add, ATEN.scatter_add_, ATEN.scatter_reduce}
CPU, META = torch.device("cpu"), torch.device("meta")
SMALL = {"dim": 8, "max_length": 8, "batch_size": 16, "dropout": 0.3}
METHODS = [
    {"method": "sasrec"},
    {"method": "samrec"},
    {"method": "samrec", "loss": "gbce", "negatives": 4},
    {"method": "samrec", "loss": "sampled", "negatives": 4},
    {"method": "samrec", "loss": "gbce", "negatives": 40},
    {"method": "sasrec", "loss": "ce"},
    {"method": "bert4rec"},
    {"method": "cl4srec"},
    {"method": "s3rec-pretraining"},
    {"method": "gru4rec"},
]


def named(settings):
    return " ".join(str(value) for value in settings.values())


@pytest.fixture
def on_meta(monkeypatch):
    """Let cross-entropy run on `meta` as on a GPU."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


def on_a_device(config, split):
    """Return a learner and a batch on `meta`: tensors there have no numbers, and mix with no others."""
    learner = initial_learner(config, split, fused=True)
    batch = with_bits(first_batch(config, split), learner.model, torch.Generator(), count())
    return learner.to(META), batch.filled([tensor.to(META) for tensor in batch.tensors()])


def first_batch(config, split):
    return next(iter(batches_of(config, split, CPU).epoch(16, (0, 0))))


@pytest.mark.parametrize("settings", METHODS, ids=named)
def test_a_loss_and_its_gradient_are_of_one_device_and_ask_for_no_number(split, settings, on_meta):
    learner, batch = on_a_device(Config(data="", **SMALL, **settings), split)
    learner(batch).sum().backward()
    assert all(p.grad.is_meta for p in learner.parameters() if p.grad is not None)


@pytest.mark.parametrize("settings", METHODS, ids=named)
def test_a_step_waits_for_nothing(split, settings):
    config = Config(data="", **SMALL, **settings)
    engine = Solo(config, initial_learner(config, split), CPU, 0)
    batch = first_batch(config, split)
    for number in range(2):  # the first makes the optimizer's state
        with Waits() as waits:
            sums = engine.step([[batch]], [number], 1e-2, [config.radius])
    assert waits.calls == {}
    assert sums.isfinite().all()


def test_rows_add_up_alike_in_any_order():
    torch.manual_seed(0)
    table, rows, values = torch.randn(5, 3), torch.tensor([4, 0, 4, 4, 2]), torch.randn(5, 3)
    expected = table + torch.nn.functional.one_hot(rows, 5).float().T @ values
    torch.testing.assert_close(add_rows(table.clone(), rows, values), expected)
    found = add_rows(table.to(META), rows.to(META), values.to(META))
    assert found.shape == table.shape


class Sorted(TorchDispatchMode):
    """Refuses what adds in any order on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in ANY_ORDER
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", METHODS, ids=named)
def test_nothing_adds_in_any_order_on_a_gpu(split, settings, on_meta):
    learner, batch = on_a_device(Config(data="", **SMALL, **settings), split)
    with Sorted():
        learner(batch).sum().backward()

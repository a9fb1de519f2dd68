"""How often a measurement waits for its device, which is bounded; and what is set while it measures."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import landscape as ll
from landscape.curvature.basis import fetched
from landscape.curvature.lanczos import lanczos
from landscape.curvature.power import power_iteration
from landscape.objective import checks
from landscape.objective.batches import mapped
from landscape.runtime.precision import full_precision, without_cudnn
from tests.waits import Waits

MEASURED = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul


def diagonal(n, seed=0):
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed)).sort(descending=True).values
    return values, lambda v: values * v


def objective_of(model, loss=None):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    return ll.Objective(model, [x], loss or (lambda m, b: (m(b).square().sum(), len(b))))


@pytest.mark.parametrize("smallest", [0, 1])
def test_lanczos_waits_about_once_for_each_product(smallest):
    values, matvec = diagonal(400)
    with Waits() as waits:
        found = lanczos(matvec, values, 2, smallest, 1e-4, 300, 0)
    np.testing.assert_allclose(found.values[:2], values[:2], rtol=1e-3)
    assert found.products > 15
    assert waits.total <= found.products + 10


def test_a_block_of_vectors_waits_less_often_than_it_multiplies():
    values, matvec = diagonal(400)
    matvec.many = lambda rows: rows * values
    with Waits() as waits:
        found = lanczos(matvec, values, 2, 0, 1e-4, 300, 0, block=4)
    assert found.products > 40
    assert waits.total <= 1.5 * found.products


def test_power_iteration_waits_once_for_each_product():
    values, matvec = diagonal(50)
    with Waits() as waits:
        found = power_iteration(matvec, values, 1, 0, 1e-5, 2000, 0)
    assert found.products > 20
    assert waits.total <= found.products + 10


def test_values_and_products_wait_once_whatever_the_number_of_batches():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    batches = [torch.randn(3, 4) for _ in range(7)]
    objective = ll.Objective(model, batches, lambda m, b: (m(b).square().sum(), len(b)), check=False)
    operator = ll.hessian(objective)
    with Waits() as waits:
        objective.value()
    assert waits.total == 1
    with Waits() as waits:
        objective.value_and_grad()
    assert waits.total == 1
    with Waits() as waits:
        operator(objective.theta)
    assert waits.total == 0
    with Waits() as waits:
        objective.values(torch.stack([objective.theta] * 5))
    assert waits.total == 1


def test_numbers_come_in_one_copy_and_in_their_shapes():
    numbers = torch.arange(6, dtype=torch.float64).view(2, 3), torch.tensor([7.0]), torch.tensor(8.0)
    with Waits() as waits:
        found = fetched(*numbers)
    assert waits.total == 1
    for a, b in zip(found, numbers, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    with pytest.raises(ll.InputError, match="not finite"):
        fetched(torch.tensor(1.0), torch.tensor(torch.inf))


def seen(model, setting):
    """Return what a setting of torch is, in evaluations and in backward passes of measurements of a model."""
    found = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            found.append(setting())
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            found.append(setting())
            return Noted.apply(g)

    def loss(model, batch):
        out = model(batch)
        out = Noted.apply(out[0] if isinstance(out, tuple) else out)
        return out.square().sum(), len(batch)

    objective = objective_of(model, loss)
    found.clear()
    objective.value()
    objective.hvp(objective.theta)
    ll.top_eigenpairs(objective, tol=0.1)
    assert len(found) > 5
    return set(found)


@pytest.fixture
def coarse():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def precisions():
    return tuple(kind.fp32_precision for kind in MEASURED)


def test_float32_is_multiplied_as_float32_while_measuring(coarse):
    before = precisions()
    assert seen(nn.Linear(4, 2), precisions) == {("ieee",) * 3}
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == "medium"
    with full_precision:
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_it_is_undone_where_only_the_newer_interface_was_used():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert seen(nn.Linear(4, 2), precisions) == {("ieee",) * 3}
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"


def test_a_setting_lasts_until_the_last_has_left():
    before = torch.backends.cudnn.enabled
    first, second = without_cudnn, without_cudnn
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert not torch.backends.cudnn.enabled
    second.__exit__()
    assert torch.backends.cudnn.enabled == before


def test_recurrent_layers_are_torchs_own_and_convolutions_may_be_cudnns():
    def enabled(model):
        found = set()
        objective_of(model, lambda m, b: (found.add(torch.backends.cudnn.enabled), total(m(b), b))[1]).value()
        return found

    def total(out, batch):
        out = out[0] if isinstance(out, tuple) else out
        return out.square().sum(), len(batch)

    assert False in enabled(nn.LSTM(4, 3))
    assert enabled(nn.Linear(4, 3)) == {True}
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_products_of_a_recurrent_layer_are_those_of_differences(kind):
    torch.manual_seed(0)
    objective = objective_of(
        kind(4, 3).double(), lambda m, b: (m(b.double()[:, None])[0].square().sum(), len(b))
    )
    v = torch.randn(objective.params.numel, dtype=torch.float64)
    step = 1e-5 * v
    ahead, behind = (objective.value_and_grad(objective.theta + s * step)[1] for s in (1, -1))
    torch.testing.assert_close(objective.hvp(v), (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-8)


class Elsewhere(torch.Tensor):
    """A tensor that says that it lies on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


def moving(share, kind):
    """Return a loss that changes by a share from one evaluation to the next."""
    factors = iter([1.0, 1.0 + share])
    return lambda batch: (kind(torch.tensor(3.0) * next(factors)), 1)


def test_two_evaluations_agree_bit_for_bit_but_on_devices_that_add_in_any_order():
    assert checks.total_weight(moving(3e-6, Elsewhere), [None])[0] == 1
    for share, kind in ((3e-6, torch.Tensor.clone), (1e-3, Elsewhere)):
        with pytest.raises(ll.InputError, match="differs between two evaluations"):
            checks.total_weight(moving(share, kind), [None])
    assert checks.repeatability(torch.device("cpu")) == {}
    assert "1e-05" in checks.repeatability(torch.device("cuda"))["evaluations"]


def test_a_packed_sequence_moves_without_its_sizes():
    packed = pack_sequence([torch.randn(3, 4), torch.randn(5, 4)], enforce_sorted=False)
    moved = mapped(packed, lambda t: t.to("meta"))
    assert moved.data.is_meta
    assert moved.sorted_indices.is_meta
    assert moved.batch_sizes.device.type == "cpu"
    model = nn.GRU(4, 3)
    found = ll.Objective(model, [packed], lambda m, b: (m(b)[0].data.square().sum(), 2)).value()
    assert found == pytest.approx(model(packed)[0].data.square().sum().item() / 2, rel=1e-5)

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

import landscape as ll
from landscape import InputError
from samrec.config import configure
from samrec.data.interactions import Interactions
from samrec.data.packing import TrainingBatches
from samrec.data.split import leave_one_out
from samrec.losses import bce, cross_entropy, fused_cross_entropy
from samrec.methods.gru4rec import GRU, GRU4Rec
from tests.histories import in_rows, outputs

CPU = torch.device("cpu")
SEQUENCES = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10], [2, 1], [11]]


def small(num_items=12, layers=1, dropout=0.5):
    """In float64, with weights far enough from 0 that every term of a second derivative counts."""
    torch.manual_seed(0)
    model = GRU4Rec(num_items, dim=4, max_length=6, layers=layers, dropout=dropout).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_packed_rows_are_torch_s_gru_history_by_history(layers):
    model = small(layers=layers).eval()
    reference = nn.GRU(4, 4, layers).double()
    with torch.no_grad():
        for k, layer in enumerate(model.layers):
            for name, linear in (("ih", layer.input), ("hh", layer.state)):
                getattr(reference, f"weight_{name}_l{k}").copy_(linear.weight)
                getattr(reference, f"bias_{name}_l{k}").copy_(linear.bias)
    found = outputs(model, in_rows(*SEQUENCES))
    for sequence, states in zip(SEQUENCES, found, strict=True):
        expected = model.out(reference(2 * model.item.weight[sequence])[0])  # 2 is √d
        torch.testing.assert_close(states, expected, rtol=1e-12, atol=1e-12)


def test_nothing_later_and_no_neighbour_is_seen():
    model = small().eval()
    before = outputs(model, in_rows(*SEQUENCES))
    for k, sequence in enumerate(SEQUENCES):
        for place in range(len(sequence)):
            changed = [list(s) for s in SEQUENCES]
            changed[k][place] = 0
            after = outputs(model, in_rows(*changed))
            for other, (was, found) in enumerate(zip(before, after, strict=True)):
                first = place if other == k else len(was)  # from here on it may differ, and does
                assert torch.equal(was[:first], found[:first])
                assert (was[first:] != found[first:]).any(1).all()


def test_empty_slots_are_zero_and_take_no_part():
    model = small().eval()
    histories = in_rows([1, 2, 3], [4, 5, 6, 7])
    found = model(histories)
    assert (histories.segments == 0).sum() == 5
    assert (found[histories.segments == 0] == 0).all()
    elsewhere = replace(histories, items=torch.where(histories.segments == 0, 9, histories.items))
    assert torch.equal(model(elsewhere), found)


def test_items_may_be_looked_up_already():
    model = small().eval()
    histories = in_rows(*SEQUENCES)
    assert torch.equal(model(histories, model.item(histories.items)), model(histories))


def test_both_derivatives_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = GRU(3).double()
    positions = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 1, 2, 0]])
    names = list(dict(layer.named_parameters()))

    def states(x, *weights):
        return functional_call(layer, dict(zip(names, weights, strict=True)), (x, positions))

    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weights = [w.detach().clone().requires_grad_() for w in layer.parameters()]
    assert torch.autograd.gradcheck(states, (x, *weights))
    assert torch.autograd.gradgradcheck(states, (x, *weights))


@pytest.fixture
def objective(split):
    batches = TrainingBatches(split, 6, CPU).of_users(split.trained[:40], 17, (0,))
    return ll.Objective(small(split.num_items, layers=2), batches, bce)


def test_products_with_the_hessian_are_differences_of_gradients(objective):
    vector = torch.randn_like(objective.theta)
    step = 1e-5
    ahead, behind = (objective.grad(objective.theta + sign * step * vector) for sign in (1, -1))
    expected = (ahead - behind) / (2 * step)
    for way in ("reverse", "forward"):
        torch.testing.assert_close(ll.hessian(objective, way)(vector), expected, rtol=1e-5, atol=1e-8)


def test_every_transformation_goes_through(split):
    """What surfaces, stacked runs and forward products ask for: `vmap` over weights and batches, `jvp`."""
    model = small(split.num_items).eval()
    (batch,) = TrainingBatches(split, 6, CPU).of_users(split.trained[:9], 9, (0,))
    weights = {name: w.detach() for name, w in model.named_parameters()}

    def loss(weights, histories):
        return functional_call(model, weights, (histories,)).square().sum()

    def of_items(weights, items):
        return loss(weights, replace(batch.inputs, items=items))

    items = torch.stack([batch.inputs.items, batch.inputs.items.flip(0)])
    several = {name: torch.stack([w, 1.1 * w]) for name, w in weights.items()}
    expected = [of_items({name: w[k] for name, w in several.items()}, items[k]) for k in (0, 1)]
    torch.testing.assert_close(vmap(of_items)(several, items), torch.stack(expected))
    slope = grad(loss)(weights, batch.inputs)
    along = jvp(lambda w: loss(w, batch.inputs), (weights,), (weights,))[1]
    torch.testing.assert_close(along, sum((slope[name] * w).sum() for name, w in weights.items()))


def test_under_autocast_the_state_keeps_its_precision(split):
    model = small(split.num_items).float().eval()
    (batch,) = TrainingBatches(split, 6, CPU).of_users(split.trained[:9], 9, (0,))
    x = model.item(batch.inputs.items)
    expected = model.layers[0](x, batch.inputs.positions)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.layers[0](x, batch.inputs.positions)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    assert not torch.equal(found, expected)


def test_both_forms_of_cross_entropy_have_one_gradient(split):
    model = small(split.num_items).eval()
    (batch,) = TrainingBatches(split, 6, CPU, 0).of_users(split.trained[:9], 9, (0,))
    weights = list(model.parameters())
    found = [torch.autograd.grad(f(model, batch)[0], weights) for f in (cross_entropy, fused_cross_entropy)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_it_learns_what_an_item_alone_does_not_tell():
    """Two cycles that cross in an item: what follows it depends on what came before."""
    cycles = [[0, 1, 2, 0, 1, 2, 0], [3, 1, 4, 3, 1, 4, 3]]
    split = leave_one_out(Interactions.from_histories(cycles, "here"))
    torch.manual_seed(0)
    model = GRU4Rec(5, dim=8, max_length=6, dropout=0.1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batches = TrainingBatches(split, 6, CPU, 0)
    for epoch in range(150):
        for batch in batches.epoch(8, (0, epoch)):
            optimizer.zero_grad()
            total, weight = fused_cross_entropy(model, batch)
            (total / weight).backward()
            optimizer.step()
    model.eval()
    assert (model(in_rows([0, 1], [3, 1]))[0] @ model.item.weight.T).argmax(-1)[[1, 3]].tolist() == [2, 4]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_the_gpu_finds_the_same_loss_and_hessian(split):
    found = []
    for device in (CPU, torch.device("cuda")):
        batches = TrainingBatches(split, 6, device).of_users(split.trained[:40], 17, (0,))
        objective = ll.Objective(small(split.num_items).to(device), batches, bce)
        vector = torch.ones_like(objective.theta)
        products = [ll.hessian(objective, way)(vector).cpu() for way in ("reverse", "forward")]
        found.append((torch.tensor(objective.value()), objective.grad().cpu(), *products))
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_cpu, on_gpu)


def test_its_dimension_is_not_one_of_heads():
    assert configure({"data": "d.txt", "method": "gru4rec", "dim": 7}).dim == 7
    with pytest.raises(InputError, match="dim 7 is not a multiple of heads 2"):
        configure({"data": "d.txt", "dim": 7})

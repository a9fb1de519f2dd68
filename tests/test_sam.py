import copy

import pytest
import torch
from torch import nn

from samrec import SAM


def stepping(model, optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    return closure


def parameter(values):
    module = nn.Module()
    module.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    return module


def test_a_step_on_a_quadratic_is_the_closed_form():
    """L = wᵀAw/2: w' = w - lr A (w + ρ Aw/‖Aw‖)."""
    A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    model = parameter([1.0, -2.0])
    w = model.w.detach().clone()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    loss = optimizer.step(stepping(model, optimizer, lambda m: m.w @ A @ m.w / 2))
    g = A @ w
    torch.testing.assert_close(model.w.detach(), w - 0.1 * A @ (w + 0.5 * g / g.norm()))
    assert loss.item() == pytest.approx(float(w @ A @ w / 2))  # the loss at w, not above it


def test_the_norm_is_over_all_parameters_and_groups():
    model = nn.ModuleList([parameter([3.0]), parameter([4.0])])
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.0}]
    optimizer = SAM(groups, torch.optim.SGD, rho=1.0, lr=0.1)
    (model[0].w.sum() * 3 + model[1].w.sum() * 4).backward()
    optimizer.first_step()
    assert model[0].w.item() == pytest.approx(3 + 3 / 5)
    assert model[1].w.item() == pytest.approx(4 + 4 / 5)
    optimizer.second_step()
    assert [m.w.item() for m in model] == [3.0, 4.0]


def test_weights_come_back_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Linear(50, 50)
    before = copy.deepcopy(model.state_dict())
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.0)
    for _ in range(5):
        optimizer.step(stepping(model, optimizer, lambda m: m(torch.ones(50)).square().sum()))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_parameter_without_a_second_gradient_comes_back_too():
    model = nn.ModuleList([parameter([1.0]), parameter([1.0])])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.0)
    passes = []

    def closure():
        optimizer.zero_grad(set_to_none=True)
        used = model[0].w + model[1].w if not passes else model[0].w
        passes.append(1)
        loss = used.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert model[1].w.grad is None
    assert model[1].w.item() == 1.0


def test_weights_come_back_when_the_second_pass_raises():
    model = parameter([1.0, 2.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
    passes = []

    def closure():
        passes.append(1)
        if len(passes) == 2:
            raise RuntimeError("out of memory")
        loss = model.w.square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert model.w.tolist() == [1.0, 2.0]


def test_a_zero_gradient_moves_nothing():
    model = parameter([0.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
    optimizer.step(stepping(model, optimizer, lambda m: m.w.square().sum()))
    assert model.w.item() == 0.0


def test_both_passes_see_one_dropout_mask_and_the_stream_goes_on():
    torch.manual_seed(0)
    dropout, x = nn.Dropout(0.5), torch.ones(1000)
    model = parameter([1.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.0)
    masks = []

    def loss(m):
        masks.append(dropout(x))
        return (m.w * masks[-1].double()).sum()

    for _ in range(2):
        optimizer.step(stepping(model, optimizer, loss))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


def run(rho, base, steps=4, saved=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    optimizer = SAM(model.parameters(), base, rho=rho, lr=0.1)
    x = torch.randn(8, 3).double()
    for step in range(steps):
        if step == saved:
            model_state, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model = nn.Linear(3, 1).double()
            model.load_state_dict(model_state)
            optimizer = SAM(model.parameters(), base, rho=9.0, lr=9.0)
            optimizer.load_state_dict(state)
        optimizer.step(stepping(model, optimizer, lambda m: (m(x) ** 3).sum()))
    return model.weight.detach()


def test_without_a_radius_it_is_the_wrapped_optimizer():
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.randn(8, 3).double()
    for _ in range(4):
        optimizer.step(stepping(model, optimizer, lambda m: (m(x) ** 3).sum()))
    assert torch.equal(run(0.0, torch.optim.Adam), model.weight.detach())


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
def test_a_saved_state_continues_bit_for_bit(base):
    assert torch.equal(run(0.2, base), run(0.2, base, saved=2))


def test_schedulers_reach_the_wrapped_optimizer():
    model = parameter([1.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step(stepping(model, optimizer, lambda m: m.w.sum()))
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("rho", [-1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(rho):
    with pytest.raises(ValueError, match="rho is"):
        SAM(nn.Linear(1, 1).parameters(), torch.optim.SGD, rho=rho, lr=0.1)


def test_a_step_without_a_closure_is_refused():
    with pytest.raises(ValueError, match="needs a closure"):
        SAM(nn.Linear(1, 1).parameters(), torch.optim.SGD, lr=0.1).step()

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from samrec import SAM
from tests.sams import closing


def stepping(model, optimizer, loss):
    return closing(optimizer, lambda: loss(model))


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


def test_the_numbers_of_every_device_are_drawn_again(monkeypatch):
    """Of all parameters' devices, not of the first one's alone; a stand-in is another device's generator."""
    stands, seen = torch.zeros(1), []
    kind = SimpleNamespace(get_rng_state=lambda _: stands.clone(), set_rng_state=lambda s, _: stands.copy_(s))
    monkeypatch.setattr(torch, "meta", kind, raising=False)
    model = parameter([1.0])
    elsewhere = nn.Parameter(torch.ones(2, device="meta"))
    optimizer = SAM([*model.parameters(), elsewhere], torch.optim.SGD, rho=1.0, lr=0.0)

    def loss(m):
        seen.append(stands.item())
        stands.add_(1)
        return m.w.sum()

    for _ in range(2):
        optimizer.step(stepping(model, optimizer, loss))
    assert seen == [0, 0, 1, 1]


def run(rho, base, steps=4, saved=None, **settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    optimizer = SAM(model.parameters(), base, rho=rho, lr=0.1, **settings)
    x = torch.randn(8, 3).double()
    for step in range(steps):
        if step == saved:
            model_state, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model = nn.Linear(3, 1).double()
            model.load_state_dict(model_state)
            optimizer = SAM(model.parameters(), base, rho=9.0, lr=9.0, **settings)
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
@pytest.mark.parametrize("every", [1, 3])
def test_a_saved_state_continues_bit_for_bit(base, every):
    for saved in (0, 2):  # with every=3, before the first direction and between two
        assert torch.equal(run(0.2, base, every=every), run(0.2, base, saved=saved, every=every))


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


A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)


def quadratic(m):
    return m.w @ A @ m.w / 2


def test_an_adaptive_step_is_the_closed_form():
    """ASAM: e = ρ T²g/‖Tg‖ with T = diag(|w| + η)."""
    model = parameter([1.0, -2.0])
    w = model.w.detach().clone()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, adaptive=True, lr=0.1)
    optimizer.step(stepping(model, optimizer, quadratic))
    g, T = A @ w, w.abs() + 0.01
    e = 0.5 * T**2 * g / (T * g).norm()
    torch.testing.assert_close(model.w.detach(), w - 0.1 * A @ (w + e))


def test_an_adaptive_step_does_not_change_with_the_scale_of_the_weights():
    """What ASAM is for: L(w) = L'(c w) at w and at c w. With η = 0 the rises would be the same exactly."""
    rises = []
    for c in (1.0, 1000.0):
        model = parameter([c, -2 * c])
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, adaptive=True, lr=0.0)
        losses = []

        def closure(model=model, optimizer=optimizer, losses=losses, c=c):
            optimizer.zero_grad()
            losses.append(model.w @ A @ model.w / 2 / c**2)
            losses[-1].backward()
            return losses[-1]

        optimizer.step(closure)
        rises.append(float((losses[1] - losses[0]).detach()))
    assert rises[0] == pytest.approx(rises[1], rel=0.02)


def test_a_kept_direction_is_used_again_and_costs_one_pass():
    model = parameter([1.0, -2.0])
    w = model.w.detach().clone()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, every=3, lr=0.1)
    passes, direction = [], None
    for step in range(7):
        if step % 3 == 0:
            direction = A @ w / (A @ w).norm()
        assert optimizer.climbs is (step % 3 == 0)

        def closure():
            passes.append(model.w.detach().clone())
            return stepping(model, optimizer, quadratic)()

        optimizer.step(closure)
        torch.testing.assert_close(passes[-1], w + 0.5 * direction)
        w = w - 0.1 * A @ (w + 0.5 * direction)
        torch.testing.assert_close(model.w.detach(), w)
    assert len(passes) == 7 + 3


def test_a_direction_that_was_never_found_is_looked_for():
    """A schedule that starts at radius 0 passes the step in which the direction would have been found."""
    model = parameter([1.0, -2.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.0, every=3, lr=0.1)
    optimizer.step(stepping(model, optimizer, quadratic))
    optimizer.rho = 0.5
    w = model.w.detach().clone()
    optimizer.step(stepping(model, optimizer, quadratic))
    torch.testing.assert_close(model.w.detach(), w - 0.1 * A @ (w + 0.5 * A @ w / (A @ w).norm()))


def test_only_the_chosen_groups_are_perturbed_and_all_are_optimized():
    model = nn.ModuleList([parameter([3.0]), parameter([4.0])])
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "perturb": False}]
    optimizer = SAM(groups, torch.optim.SGD, rho=1.0, lr=0.1)
    seen = []

    def loss(m):
        seen.append([m[0].w.item(), m[1].w.item()])
        return 3 * m[0].w.sum() + 4 * m[1].w.sum()

    optimizer.step(stepping(model, optimizer, loss))
    assert seen == [[3.0, 4.0], [4.0, 4.0]]  # a norm of 3, not of 5
    assert [m.w.item() for m in model] == pytest.approx([3 - 0.3, 4 - 0.4])


def test_each_micro_batch_climbs_by_its_own_gradient():
    """m-sharpness: the gradients above are those of the two losses, each at a point of its own."""
    model = parameter([1.0, -2.0])
    w = model.w.detach().clone()
    B = torch.tensor([[1.0, -1.0], [-1.0, 4.0]], dtype=torch.float64)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    model.w.grad = torch.full_like(w, 7.0)  # left over from elsewhere; closures need not clear it

    def share(matrix):
        def closure():
            loss = model.w @ matrix @ model.w / 2
            loss.backward()
            return loss.detach()

        return closure

    loss = optimizer.step([share(A), share(B)])
    expected = sum(M @ (w + 0.5 * M @ w / (M @ w).norm()) for M in (A, B))
    torch.testing.assert_close(model.w.detach(), w - 0.1 * expected)
    torch.testing.assert_close(loss, w @ (A + B) @ w / 2)


def test_accumulated_micro_batches_climb_by_their_sum():
    model, together = parameter([1.0, -2.0]), parameter([1.0, -2.0])
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)

    def closure():
        optimizer.zero_grad()
        for part in (0.3, 0.7):
            (part * quadratic(model)).backward()
        return quadratic(model).detach()

    optimizer.step(closure)
    whole = SAM(together.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    whole.step(stepping(together, whole, quadratic))
    torch.testing.assert_close(model.w, together.w)


def test_clipping_cuts_the_gradient_above_and_leaves_the_ascent():
    model = parameter([1.0, -2.0])
    w = model.w.detach().clone()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)

    def clip(*_):
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)

    optimizer.base.register_step_pre_hook(clip)
    optimizer.step(stepping(model, optimizer, quadratic))
    above = A @ (w + 0.5 * A @ w / (A @ w).norm())
    torch.testing.assert_close(model.w.detach(), w - 0.1 * 0.25 * above / above.norm(), rtol=1e-5, atol=0)


def test_half_precision_passes_leave_weights_in_full_precision():
    torch.manual_seed(0)
    model, x = nn.Linear(20, 20), torch.randn(8, 20)
    optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.1, lr=1e-2)
    losses = []
    for _ in range(30):

        def closure():
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = (model(x) - 1).square().mean()
            loss.backward()
            return loss.detach()

        losses.append(float(optimizer.step(closure)))
    assert losses[-1] < losses[0] / 2
    assert model.weight.dtype == torch.float32


def test_several_closures_with_a_kept_direction_are_refused():
    optimizer = SAM(nn.Linear(1, 1).parameters(), torch.optim.SGD, every=2, lr=0.1)
    with pytest.raises(ValueError, match="every reuses one direction"):
        optimizer.step([lambda: None, lambda: None])


def test_every_must_be_a_count():
    with pytest.raises(ValueError, match="every is 0"):
        SAM(nn.Linear(1, 1).parameters(), torch.optim.SGD, every=0, lr=0.1)

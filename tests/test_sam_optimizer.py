"""SAM is an optimizer like any other: groups, copies, state dicts, scalers, all kinds of models."""

import copy
import pickle

import pytest
import torch
from torch import nn

from samrec import SAM
from tests.sams import BASES, network, optimizer_of, parts_of

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)


def vector(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def closing(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    return closure


def fit(model, optimizer, steps):
    for step in steps:
        ((x, y, _),) = parts_of(step, False)
        optimizer.step(closing(optimizer, lambda x=x, y=y: (model(x) - y).square().mean()))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# Groups


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_group_that_is_added_is_as_if_it_had_been_there(base, every):
    kind, settings = BASES[base]
    one, two = network(), network()
    whole = SAM(
        [{"params": one[0].parameters()}, {"params": one[2].parameters()}], kind, every=every, **settings
    )
    grown = SAM(two[0].parameters(), kind, every=every, **settings)
    grown.add_param_group({"params": two[2].parameters()})
    assert grown.param_groups is grown.base.param_groups
    assert grown.param_groups[1].keys() == whole.param_groups[1].keys()
    for model, optimizer in ((one, whole), (two, grown)):
        fit(model, optimizer, range(5))
    assert torch.equal(weights(one), weights(two))


def test_a_group_added_between_climbs_takes_part_at_once():
    p, q = vector(3.0), vector(4.0)
    optimizer = SAM([p], torch.optim.SGD, rho=1.0, every=5, lr=0.0)
    loss = closing(optimizer, lambda: 3 * p.sum() + 4 * q.sum())
    optimizer.step(loss)
    optimizer.add_param_group({"params": [q]})
    assert optimizer.climbs
    loss()
    optimizer.first_step()
    assert [p.item(), q.item()] == pytest.approx([3 + 3 / 5, 4 + 4 / 5])


@pytest.mark.parametrize("set_later", [False, True])
def test_each_group_has_its_own_radius(set_later):
    """e_i = ρ_i g_i / ‖g‖, with ‖g‖ over all that is perturbed, of radius 0 too."""
    p, q, r, still = vector(1.0, -2.0), vector(3.0), vector(4.0), vector(5.0)
    rhos = (0.5, 0.2, 0.0)
    groups = [
        {"params": [t], "rho": 9.0 if set_later else rho} for t, rho in zip((p, q, r), rhos, strict=True)
    ]
    optimizer = SAM([*groups, {"params": [still], "perturb": False}], torch.optim.SGD, lr=0.1)
    if set_later:
        for group, rho in zip(optimizer.param_groups, rhos, strict=False):
            group["rho"] = rho
    before = [t.detach().clone() for t in (p, q, r, still)]
    optimizer.step(
        closing(optimizer, lambda: p @ A @ p / 2 + sum(t.square().sum() / 2 for t in (q, r, still)))
    )
    w, x, y, z = before
    norm = torch.cat([A @ w, x, y]).norm()
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ (w + 0.5 * A @ w / norm))
    torch.testing.assert_close(q.detach(), x - 0.1 * (x + 0.2 * x / norm))
    torch.testing.assert_close(r.detach(), y - 0.1 * y)
    torch.testing.assert_close(still.detach(), z - 0.1 * z)


def test_rho_is_that_of_all_groups_or_of_none():
    optimizer = SAM(
        [{"params": [vector(1.0)]}, {"params": [vector(1.0)], "rho": 0.3}], torch.optim.SGD, lr=0.1
    )
    with pytest.raises(ValueError, match="the groups differ in rho"):
        _ = optimizer.rho
    optimizer.rho = 0.7
    assert [group["rho"] for group in optimizer.param_groups] == [0.7, 0.7]
    assert optimizer.rho == 0.7


def test_a_rho_of_the_wrapped_optimizers_own_is_left_alone():
    optimizer = SAM([vector(1.0)], torch.optim.Adadelta, rho=0.3)
    assert (optimizer.param_groups[0]["rho"], optimizer.param_groups[0]["sam_rho"]) == (0.9, 0.3)
    optimizer.rho = 0.1
    assert (optimizer.param_groups[0]["rho"], optimizer.param_groups[0]["sam_rho"]) == (0.9, 0.1)


def test_a_bad_group_is_refused_and_not_added():
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    twin = nn.Parameter(torch.zeros(1))
    twin.data = p.data
    for bad, said in (
        ({"params": [vector(1.0)], "rho": -1.0}, "rho is"),
        ({"params": [twin]}, "share their storage"),
    ):
        with pytest.raises(ValueError, match=said):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_to_maximize_is_to_minimize_the_negative(base):
    found = []
    for sign, maximize in ((1.0, True), (-1.0, False)):
        p = vector(1.0, -2.0)
        optimizer = SAM([p], base, rho=0.5, lr=0.1, maximize=maximize)
        for _ in range(3):
            optimizer.step(closing(optimizer, lambda p=p, sign=sign: sign * (p @ A @ p).cos()))
        found.append(p.detach())
    torch.testing.assert_close(*found)


# Copies and states


@pytest.mark.parametrize("how", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_copy_goes_on_as_the_original(how, base, every):
    model = network()
    optimizer = optimizer_of(model, base, every=every)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # which puts a method of its own into the optimizer
    fit(model, optimizer, range(2))
    twin, other = how((model, optimizer))
    assert other.param_groups is other.base.param_groups
    assert other.state is other.base.state
    fit(twin, other, range(2, 6))
    assert not torch.equal(weights(twin), weights(model))
    fit(model, optimizer, range(2, 6))
    assert torch.equal(weights(twin), weights(model))


def test_no_copy_is_made_above_w():
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    p.sum().backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="call second_step"):
        copy.deepcopy(optimizer)
    with pytest.raises(RuntimeError, match="call second_step"):
        optimizer.first_step()


@pytest.mark.parametrize("base", BASES)
def test_a_state_of_the_plain_optimizer_goes_on(base):
    """With its moments and lr; the radius is SAM's own. And back."""
    kind, settings = BASES[base]
    one, two = network(), network()
    plain = kind(one.parameters(), **settings | {"lr": 0.01})
    zero = SAM(two.parameters(), kind, rho=0.0, **settings | {"lr": 0.01})
    for model, optimizer in ((one, plain), (two, zero)):
        fit(model, optimizer, range(3))
    optimizer = SAM(one.parameters(), kind, rho=0.3, **settings)
    optimizer.load_state_dict(plain.state_dict())
    assert (optimizer.rho, optimizer.param_groups[0]["lr"]) == (0.3, 0.01)
    zero.rho = 0.3
    for model, own in ((one, optimizer), (two, zero)):
        fit(model, own, range(3, 6))
    assert torch.equal(weights(one), weights(two))
    plain.load_state_dict(optimizer.state_dict())
    assert plain.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def others(optimizer, base_state=True):
    """The state as another SAM writes it: its weights beside the moments, or moments apart."""
    state = copy.deepcopy(optimizer.base.state_dict())
    mine = {number: {"old_p": torch.zeros(1)} for number in range(4)}
    for group in state["param_groups"]:
        group |= {"rho": 0.7, "adaptive": False}
    if base_state:
        mine = {number: entry | mine[number] for number, entry in state["state"].items()}
    return {"state": mine, "param_groups": state["param_groups"]}


@pytest.mark.parametrize("form", ["beside", "apart"])
def test_a_state_of_another_sam_goes_on(form):
    model = network()
    optimizer = optimizer_of(model, "adam")
    fit(model, optimizer, range(3))
    state = others(optimizer)
    if form == "apart":
        state = others(optimizer, base_state=False) | {
            "base_optimizer": copy.deepcopy(optimizer.base.state_dict())
        }
    twin = copy.deepcopy(model)
    other = optimizer_of(twin, "adam", rho=0.1)
    other.load_state_dict(state)
    assert other.rho == (0.7 if form == "beside" else 0.3)
    assert "adaptive" not in other.param_groups[0]
    optimizer.rho = other.rho
    for network_, own in ((model, optimizer), (twin, other)):
        fit(network_, own, range(3, 6))
    assert torch.equal(weights(model), weights(twin))
    assert "old_p" not in next(iter(other.state.values()))


def test_a_state_written_before_groups_had_their_radius_goes_on():
    model = network()
    optimizer = optimizer_of(model, "adam", every=3)
    fit(model, optimizer, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["rho"]
    twin = copy.deepcopy(model)
    other = optimizer_of(twin, "adam", rho=0.1, every=3)
    other.load_state_dict(state | {"rho": 0.3})
    for network_, own in ((model, optimizer), (twin, other)):
        fit(network_, own, range(2, 6))
    assert torch.equal(weights(model), weights(twin))


def stateful(base):
    model = network()
    optimizer = optimizer_of(model, base)
    fit(model, optimizer, range(2))
    return optimizer


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            lambda: others(stateful("adam"), base_state=False),
            "no exp_avg, exp_avg_sq, step, which Adam keeps",
        ),
        (lambda: others(stateful("sgd")), "no exp_avg"),
        (lambda: {"state": {}, "param_groups": []}, "different number of parameter groups"),
        (lambda: {"model": {}, "epoch": 3}, "not an optimizer's state: .* its keys are model, epoch"),
        (
            lambda: {"state": {}, "param_groups": [{"params": [0, 1, 2, 3], "adaptive": True}]},
            "adaptive=True",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_one_line(state, said):
    model = network()
    optimizer = optimizer_of(model, "adam")
    fit(model, optimizer, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=said) as refused:
        optimizer.load_state_dict(state())
    assert "\n" not in str(refused.value)
    assert str(optimizer.state_dict()) == str(before)


def test_hooks_of_states_and_steps_are_called():
    model = network()
    optimizer = optimizer_of(model, "sgd")
    called = []
    optimizer.register_state_dict_pre_hook(lambda _: called.append("save"))
    optimizer.register_state_dict_post_hook(lambda _, state: state | {"mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: called.append(state.pop("mine")))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("loaded"))
    optimizer.register_step_post_hook(lambda *_: called.append("step"))
    fit(model, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["step", "save", 1, "loaded"]


# Passes


def test_a_radius_of_zero_in_two_steps_is_the_plain_optimizer():
    p, q = vector(1.0, -2.0), vector(1.0, -2.0)
    optimizer, plain = SAM([p], torch.optim.SGD, rho=0.0, lr=0.1), torch.optim.SGD([q], lr=0.1)
    for _ in range(2):
        (p @ A @ p).backward()
        optimizer.first_step()
        (p @ A @ p).backward()
        optimizer.second_step(zero_grad=True)
        plain.zero_grad()
        (q @ A @ q).backward()
        plain.step()
    assert torch.equal(p, q)
    assert p.grad is None


def test_a_second_step_needs_a_first():
    optimizer = SAM([vector(1.0)], torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match="second_step comes after first_step"):
        optimizer.second_step()


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_a_closure_without_backward_is_refused(rho):
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, rho=rho, lr=0.1)
    with pytest.raises(ValueError, match=r"it has to call loss\.backward"):
        optimizer.step(p.sum)
    p.sum().backward()  # its gradient is no closure's
    if rho:
        with pytest.raises(ValueError, match=r"it has to call loss\.backward"):
            optimizer.step(p.sum)
    assert p.item() == 1.0


@pytest.mark.parametrize("every", [1, 2])
def test_gradients_gathered_outside_of_the_closure_are_refused(every):
    """As Lightning accumulates: the second pass would miss them."""
    model = network()
    optimizer = optimizer_of(model, "sgd", every=every)
    fit(model, optimizer, range(1))
    (x, y, _), (u, v, _) = parts_of(1, True)
    optimizer.zero_grad()
    (model(x) - y).square().mean().backward()
    before = weights(model)

    def closure():
        loss = (model(u) - v).square().mean()
        loss.backward()
        return loss.detach()

    with pytest.raises(ValueError, match="accumulate inside of the closure"):
        optimizer.step(closure)
    assert torch.equal(weights(model), before)
    fit(model, optimizer, range(1, 4))  # a closure that clears them is as well as ever


def test_a_loop_that_calls_backward_before_a_closure_that_does_is_right():
    p, q = vector(1.0, -2.0), vector(1.0, -2.0)
    pasted, right = (SAM([t], torch.optim.SGD, rho=0.5, lr=0.1) for t in (p, q))

    def closure():
        loss = p @ A @ p
        loss.backward()
        return loss

    for _ in range(3):
        (p @ A @ p).backward()
        pasted.step(closure)
        pasted.zero_grad()
        right.step(closing(right, lambda: q @ A @ q))
    torch.testing.assert_close(p, q, rtol=1e-12, atol=0)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_overflow_skips_the_step(where):
    """In the first pass, the second, or both (a GradScaler's, or not): w is as it was, nothing is NaN."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.3, every=2, lr=0.1)
    x = torch.randn(8, 4, dtype=torch.float64)
    before = weights(model)
    for number in range(2):
        huge = float("inf") if where in (number, 2) else 1.0
        (huge * model(x).square().mean()).backward()
        if number == 0:
            optimizer.first_step()
    with pytest.warns(UserWarning, match="the step is skipped"):
        optimizer.second_step()
    assert torch.equal(weights(model), before)
    assert all(t.isfinite().all() for t in model.state_dict().values())
    assert not optimizer.state
    assert optimizer.climbs
    optimizer.zero_grad()
    optimizer.step(closing(optimizer, lambda: model(x).square().mean()))
    assert weights(model).isfinite().all()


def test_a_scaler_takes_no_closure():
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    with pytest.raises(ValueError, match="GradScaler takes no closure"):
        scaler.step(optimizer, p.sum)


def test_unscaled_gradients_may_be_clipped():
    found = []
    for scaled in (True, False):
        p = vector(1.0, -2.0)
        optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        scaler.scale(p @ A @ p).backward()
        optimizer.first_step()
        scaler.scale(p @ A @ p).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p], 0.25)
        scaler.step(optimizer)
        scaler.update()
        found.append(p.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


# Models


class Halves(nn.Module):
    """BatchNorm in a part that is called from a certain step on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.second = nn.Sequential(
            nn.Conv1d(3, 3, 1),
            nn.InstanceNorm1d(3, track_running_stats=True),
            nn.BatchNorm1d(3, momentum=None, affine=False),
        )

    def loss(self, x, step):
        h = self.first(x)
        return (self.second(h.T[None]) if step else h).exp().mean()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("style", ["closure", "two", "compiled"])
def test_running_statistics_are_those_of_the_first_pass(style):
    torch.manual_seed(0)
    model = Halves()
    reference = copy.deepcopy(model)
    if style == "compiled":
        called = torch.compile(model.first, backend="eager")
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    for step in range(4):
        x = torch.randn(8, 4)

        def loss(x=x, step=step):
            return called(x).exp().mean() if style == "compiled" else model.loss(x, step)

        reference.load_state_dict({**reference.state_dict(), **dict(model.named_parameters())})
        with torch.no_grad():
            reference.loss(x, 0 if style == "compiled" else step)
        if style == "two":
            loss().backward()
            optimizer.first_step()
            loss().backward()
            optimizer.second_step(zero_grad=True)
        else:
            optimizer.step(closing(optimizer, loss))
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, dict(reference.named_buffers())[name], msg=name)


@pytest.mark.parametrize(
    "settings", [{}, {"every": 2}, {"adaptive": True}, {"variant": "friendly"}, {"variant": "gsam"}]
)
def test_a_sparse_gradient_is_the_dense_one(settings):
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Linear(3, 1)).double()
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **settings)
        for batch in ([1, 2, 2], [2, 5, 1], [0, 1, 1]):
            rows = torch.tensor(batch)
            optimizer.step(closing(optimizer, lambda model=model, rows=rows: model(rows).exp().sum()))
        shares = [lambda m=model, o=optimizer, r=r: shared(m, r) for r in ([1, 2], [2, 0])]
        if not settings:
            optimizer.step(shares)
        found.append(weights(model))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


def shared(model, rows):
    loss = model(torch.tensor(rows)).exp().sum()
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda p: SAM([p], torch.optim.LBFGS), ValueError, "LBFGS calls the closure itself"),
        (lambda p: SAM([p], torch.optim.SGD([p], lr=0.1)), TypeError, "give its class"),
        (lambda p: SAM([p, nn.Parameter(p.data)], torch.optim.SGD), ValueError, "share their storage"),
    ],
)
def test_what_sam_cannot_be_built_of_is_refused(made, error, said):
    with pytest.raises(error, match=said):
        made(vector(1.0))

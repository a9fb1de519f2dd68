"""SAM copied, pickled, saved and loaded, by itself or by another optimizer."""

import copy
import pickle

import pytest
import torch

from samrec import SAM
from tests.sams import BASES, closing, fit, network, optimizer_of, parts_of, vector, weights


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


def test_a_state_of_another_class_leaves_what_it_does_not_name_and_begins_anew():
    """What is perturbed stays, and nothing is remembered of the steps before it was loaded."""
    found = []
    for used in (True, False):
        p, q = vector(1.0, -2.0), vector(3.0)
        groups = [{"params": [p]}, {"params": [q], "perturb": False}]
        optimizer = SAM(groups, torch.optim.SGD, rho=0.3, lr=0.1, variant="friendly")
        loss = closing(optimizer, lambda p=p, q=q: p.exp().sum() * q.sum())
        before = [t.detach().clone() for t in (p, q)]
        plain = torch.optim.SGD([{"params": [p]}, {"params": [q]}], lr=0.1)
        for _ in range(2 if used else 0):
            optimizer.step(loss)
        with torch.no_grad():
            for t, old in zip((p, q), before, strict=True):
                t.copy_(old)
        optimizer.load_state_dict(plain.state_dict())
        assert [group.get("perturb", True) for group in optimizer.param_groups] == [True, False]
        for _ in range(2):
            optimizer.step(loss)
        found.append(torch.cat([p, q]).detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_ball_of_another_sam_is_asked_where_its_moments_lie_apart(adaptive):
    model = network()
    optimizer = optimizer_of(model, "adam")
    fit(model, optimizer, range(2))
    state = {
        "state": {},
        "param_groups": [{"params": [0, 1, 2, 3], "adaptive": adaptive}],
        "base_optimizer": copy.deepcopy(optimizer.base.state_dict()),
    }
    other = optimizer_of(network(), "adam", adaptive=True)
    if adaptive:
        other.load_state_dict(state)
    else:
        with pytest.raises(ValueError, match="SAM with adaptive=False"):
            other.load_state_dict(state)


@pytest.mark.parametrize("variant", ["sam", "looksam"])
@pytest.mark.parametrize("wrong", ["fewer", "shape"])
def test_directions_that_do_not_fit_are_refused_and_change_nothing(variant, wrong):
    settings = {"every": 3, "variant": variant}
    model = network()
    optimizer = optimizer_of(model, "adam", **settings)
    fit(model, optimizer, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    kept = state["directions" if variant == "sam" else variant]
    if wrong == "fewer":
        kept.pop()
    else:
        kept[0] = kept[0].T
    other = optimizer_of(network(), "adam", **settings)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="the state keeps"):
        other.load_state_dict(state)
    assert str(other.state_dict()) == str(before)


def test_a_state_keeps_the_moments_that_its_own_settings_ask_for():
    """Of SGD with momentum, loaded where there was none: the state's settings hold from then on."""
    one, two = network(), network()
    for model in (one, two):
        plain = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        fit(model, plain, range(3))
    optimizer = SAM(one.parameters(), torch.optim.SGD, rho=0.0, lr=1.0)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    for model, own in ((one, optimizer), (two, plain)):
        fit(model, own, range(3, 6))
    assert torch.equal(weights(one), weights(two))


@pytest.mark.parametrize("variant", ["sam", "looksam"])
def test_directions_are_loaded_in_the_precision_of_the_weights(variant):
    settings = {"every": 3, "variant": variant}
    model = network()
    optimizer = optimizer_of(model, "adam", **settings)
    fit(model, optimizer, range(1))
    single = network().float()
    other = optimizer_of(single, "adam", **settings)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (x, y, _), loss = parts_of(1, False)[0], torch.nn.functional.mse_loss
    other.step(closing(other, lambda: loss(single(x.float()), y.float())))
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    kept = other.state_dict()["directions" if variant == "sam" else variant]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_a_state_says_what_is_perturbed_and_its_directions_are_those_parameters_own():
    found = []
    for loads in (True, False):
        p, q = vector(1.0, -2.0), vector(3.0)
        groups = [{"params": [q], "perturb": False}, {"params": [p]}]
        optimizer = SAM(groups, torch.optim.SGD, rho=0.3, lr=0.1, every=3)

        def loss(p=p, q=q):
            return p.exp().sum() * q.sum()

        optimizer.step(closing(optimizer, loss))
        if loads:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = SAM([{"params": [q]}, {"params": [p]}], torch.optim.SGD, rho=0.3, lr=0.1, every=3)
            optimizer.load_state_dict(state)
        optimizer.step(closing(optimizer, loss))
        found.append(torch.cat([p, q]).detach())
    assert torch.equal(*found)

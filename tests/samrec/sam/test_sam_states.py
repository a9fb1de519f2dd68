"""SAM copied, pickled, saved and loaded, by itself or by another optimizer."""

import copy
import pickle

import pytest
import torch

from samrec import SAM
from tests.sams import BASES, fit, network, optimizer_of, vector, weights


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

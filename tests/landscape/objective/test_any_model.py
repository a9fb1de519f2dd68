"""Whatever model and data somebody brings: the numbers are those of the model itself, or one line."""

import copy
from collections import namedtuple
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import landscape as ll
from landscape import InputError, Objective
from tests.networks import Once

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 6, 4, generator=GENERATOR), torch.randint(3, (40,), generator=GENERATOR)
BATCHES = [(X[:25], Y[:25]), (X[25:], Y[25:])]
SLOW = "each evaluation takes a copy of it, which is slow"


def total(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.out = kind(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.inner(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.inner(x)[:, -1])


class Flat(nn.Module):
    """A layer on flat inputs, and whatever a case makes of it."""

    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(24, 3), nn.Linear(24, 3)

    def forward(self, x):
        return self.layer(x.flatten(1)) * self.other(x.flatten(1)).tanh()


class Tied(Flat):
    def __init__(self):
        super().__init__()
        self.other.weight = self.layer.weight


class Branching(Flat):
    """Control flow that depends on what is computed."""

    def forward(self, x):
        x = x.flatten(1)
        while x.square().mean().item() > 0.5:
            x = x / 2
        return self.layer(x) if x.sum().item() > 0 else self.other(x)


class Hoarder(Flat):
    """Reads its weights from a list, where `torch.func` does not put others."""

    def __init__(self):
        super().__init__()
        self.weights = list(self.layer.parameters())

    def forward(self, x):
        return F.linear(x.flatten(1), *self.weights) * self.other(x.flatten(1)).tanh()


class Cubic(Flat):
    def forward(self, x):
        return Once.apply(self.layer(x.flatten(1)))


MODELS = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "transformer": Attentive,
    "weight norm": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(24, 3))
    ),
    "tied": Tied,
    "branching": Branching,
    "hoarder": Hoarder,
    "torchscript": lambda: torch.jit.script(
        nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 3))
    ),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
}


def built(name):
    torch.manual_seed(1)
    return MODELS[name]()


@pytest.mark.filterwarnings(
    "ignore:.*which is slow", "ignore:.*differences of gradients", "ignore:.*torch.jit"
)
@pytest.mark.parametrize("name", MODELS)
def test_a_loss_and_its_derivatives_are_those_of_the_model_itself(name):
    model = built(name).double()
    batches = [(x.double(), y) for x, y in BATCHES]
    objective = Objective(model, batches, total)
    theta, v = 1.1 * objective.theta, torch.randn_like(objective.theta)

    named = dict(model.eval().named_parameters())
    before = {key: p.detach().clone() for key, p in named.items()}
    for key, tensor in objective.params.split(theta).items():
        named[key].data.copy_(tensor)
    whole = sum(total(model, batch)[0] for batch in batches) / 40
    torch.testing.assert_close(objective.value(theta), whole.item())
    slopes = torch.autograd.grad(whole, list(named.values()), materialize_grads=True)
    torch.testing.assert_close(objective.grad(theta), objective.params.flat(slopes))

    step = 1e-5
    ahead, behind = (objective.grad(objective.theta + sign * step * v) for sign in (1, -1))
    along = (ahead - behind) / (2 * step)
    torch.testing.assert_close(ll.hessian(objective)(v), along, rtol=1e-5, atol=1e-7)
    for key, p in named.items():
        p.data.copy_(before[key])
    assert objective.value() == Objective(model, batches, total).value()  # the model is as it was


def test_a_model_that_takes_no_swapped_weights_is_measured_by_copies_and_says_so():
    with pytest.warns(UserWarning, match=SLOW):
        objective = Objective(built("hoarder"), BATCHES, total)
    same = Flat()
    same.load_state_dict(built("hoarder").state_dict())
    plain = Objective(same, BATCHES, total)
    for measure in (lambda of: ll.plane(of, grid=5).losses, lambda of: ll.trace(of).samples):
        np.testing.assert_allclose(measure(objective), measure(plain), rtol=1e-4)


def test_a_loss_that_is_defined_here_alone_is_measured_here():
    def here(model, batch):
        if model.layer.weight[0, 0] != first:
            raise ValueError("elsewhere")
        return total(model, batch)

    model = Flat()
    first = model.layer.weight[0, 0].item()
    assert Objective(model, BATCHES, here).value() == Objective(model, BATCHES, total).value()


def test_what_torch_has_wrong_is_found_and_measured_by_differences():
    """Torch 2.13 has the second derivative of weight_norm wrong on CPUs, in both modes or in one."""
    objective = Objective(built("weight norm").double(), [(x.double(), y) for x, y in BATCHES], total)
    with pytest.raises(
        InputError, match=r"derivative of this loss wrong: Hv differs .* in 1\.parametrizations\.weight"
    ):
        ll.hessian(objective, "reverse")


def test_a_part_whose_products_are_right_proves_nothing_of_the_others():
    model = nn.Sequential(built("weight norm"), nn.Tanh(), nn.Linear(3, 3)).double()
    objective = Objective(model, [(x.double(), y) for x, y in BATCHES], total)
    objective.grad()
    assert "reverse" in ll.hessian(objective.restrict(["2.weight"])).strategy
    for of in (objective, objective.restrict(["0.1.parametrizations.weight.original1"])):
        with pytest.raises(InputError, match="derivative of this loss wrong"):
            ll.hessian(of, "reverse")


def test_a_loss_with_one_derivative_has_products_by_differences_and_says_so():
    model = Cubic().double()
    batches = [(x.double(), y) for x, y in BATCHES]
    objective = Objective(model, batches, total)
    v = torch.randn_like(objective.theta)
    with pytest.raises(InputError, match="differentiated only once"):
        objective.hvp(v)
    with pytest.raises(InputError, match="differentiated only once"):
        ll.hessian(objective, "reverse")
    with pytest.warns(UserWarning, match="products are differences of gradients"):
        operator = ll.hessian(objective)
    assert operator.strategy == "differences of gradients"

    class Twice(Cubic):
        def forward(self, x):
            return self.layer(x.flatten(1)) ** 3

    model.__class__ = Twice
    exact = Objective(model, batches, total).hvp(v)
    torch.testing.assert_close(operator(v), exact, rtol=1e-6, atol=1e-8)
    single = Objective(model.float(), BATCHES, total)
    found = ll.hessian(single, "differences")(v.float())  # in float64 inside
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-5)


def test_a_compiled_model_is_measured_uncompiled():
    model = Flat()
    compiled = torch.compile(model)
    objective = Objective(compiled, BATCHES, total)
    assert objective.value() == Objective(model, BATCHES, total).value()
    assert objective.params.entries[0].name == "layer.weight"


def test_half_precision_is_measured_in_float32_and_says_so():
    model = Flat().bfloat16()
    with pytest.warns(UserWarning, match="half precision are measured in float32"):
        objective = Objective(model, [(x.bfloat16(), y) for x, y in BATCHES], total)
    assert objective.theta.dtype == torch.float32
    exact = Objective(model.float(), [(x.bfloat16().float(), y) for x, y in BATCHES], total)
    assert objective.value() == exact.value()


def test_parameters_that_were_frozen_are_held_still():
    model = Flat()
    model.layer.requires_grad_(False)
    names = [entry.name for entry in Objective(model, BATCHES, total).params.entries]
    assert names == ["other.weight", "other.bias"]
    assert len(Objective(model, BATCHES, total, include=("layer.*",)).params.entries) == 2
    model.requires_grad_(False)
    assert len(Objective(model, BATCHES, total).params.entries) == 4


def test_a_data_loader_is_frozen_in_the_order_it_gave():
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
    objective = Objective(Flat(), loader, total)
    assert objective.count == 3
    assert objective.value() == objective.value()
    assert objective.weight == 40


def test_many_batches_are_kept_and_say_so(monkeypatch):
    monkeypatch.setattr("landscape.objective.batches.LARGE", 1000)
    with pytest.warns(UserWarning, match="all batches are kept in memory"):
        Objective(Flat(), BATCHES, total)


class Answering(Flat):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


Pair = namedtuple("Pair", ["x", "y"])


@pytest.mark.parametrize("kind", ["pairs", "named", "several", "object"])
def test_supervised_is_the_mean_of_a_criterion(kind):
    model = Flat()
    batches, expected = BATCHES, F.cross_entropy(model.eval()(X), Y).item()
    if kind == "pairs":
        batches = [Pair(*batch) for batch in BATCHES]
    elif kind == "named":
        batches = [({"x": x}, y) for x, y in BATCHES]
    elif kind == "several":
        batches = [((x,), y) for x, y in BATCHES]
    elif kind == "object":
        model.__class__ = Answering
    objective = ll.supervised(model, batches, F.cross_entropy)
    assert objective.value() == pytest.approx(expected, rel=1e-6)
    assert len(objective.per_example()[0]) == 40
    own, v = Objective(Flat(), BATCHES, total), torch.randn_like(objective.theta)
    assert own.count == objective.count
    assert float(v @ ll.gauss_newton(objective)(v)) > 0


def test_supervised_regression_is_over_all_outputs():
    model, targets = Flat(), torch.randn(40, 3)
    objective = ll.supervised(model, [(X[:25], targets[:25]), (X[25:], targets[25:])], F.mse_loss)
    assert objective.value() == pytest.approx(F.mse_loss(model(X), targets).item(), rel=1e-6)


def test_supervised_with_what_is_no_pair():
    with pytest.raises(InputError, match="must be a pair"):
        ll.supervised(Flat(), [X], F.cross_entropy)
    with pytest.raises(InputError, match="the loss of each target"):
        ll.supervised(Flat(), BATCHES, lambda outputs, y, reduction: F.cross_entropy(outputs, y))


def test_statistics_that_are_recomputed_are_those_of_the_batches_at_every_point():
    model = built("batch norm").double()
    batches = [(x.double(), y) for x, y in BATCHES]
    objective = Objective(model, batches, total, statistics="recomputed")
    theta = 1.3 * objective.theta
    own = copy.deepcopy(model)
    for key, tensor in objective.params.split(theta).items():
        own.get_parameter(key).data.copy_(tensor)
    torch.optim.swa_utils.update_bn([x for x, _ in batches], own)  # torch's own, which averages batches alike
    own.eval()
    expected = sum(total(own, batch)[0] for batch in batches).item() / 40
    assert objective.value(theta) == pytest.approx(expected, rel=1e-12)
    assert ll.line(objective, grid=5).losses.shape == (5,)
    kept = Objective(model, batches, total)
    assert [o.provenance.get("statistics") for o in (objective, kept)] == ["recomputed", None]
    assert kept.value(theta) != pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputError, match="has no derivatives"):
        objective.grad()
    with pytest.raises(InputError, match="no BatchNorm"):
        Objective(Flat(), BATCHES, total, statistics="recomputed")


def test_a_model_that_cannot_be_copied():
    model = Flat()
    model.lock = Lock()
    with pytest.raises(InputError, match=r"the model cannot be copied: .*lock"):
        Objective(model, BATCHES, total)


def test_a_loss_that_cannot_be_copied():
    class Trainer:
        def __init__(self):
            self.lock = Lock()

        def loss(self, model, batch):
            return total(model, batch)

    with pytest.raises(InputError, match=r"the loss \(with its object, .*\) cannot be copied: .*lock"):
        Objective(Flat(), BATCHES, Trainer().loss)

"""Every derivative is that of the loss, by an oracle that knows values alone, or is refused in one line."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import landscape as ll
from landscape import InputError, Objective
from landscape.objective import noise, trust
from tests.networks import KINDS, WRONG, network

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=GENERATOR).double()
Y = torch.randint(3, (30,), generator=GENERATOR)
IDS = torch.randint(1, 6, (30, 5), generator=GENERATOR)
IDS[::2, 3:] = 0
BY_DIFFERENCES = "ignore:.*differences of gradients"


def total(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def values_of(model, batch, loss=total):
    """Return θ and L(θ) of the user's own model, written into it, in the mode that it is in."""
    own = [p for p in model.parameters() if p.requires_grad]

    def value(theta):
        with torch.no_grad():
            for p, part in zip(own, torch.split(theta, [p.numel() for p in own]), strict=True):
                p.copy_(part.view_as(p))
        summed, weight = loss(model, batch)
        return float(summed.detach()) / weight

    return torch.cat([p.detach().flatten() for p in own]), value


def slope(value, theta, h=1e-5):
    steps = h * torch.eye(len(theta)).double()
    return torch.tensor([(value(theta + s) - value(theta - s)) / (2 * h) for s in steps]).double()


def curvature(value, theta, v, h=1e-3):
    """Return vᵀHv by the second difference of values."""
    return (value(theta + h * v) - 2 * value(theta) + value(theta - h * v)) / h**2


def need_right(model, batch, loss=total):
    torch.manual_seed(5)
    objective = Objective(model, [batch], loss)
    theta, value = values_of(model.eval(), batch, loss)
    v = F.normalize(torch.randn(len(theta)).double(), dim=0)
    torch.testing.assert_close(objective.theta, theta)
    assert objective.value() == pytest.approx(value(theta), rel=1e-12)
    torch.testing.assert_close(objective.grad(), slope(value, theta), rtol=1e-5, atol=1e-8)
    product = ll.hessian(objective)(v)
    assert float(product @ v) == pytest.approx(curvature(value, theta, v), rel=1e-3, abs=1e-6)
    assert objective.provenance["derivatives"].startswith("checked against the loss, ")


class Scaled(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx, z, factor):
        ctx.factor = factor
        return z.view_as(z)

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.factor, None


class Kept(torch.autograd.Function):
    """SiLU with its slope kept as a constant: right once, wrong twice, and symmetric."""

    @staticmethod
    def forward(ctx, z):
        s = torch.sigmoid(z)
        ctx.slope = s * (1 + z * (1 - s))
        return z * s

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.slope


class Net(nn.Module):
    def __init__(self, between=torch.tanh):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.between = nn.Linear(4, 5), nn.Linear(5, 3), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


class Words(nn.Module):
    def __init__(self, table):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = table, nn.Linear(4, 3)

    def forward(self, ids):
        found = self.table(ids)
        return self.out(found.mean(1) if found.dim() == 3 else found)


class LowRank(nn.Linear):
    """Folds its update into the frozen weight when it is told to evaluate, as loralib does."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, inside) / 2)
        self.up = nn.Parameter(torch.randn(outside, 2) / 3)
        self.folded = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.folded:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down).data
            self.folded = not mode
        return self

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return y if self.folded else y + x @ self.down.T @ self.up.T


class Recomputing(Net):
    def __init__(self, reentrant):
        super().__init__()
        self.c, self.reentrant = nn.Linear(5, 5), reentrant

    def forward(self, x):
        return self.b(checkpoint(lambda h: self.c(h.tanh()).tanh(), self.a(x), use_reentrant=self.reentrant))


class Gated(nn.Module):
    """Reads weights from a list behind a gate that is 0, where only a point far away tells."""

    def __init__(self):
        super().__init__()
        self.a, self.gate = nn.Linear(4, 3), nn.Parameter(torch.zeros(()))
        self.held = [self.a.weight]

    def forward(self, x):
        return self.a(x) + self.gate * F.linear(x, *self.held).sin()


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_padding_of_a_bag_is_left_out_of_its_value(mode):
    table = nn.EmbeddingBag(6, 4, mode=mode, padding_idx=0).double()
    table.weight.data[0] = 1.0
    need_right(Words(table).double(), (IDS, Y))


@pytest.mark.parametrize(
    "options", [{"scale_grad_by_freq": True}, {"sparse": True}, {"padding_idx": 0}], ids=str
)
def test_an_embedding_has_the_gradient_of_the_loss_whatever_it_shows(options):
    need_right(Words(nn.Embedding(6, 4, **options)).double(), (IDS, Y))


@pytest.mark.parametrize("evaluating", [False, True])
def test_low_rank_updates_are_measured_before_they_are_folded(evaluating):
    torch.manual_seed(0)
    model = nn.Sequential(LowRank(4, 5), nn.Tanh(), LowRank(5, 3)).double().train(not evaluating)
    objective = Objective(model, [(X, Y)], total)
    assert objective.params.numel == 34
    theta, value = values_of(model.train(), (X, Y))  # where nothing is folded
    torch.testing.assert_close(objective.grad(), slope(value, theta), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(reentrant):
    need_right(Recomputing(reentrant).double(), (X, Y))


@pytest.mark.filterwarnings(BY_DIFFERENCES, "ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm]
)
def test_normalized_weights_are_copied_with_what_their_hooks_computed(wrap):
    model = nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    total(model, (X, Y))  # leaves a tensor with a graph on the module
    need_right(model, (X, Y))


def test_a_loss_that_differentiates_inside_is_measured_as_in_training():
    model, x = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double(), X[:, :1]

    def residual(model, x):
        x = x.clone().requires_grad_()
        u = model(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return (du + u).square().sum(), len(x)

    need_right(model, x, residual)
    assert ll.plane(Objective(model, [x], residual), grid=3).losses.shape == (3, 3)


def test_a_loss_that_differentiates_by_the_weights_is_measured_too():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()

    def penalized(model, batch):
        summed, weight = total(model, batch)
        slopes = torch.autograd.grad(summed, list(model.parameters()), create_graph=True)
        return summed + 0.1 * sum(slope.square().sum() for slope in slopes), weight

    need_right(model, (X, Y), penalized)
    assert ll.plane(Objective(model, [(X, Y)], penalized), grid=3).losses.shape == (3, 3)


@pytest.mark.filterwarnings("ignore:.*which is slow")
def test_weights_in_a_second_place_behind_a_closed_gate():
    need_right(Gated().double(), (X, Y))


@pytest.mark.parametrize("between", [Kept.apply], ids=["slope kept"])
def test_a_wrong_second_derivative_is_found_though_it_is_symmetric(between):
    with pytest.warns(UserWarning, match=r"reverse mode has a derivative of this loss wrong: .* a\.weight"):
        need_right(Net(between).double(), (X, Y))
    with pytest.raises(InputError, match="derivative of this loss wrong"):
        Objective(Net(between).double(), [(X, Y)], total).hvp(torch.ones(43).double())


GRADIENTS = {
    "multiplier": (lambda h: Scaled.apply(h, 0.1), r"a\.weight, a\.bias is"),
    "reversal": (lambda h: Scaled.apply(h, -1.0), r"a\.weight, a\.bias is"),
    "straight through": (lambda h: h + ((h * 4).round() / 4 - h).detach(), r"a\.weight, a\.bias is"),
    "detached": (lambda h: h * h.detach(), r"a\.weight, a\.bias is"),
    "padding": (lambda h: h + F.embedding(torch.zeros(1).long(), h[:1] * 0 + h[:1], padding_idx=0), "a"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_that_is_not_the_slope_is_refused_by_its_parameters(name, dtype):
    between, named = GRADIENTS[name]
    objective = Objective(Net(between).to(dtype), [(X.to(dtype), Y)], total)
    for derivative in (objective.grad, lambda: ll.top_eigenpairs(objective), lambda: ll.sharpness(objective)):
        with pytest.raises(InputError, match=f"gradient of {named}.* not the slope"):
            derivative()
    unchecked = Objective(Net(between).to(dtype), [(X.to(dtype), Y)], total, check=False)
    found = ll.top_eigenpairs(unchecked, max_products=3, smallest=0)
    assert found.provenance["derivatives"] == "unchecked"


def test_a_fault_at_a_minimum_is_found_beside_it(quadratic):
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    objective = Objective(model, [X[:, :3]], lambda m, x: (Scaled.apply(m(x), 0.5).square().sum(), len(x)))
    with pytest.raises(InputError, match="gradient of weight is not the slope"):
        objective.grad()
    assert not quadratic(torch.eye(3).double(), torch.zeros(3).double()).grad().any()  # no false alarm


@pytest.mark.parametrize("unit", [1.0, 2.0**-60])
def test_a_loss_that_jumps_where_it_is_measured_is_refused(unit):
    model = nn.Linear(4, 3).double()
    nn.init.ones_(model.weight)

    def loss(model, batch):
        outputs = batch[0] @ (model.weight * model.weight.int()).T
        return unit * F.cross_entropy(outputs, batch[1], reduction="sum"), 30

    with pytest.raises(InputError, match="the loss jumps by"):
        Objective(model, [(X, Y)], loss).grad()


def test_a_loss_that_ignores_its_model_is_refused():
    model = nn.Linear(4, 3).double()
    with pytest.raises(
        InputError, match=r"uses '(weight|bias)' of your model itself; it must use the model that"
    ):
        Objective(model, [(X, Y)], lambda _, batch: total(model, batch))
    with pytest.raises(InputError, match="does not depend on any parameter that takes part"):
        Objective(model, [(X, Y)], lambda _, batch: (batch[0].sum(), 1))
    with pytest.raises(InputError, match="does not depend on any parameter that takes part"):
        Objective(Net().double(), [(X, Y)], lambda m, b: (m.a(b[0]).sum(), 1), include=("b.*",))


class Rewriting(nn.Linear):
    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.1)
        return super().forward(x)


def test_a_layer_that_rewrites_its_weights_is_refused():
    with pytest.raises(InputError, match="changes its own weights when it is evaluated"):
        Objective(Rewriting(4, 3).double(), [(X, Y)], total)


def test_what_checks_take_is_counted_and_said_once():
    objective = Objective(Net().double(), [(X, Y)], total)
    assert "derivatives" not in objective.provenance
    objective.grad()
    assert objective.provenance["derivatives"] == "checked against the loss, 3 evaluations"
    first = ll.top_eigenpairs(objective).provenance["derivatives"]
    assert ll.top_eigenpairs(objective).provenance["derivatives"] == first != "checked against the loss, 3"
    assert objective.restrict(["a.weight"]).provenance["derivatives"] == first


@pytest.mark.parametrize("between", [nn.Tanh(), *(GRADIENTS[name][0] for name in ("multiplier", "detached"))])
def test_a_slope_that_float32_cannot_tell_is_judged_by_the_gradient_of_the_graph(between, monkeypatch):
    taken = []
    monkeypatch.setattr(Objective, "grad", lambda of, grad=Objective.grad: taken.append(of) or grad(of))
    objective = Objective(Net(between), [(X.float(), Y)], lambda *of: (total(*of)[0] + 3e4, 30))
    if isinstance(between, nn.Tanh):
        ll.hessian(objective)
        assert objective.provenance["derivatives"].startswith("checked against the loss, ")
        assert all(of.theta.dtype == torch.float64 for of in taken)  # the graph has it in float32
    else:
        with pytest.raises(InputError, match=r"gradient of a.* not the slope"):
            ll.hessian(objective)


class Single(torch.autograd.Function):
    """The square, with a kernel for float32 alone."""

    @staticmethod
    def forward(ctx, z, factor):
        if z.dtype != torch.float32:
            raise RuntimeError("no kernel")
        ctx.save_for_backward(z)
        ctx.factor = factor
        return z * z

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.factor * slope * ctx.saved_tensors[0], None


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_loss_that_knows_float32_alone_is_checked_there(factor):
    objective = Objective(Net(lambda h: Single.apply(h, factor)).float(), [(X.float(), Y)], total)
    if factor == 1:
        objective.grad()
        assert objective.provenance["derivatives"].startswith("checked against the loss in float32")
    else:
        with pytest.raises(InputError, match="not the slope"):
            objective.grad()


@pytest.fixture
def taken_for_large(monkeypatch):
    """Every model in float32 is looked at as a large one is, by numbers that are folded."""
    monkeypatch.setattr(trust, "LARGE", 0)
    monkeypatch.setattr(noise, "FEW", 64)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.5])
@pytest.mark.parametrize("by", [Objective.grad, ll.hessian], ids=["gradient", "product"])
def test_a_wrong_gradient_of_a_large_model_is_refused(taken_for_large, factor, by):
    objective = Objective(Net(lambda h: Scaled.apply(h.tanh(), factor)).float(), [(X.float(), Y)], total)
    if factor == 1:
        by(objective)
        assert objective.provenance["derivatives"].startswith("checked against the loss, ")
    else:
        with pytest.raises(InputError, match="not the slope"):
            by(objective)


@pytest.mark.filterwarnings(BY_DIFFERENCES)
@pytest.mark.parametrize("seed", range(0, 8, 4))
def test_a_wrong_product_of_a_large_model_is_caught(taken_for_large, seed):
    model, data = network(WRONG["first layer"], seed, torch.float32)
    right, _ = network(KINDS["layer norm"], seed, torch.float32)
    assert ll.hessian(ll.supervised(model, data, F.cross_entropy)).strategy.startswith("differences")
    assert ll.hessian(ll.supervised(right, data, F.cross_entropy)).strategy.startswith("reverse")


def need_checked(seed, table, wrong):
    """Measure a random network; return whether its products are differences."""
    name = list(table)[seed % len(table)]
    dtype = (torch.float32, torch.float64)[seed // len(table) % 2]
    model, data = network(table[name], seed, dtype)
    objective = ll.supervised(model, data, F.cross_entropy)
    operator = ll.hessian(objective)
    assert objective.provenance["derivatives"].startswith("checked against the loss, "), name
    differences = operator.strategy.startswith("differences")
    if not wrong:
        assert not differences, (name, dtype, seed)
    return differences


@pytest.mark.filterwarnings(BY_DIFFERENCES, "ignore:.*nested tensor")
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_random_networks_raise_no_false_alarm_and_wrong_products_are_caught(count):
    for seed in range(count):
        need_checked(seed, KINDS, wrong=False)
    caught = [need_checked(seed, WRONG, wrong=True) for seed in range(count)]
    assert np.mean(caught) >= 0.95

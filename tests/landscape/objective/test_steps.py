"""Derivatives of losses in steps, in units far apart, with infinite slopes, and with noise by precision."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective
from tests.landscape.objective.test_differences import BY_DIFFERENCES, Net, X, Y, total
from tests.networks import Once


class Quantized(nn.Linear):
    """Weights in steps, whose kernel knows float32 alone; between two steps their slope is 0."""

    def forward(self, x):
        weight = self.weight.float()
        weight = weight + ((10 * weight).round() / 10 - weight).detach()
        return F.linear(x.float(), weight, self.bias.float())


@pytest.mark.parametrize("seed", range(6))
def test_a_slope_that_agrees_at_one_place_by_chance_is_not_taken_for_right(seed):
    torch.manual_seed(seed)
    model = Quantized(3, 2)
    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (8, 5)]
    with pytest.raises(InputError, match="gradient of weight is not the slope"):
        Objective(model, batches, total).grad()


class Rounded(nn.Linear):
    """Weights in the steps of eight bits, by torch's own kernels, of which one knows float32 scales alone."""

    def __init__(self, inside, outside, channels):
        super().__init__(inside, outside)
        steps = self.weight.detach().abs().amax(1) / 127
        self.register_buffer("steps", steps if channels else steps.max())
        self.register_buffer("zeros", torch.zeros(outside if channels else (), dtype=torch.int32))

    def forward(self, x):
        if self.steps.dim():
            rounded = torch.fake_quantize_per_channel_affine(
                self.weight, self.steps, self.zeros, 0, -128, 127
            )
        else:
            rounded = torch.fake_quantize_per_tensor_affine(self.weight, self.steps, self.zeros, -128, 127)
        return F.linear(x, rounded, self.bias)


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("width", [8, 256])
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_in_many_fine_steps_has_no_slope_at_any_width(seed, width, channels):
    torch.manual_seed(seed)
    model = nn.Sequential(Rounded(4, width, channels), nn.ReLU(), Rounded(width, 3, channels))
    batch = torch.randn(64, 4), torch.randint(3, (64,))
    with pytest.raises(InputError, match=r"is a step function of the weights|is not the slope of the loss"):
        Objective(model, [batch], total).grad()


class Units(nn.Module):
    """Two weights in their physical units, of which one is a hundred million times the other."""

    def __init__(self):
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor([2e4, -1e4, 3e4], dtype=torch.float64))
        self.strain = nn.Parameter(torch.tensor([1e-4, 3e-4, -2e-4], dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(x @ self.stiffness * 1e-4) + torch.sin(x @ self.strain * 1e4)


@pytest.mark.filterwarnings(BY_DIFFERENCES)
def test_products_by_differences_hold_for_weights_in_units_far_apart():
    def eigenvalues(cube):
        def loss(model, batch):
            return (cube(model(batch[0])) - batch[1]).square().sum(), 30

        found = ll.top_eigenpairs(Objective(Units(), [(X[:, :3], X[:, 3])], loss), 3)
        return np.concatenate([found.eigenvalues, found.smallest_eigenvalues])

    expected = eigenvalues(lambda z: z**3)
    np.testing.assert_allclose(eigenvalues(Once.apply), expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.filterwarnings(BY_DIFFERENCES)
@pytest.mark.parametrize("seed", range(4))
def test_products_by_differences_are_of_the_loss_whose_noise_is_others_in_float64(seed):
    torch.manual_seed(seed)
    model = Net(Once.apply).float()

    def loss(kind):
        def noisy(model, batch):
            noise = np.random.default_rng(seed).standard_normal(
                batch[0].shape, kind or str(batch[0].dtype)[6:]
            )
            return total(model, (batch[0] + 0.1 * torch.from_numpy(noise).to(batch[0]), batch[1]))

        return ll.hessian(Objective(model, [(X.float(), Y)], noisy))

    v = torch.randn(len(loss("float32").objective.theta))
    torch.testing.assert_close(loss(None)(v), loss("float32")(v), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_in_units_far_apart_raise_no_false_alarm(dtype):
    batch = X[:, :3].to(dtype), X[:, 3].to(dtype)
    objective = Objective(
        Units().to(dtype), [batch], lambda m, b: (F.mse_loss(m(b[0]), b[1], reduction="sum"), 30)
    )
    ll.hessian(objective)
    assert objective.provenance["derivatives"].startswith("checked against the loss")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("derivative", [Objective.grad, ll.hessian])
def test_a_gradient_that_is_no_number_is_refused_by_its_parameters(derivative, dtype):
    def rooted(h):
        return torch.where(h > 0, h.sqrt(), torch.zeros_like(h))  # whose slope is 0 · ∞ for negative numbers

    objective = Objective(Net(rooted).to(dtype), [(X.to(dtype), Y)], total)
    with pytest.raises(InputError, match=r"gradient of a\.weight, a\.bias is not finite"):
        derivative(objective)


class Point(nn.Module):
    def __init__(self, z):
        super().__init__()
        self.z = nn.Parameter(z)


CANCELLING = {
    "sinc": torch.sinc,
    "tanh(x)/x": lambda x: x.tanh() / x,
    "expm1(x)/x": lambda x: x.expm1() / x,
    "log1p(x)/x": lambda x: x.log1p() / x,
}


@pytest.mark.filterwarnings(BY_DIFFERENCES)
@pytest.mark.parametrize(("near", "count"), [(1e-5, 12), (1e-4, 12), (2e-4, 100_000)])
@pytest.mark.parametrize("name", CANCELLING)
def test_a_formula_that_cancels_in_float32_near_a_point_gives_the_products_of_float64(name, near, count):
    z = torch.linspace(0.5, 2.5, count)
    z[3] = near
    objective = Objective(Point(z), [0], lambda m, _: (CANCELLING[name](m.z).sum(), 1))
    along = torch.zeros(count).index_fill(0, torch.tensor([3]), 1.0)
    precise = Objective(Point(z.double()), [0], lambda m, _: (CANCELLING[name](m.z).sum(), 1), check=False)
    assert float(ll.hessian(objective)(along)[3]) == pytest.approx(
        float(ll.hessian(precise)(along.double())[3]), rel=0.05
    )


SQUARES = {
    "norm": lambda x: x.norm() ** 2,
    "modulus": lambda x: torch.view_as_complex(x.view(-1, 2)).abs().square().sum(),
    "mean by powers": lambda x: F.lp_pool1d(x.view(1, 1, -1), 2, 2).square().sum(),
}


@pytest.mark.filterwarnings(BY_DIFFERENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SQUARES)
def test_squares_of_lengths_are_curved_where_the_length_is_0_too(name, dtype):
    z = torch.zeros(6, dtype=dtype)
    operator = ll.hessian(Objective(Point(z), [0], lambda m, _: (SQUARES[name](m.z), 1)))
    torch.testing.assert_close(operator.many(torch.eye(6, dtype=dtype)), 2 * torch.eye(6, dtype=dtype))


BENT = {
    "relu²": (lambda x: x.relu() ** 2, 0.0),
    "elu": (F.elu, 0.0),
    "celu": (lambda x: F.celu(x, 0.5), 0.0),
    "selu": (F.selu, 0.0),
    "hardswish": (F.hardswish, 3.0),
    "huber": (lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"), 1.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-8, 5e-8, 1e-7, -1e-7, 1e-6])
@pytest.mark.parametrize("name", BENT)
def test_a_second_derivative_that_jumps_at_a_weight_raises_no_false_alarm(name, near, dtype):
    function, at = BENT[name]
    z = torch.cat([torch.linspace(-2, 2, 9), torch.tensor([at, at])]).to(dtype)
    z[-2:] += near * torch.tensor([1.0, -0.7], dtype=dtype)
    objective = Objective(Point(z), [0], lambda m, _: (function(m.z).sum() + m.z.cos().sum(), 1))
    assert ll.hessian(objective).strategy.startswith("reverse")


@pytest.mark.parametrize("where", ["at θ", "elsewhere", "backward"])
def test_too_little_memory_is_said_in_one_line(where):
    def greedy(m, _):
        size = 2**60 if where == "at θ" or (where == "elsewhere" and float(m.z.detach()[0]) > 50) else 1
        huge = torch.empty(size, dtype=torch.uint8).sum() * 0
        return (Greedy.apply(m.z) if where == "backward" else m.z).square().sum() + huge, 1

    def measure():
        objective = Objective(Point(torch.ones(2)), [0], greedy)
        return objective.grad() if where == "backward" else objective.value(objective.theta * 100)

    with pytest.raises(MemoryError, match=r"^too little memory for \d+ bytes; smaller batches take less$"):
        measure()


class Greedy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.view_as(z)

    @staticmethod
    def backward(ctx, slope):
        return slope + torch.empty(2**60, dtype=torch.uint8)[0]


@pytest.mark.filterwarnings(BY_DIFFERENCES, "ignore::FutureWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_is_refused_in_reverse_mode_where_its_hessian_is_not_symmetric(wrap, dtype):
    """Torch 2.13's kernel on CPUs is a third off in `weight_v`, in float64 too: the alarm is no false one."""
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    objective = Objective(model, [(X.to(dtype), Y)], total)
    by_torch = objective.unchecked()
    matrix = torch.stack([by_torch.hvp(row) for row in torch.eye(len(objective.theta), dtype=dtype)])
    symmetric = float((matrix - matrix.T).norm()) < 1e-3 * float(matrix.norm())
    assert ll.hessian(objective).strategy.startswith("reverse" if symmetric else "differences")

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
        weight = torch.fake_quantize_per_tensor_affine(self.weight.float(), 0.1, 0, -128, 127)
        return F.linear(x.float(), weight, self.bias.float())


@pytest.mark.parametrize("seed", range(6))
def test_a_slope_that_agrees_at_one_place_by_chance_is_not_taken_for_right(seed):
    torch.manual_seed(seed)
    model = Quantized(3, 2)
    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (8, 5)]
    with pytest.raises(InputError, match="gradient of weight is not the slope"):
        Objective(model, batches, total).grad()


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

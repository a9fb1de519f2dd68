"""docs/sam-step.md in numbers: what SAM's gradient is where binary cross-entropy is saturated."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from samrec import SAM
from tests.sams import closing


def gradient_of_sam(model, loss, rho):
    """The gradient that SAM hands to its optimizer: here SGD with a rate of 1 shows it as a move."""
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=rho, lr=1.0)
    optimizer.step(closing(optimizer, lambda: loss(model)))
    return [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]


class Pair(nn.Module):
    """A user's state and an item, whose score is their product."""

    def __init__(self, scale, seed):
        super().__init__()
        drawn = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.x, self.e = nn.Parameter(scale * drawn[0]), nn.Parameter(scale * drawn[1])

    def forward(self):
        return self.x @ self.e


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_dot_product_has_a_lower_score_and_decays(scale, seed):
    rho, model = 0.2, Pair(scale, seed)
    x, e = model.x.detach().clone(), model.e.detach().clone()
    n = (x @ x + e @ e).sqrt()
    share, score = rho / n, x @ e
    weight = torch.sigmoid(-((1 + share**2) * score - rho * n))
    by_x, by_e = gradient_of_sam(model, lambda pair: F.softplus(-pair()), rho)
    torch.testing.assert_close(by_x, -weight * (e - share * x))
    torch.testing.assert_close(by_e, -weight * (x - share * e))


def deep(scale):
    """A network of one output in float64, whose score is about `scale`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    with torch.no_grad():
        model[2].bias.fill_(scale)
    return model


def margin(model, batch):
    """softplus(-(s - ρ‖∇s‖)), with ρ and the input in the batch; its own gradient is taken of it."""
    rho, x = batch
    score = model(x).sum()
    slope = torch.autograd.grad(score, [*model.parameters()], create_graph=True)
    return F.softplus(-(score - rho * torch.cat([s.flatten() for s in slope]).norm()))


@pytest.mark.parametrize("scale", [-3.0, 0.0, 4.0, 9.0])
def test_one_position_has_a_margin_and_a_penalty_on_its_slope(scale):
    """To first order: what is left over falls with the square of ρ."""
    x, left = torch.randn(1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), []
    for rho in (1e-2, 1e-3):
        model = deep(scale)
        expected = torch.autograd.grad(margin(model, (rho, x)), [*model.parameters()])
        plain = torch.autograd.grad(F.softplus(-model(x).sum()), [*model.parameters()])
        found = gradient_of_sam(model, lambda m: F.softplus(-m(x).sum()), rho)
        size = torch.cat([p.flatten() for p in plain]).norm()
        left.append(
            float(torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm() / size)
        )
    assert left[0] < 0.01
    assert left[1] < left[0] / 30


def test_a_saturated_position_is_not_revived():
    """Its gradient is longer by 1 + ρ‖∇s‖ at most, however small it is."""
    x, rho, longer = torch.ones(1, 4, dtype=torch.float64), 1e-3, []
    for scale in (0.0, 5.0, 20.0):
        model = deep(scale)
        score = model(x).sum()
        slope = torch.cat([s.flatten() for s in torch.autograd.grad(score, [*model.parameters()])]).norm()
        q = torch.sigmoid(-score.detach())
        found = torch.cat(
            [g.flatten() for g in gradient_of_sam(model, lambda m: F.softplus(-m(x).sum()), rho)]
        )
        longer.append(float((found.norm() / (q * slope) - 1) / (rho * slope)))
    assert longer == sorted(longer)  # the factor is 1 - q, up to what the penalty takes
    assert all(0 <= share <= 1.05 for share in longer)


def test_length_and_turn_are_those_of_the_hessian():
    """ρ uᵀHu / ‖g‖ and ρ ‖Hu - (uᵀHu)u‖ / ‖g‖, for any loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(20, 4).double(), torch.randint(3, (20,))
    objective = ll.supervised(model, [(x, y)], nn.CrossEntropyLoss())
    g, rho = objective.grad(), 1e-4
    u = g / g.norm()
    image = objective.hvp(u)
    found = torch.cat([p.flatten() for p in gradient_of_sam(model, lambda m: F.cross_entropy(m(x), y), rho)])
    assert float(found.norm() / g.norm() - 1) == pytest.approx(rho * float(u @ image / g.norm()), rel=1e-2)
    turn = torch.arccos(torch.clamp(found @ g / (found.norm() * g.norm()), max=1))
    assert float(turn) == pytest.approx(rho * float((image - (u @ image) * u).norm() / g.norm()), rel=1e-2)

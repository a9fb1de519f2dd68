"""The edge of stability is where steps begin to grow; where it is not known, none is told."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape.curvature.stability import edge_of
from samrec.sam import SAM
from tests.landscape.curvature.test_monitor import GROWN, Quadratic, descend


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5}],
)
def test_descent_is_stable_below_the_threshold_and_not_above(settings):
    """On a quadratic of λmax = 3 the threshold is the step size at which it starts to diverge."""
    for share, stable in ((0.97, True), (1.03, False)):
        model = Quadratic()
        unit = torch.optim.SGD(model.parameters(), lr=1.0, **settings)
        space = ll.ParamSpace(model)
        at_one = edge_of(unit, model, space, 1.0).threshold
        optimizer = torch.optim.SGD(model.parameters(), lr=share * at_one / 3, **settings)
        edge = edge_of(optimizer, model, space, 1.0)
        assert (edge.threshold > 3) == stable
        descend(model, optimizer, 400)
        assert (abs(float(model.w.detach()[0])) < 1) == stable


def test_adam_is_at_its_edge_when_its_preconditioner_stands_still():
    """With v kept constant, Adam is momentum on P⁻¹H."""
    for share, stable in ((0.97, True), (1.03, False)):
        model = Quadratic()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 1.0 - 1e-12))
        descend(model, optimizer, 500)
        (state,) = optimizer.state.values()
        state["step"].fill_(1e14)  # both corrections are 1
        state["exp_avg_sq"].copy_(torch.tensor([0.04, 0.09, 0.25]))
        rate = share * 3.8 / 0.1 / (3 / 0.2) / 1
        optimizer.param_groups[0]["lr"] = rate
        edge = edge_of(optimizer, model, ll.ParamSpace(model), 1.0)
        top = float((edge.scale**2 * GROWN).max())
        assert top == pytest.approx(3 / 0.2, rel=1e-5)
        assert (top < edge.threshold) == stable
        model.w.data.fill_(1e-3)
        descend(model, optimizer, 300)
        assert (float(model.w.detach().abs().max()) < 1e-3) == stable


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adam,
        partial(torch.optim.Adam, amsgrad=True),
        partial(torch.optim.AdamW, weight_decay=0.0),
    ],
    ids=["adam", "amsgrad", "adamw"],
)
def test_a_step_of_adam_is_its_mean_gradient_by_its_preconditioner(make):
    """θ moves by -η P⁻¹ m, whatever the number of the step and ε."""
    model = Quadratic().double()
    optimizer = make(model.parameters(), lr=0.02, betas=(0.8, 0.9), eps=0.1)
    for step in range(6):
        if step == 3:
            model.w.data.mul_(0.1)  # from where gradients are smaller than they were
        before = model.w.detach().clone()
        descend(model, optimizer, 1)
        edge = edge_of(optimizer, model, ll.ParamSpace(model), 1.0)
        (state,) = optimizer.state.values()
        moved = -0.02 * edge.scale**2 * state["exp_avg"]
        np.testing.assert_allclose(model.w.detach() - before, moved, rtol=1e-6)
        assert edge.threshold == pytest.approx((2 + 2 * 0.8) / ((1 - 0.8) * 0.02))


def test_the_edge_of_sam_is_where_it_bounces():
    """At λ of the formula, a step of SAM maps w to -w (Long & Bartlett 2024)."""
    rho, rate, w = 0.3, 0.1, 0.7
    model = nn.Linear(1, 1, bias=False)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=rho, lr=rate)
    curvature = 12.0
    for _ in range(200):  # the gradient norm is λ w, so that the edge is a fixed point
        curvature = edge_of(optimizer, model, ll.ParamSpace(model), curvature * w).threshold
    assert w - rate * curvature * (w + rho) == pytest.approx(-w)


def test_groups_of_other_rates_enter_the_preconditioner():
    model = nn.Sequential(
        nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    )
    groups = [{"params": [model[0].weight]}, {"params": [model[1].weight], "lr": 0.4}]
    edge = edge_of(torch.optim.SGD(groups, lr=0.1), model, ll.ParamSpace(model), 1.0)
    assert edge.threshold == pytest.approx(20)
    np.testing.assert_allclose(edge.scale.numpy(), [1, 1, 2, 0])


class Weighted(torch.optim.Optimizer):
    """Somebody's mixture of the gradients at w and above, of another edge than SAM's."""

    def __init__(self, params, base_optimizer, rho, **settings):
        super().__init__(params, {"rho": rho, **settings})
        self.base_optimizer = base_optimizer(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups


def test_optimizers_without_a_known_edge_have_none():
    model = Quadratic()
    space = ll.ParamSpace(model)
    adam, descent = torch.optim.Adam, torch.optim.SGD
    sam = partial(SAM, base_optimizer=descent, rho=0.1, lr=0.1)
    still = {"params": [nn.Parameter(torch.ones(1))], "perturb": False}
    public = sam(model.parameters())
    public.param_groups[0]["adaptive"] = True  # as in the SAM that most people have
    for optimizer in (
        torch.optim.RMSprop(model.parameters()),
        adam(model.parameters()),  # before its first step
        *(descent(model.parameters(), lr=rate) for rate in (0.0, 1e-320, np.inf, np.nan)),
        descent(model.parameters(), lr=0.1, maximize=True),
        SAM(model.parameters(), adam, rho=0.1, lr=0.1),
        sam(model.parameters(), momentum=0.9),
        sam(model.parameters(), adaptive=True),
        public,
        sam([{"params": model.parameters()}, still]),
        sam(model.parameters(), every=2),
        *(sam(model.parameters(), variant=name) for name in ("friendly", "gsam", "looksam")),
        Weighted(model.parameters(), descent, rho=0.1, lr=0.1),
    ):
        assert edge_of(optimizer, model, space, 1.0) is None

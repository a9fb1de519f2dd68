"""The loss of a model in training mode is a function of θ: its randomness is frozen."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import landscape as ll
from landscape import InputError
from landscape.surface import strategies

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
BATCHES = [(x, x.sum(1, keepdim=True)) for x in X.split(6)]


def model(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *between, nn.Tanh(), nn.Linear(5, 1))


def test_batchnorm_uses_the_statistics_of_the_batch_and_keeps_its_own():
    net = model(nn.BatchNorm1d(5))
    net[1].running_mean.fill_(3.0)
    before = copy.deepcopy(net.state_dict())
    objective = ll.supervised(net, BATCHES, nn.MSELoss(), mode="training")
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    expected = np.mean([F.mse_loss(copy.deepcopy(net).train()(x), y).item() for x, y in BATCHES])
    assert objective.value() == pytest.approx(expected, rel=1e-6)
    assert ll.supervised(net, BATCHES, nn.MSELoss()).value() != pytest.approx(expected, rel=1e-2)


def test_dropout_masks_are_frozen_by_seed():
    net = model(nn.Dropout(0.5))
    one, two, other = (ll.supervised(net, BATCHES, nn.MSELoss(), mode="training", seed=s) for s in (0, 0, 1))
    state = torch.get_rng_state()
    assert one.value() == one.value() == two.value() != other.value()
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert one.in_float64().value() == pytest.approx(one.value(), rel=1e-6)  # the same masks
    moved = one.moved(one.theta * 1.1)
    step = 1e-3 * torch.ones_like(one.theta)
    slope = (moved.value(moved.theta + step) - moved.value(moved.theta - step)) / 2
    assert slope == pytest.approx(float(moved.grad() @ step), rel=1e-3)


def test_only_the_generators_of_the_model_are_seeded(monkeypatch):
    """Those of other devices, which nothing puts back, are the training's."""
    net, others = model(nn.Dropout(0.5)), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", others.append)
    assert ll.supervised(net, BATCHES, nn.MSELoss(), mode="training").value() > 0
    assert not others


def test_a_mean_over_seeds_is_the_expected_loss():
    """Dropout of p = ½ before a linear layer adds Σ w²x² to the squared error (Srivastava et al. 2014)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
    ones = [(torch.ones(400, 4), torch.zeros(400, 1))]
    weights, bias = (p.detach().double() for p in net[1].parameters())
    expected = float((weights.sum() + bias) ** 2 + (weights**2).sum())
    losses = [ll.supervised(net, ones, nn.MSELoss(), mode="training", seed=s).value() for s in range(8)]
    assert np.mean(losses) == pytest.approx(expected, abs=4 * np.std(losses, ddof=1) / 8**0.5)


def test_results_say_the_mode_and_do_not_compare_across_modes():
    net = model(nn.Dropout(0.5))
    trained, still = (ll.supervised(net, BATCHES, nn.MSELoss(), mode=mode) for mode in ("training", "eval"))
    assert ll.top_eigenpairs(trained, 1).provenance["mode"] == "training, seed 0"
    with pytest.raises(ll.InputError, match="modes"):
        ll.barrier(trained, still)


def test_a_loss_of_your_own_is_frozen_too():
    def loss(model, batch):
        return F.mse_loss(model(batch[0]), batch[1], reduction="sum"), len(batch[0])

    net = model(nn.Dropout(0.5))
    own = ll.Objective(net, BATCHES, ll.in_training_mode(loss, seed=3))
    assert own.value() == ll.supervised(net, BATCHES, nn.MSELoss(), mode="training", seed=3).value()
    assert own.provenance["mode"] == "training, seed 3"


def test_an_unknown_mode_is_refused():
    with pytest.raises(ll.InputError, match="mode is 'train'; it must be one of eval, training"):
        ll.supervised(model(), BATCHES, nn.MSELoss(), mode="train")


class Variational(nn.Module):
    """A VAE: it draws normal numbers, which are others in float64."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, -1)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return (self.decoder(drawn) - x).square().sum() + log_variance.exp().sum() - log_variance.sum()


def seeded(model, batch):
    torch.manual_seed(3)
    return model(batch), len(batch)


def trained(model, batch):
    return model(batch), len(batch)


@pytest.mark.parametrize("loss", [seeded, ll.in_training_mode(trained)])
def test_random_numbers_that_are_others_in_float64(loss):
    """The loss is measured in float32 alone: in float64 it is another one, with nearly the same value."""
    torch.manual_seed(0)
    objective = ll.Objective(Variational(), [torch.randn(40, 6) for _ in range(2)], loss)
    with pytest.raises(ll.InputError, match="draws random numbers, which are others in float64"):
        objective.in_float64()
    with warnings.catch_warnings(action="error"):
        operator = ll.hessian(objective)
    assert operator.strategy.startswith("reverse over reverse")
    assert objective.provenance["derivatives"].startswith("checked against the loss in float32")
    step = 1e-2
    own = torch.stack([operator(v) for v in torch.eye(operator.shape[0])])
    for v, row in zip(torch.eye(operator.shape[0]), own, strict=True):
        ahead, behind = (objective.grad(objective.theta + sign * step * v) for sign in (1, -1))
        torch.testing.assert_close((ahead - behind) / (2 * step), row, rtol=0.02, atol=0.02)
    top = float(torch.linalg.eigvalsh(own)[-1])
    assert ll.top_eigenpairs(operator, 1).eigenvalues[0] == pytest.approx(top, rel=1e-4)
    plane = ll.plane(objective, tol=0.05)
    assert plane.certificate.float64 is None


@pytest.mark.parametrize("between", [nn.Dropout(0.5), nn.BatchNorm1d(5)])
def test_surfaces_of_a_frozen_randomness_end(between, monkeypatch):
    """Where a machine has several threads: each evaluation holds what another one needs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr(strategies, "PATIENCE", 0.2)
            plane = ll.plane(ll.supervised(model(between), BATCHES, nn.MSELoss(), mode="training"), grid=3)
        seeded = ll.Objective(model(between), BATCHES, lambda m, b: (m(b[0]).square().sum(), 6))
        if isinstance(between, nn.BatchNorm1d):
            assert "threads" in ll.plane(seeded, grid=3).settings["strategy"]
    finally:
        torch.set_num_threads(threads)
    assert plane.settings["strategy"] == "sequential"


class Lagging(nn.Module):
    """Subtracts a running mean of its own, which it moves in eval mode too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        outputs = self.layer(x)
        found = outputs - 0.1 * self.mean
        with torch.no_grad():
            self.mean.mul_(0.5).add_(outputs.mean(0), alpha=0.5)
        return found


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("lagging", [False, True])
def test_what_stands_still_at_the_weights_and_moves_elsewhere_is_refused(norm, lagging):
    """Two evaluations at θ agree to the last bit there, and two elsewhere do not."""
    torch.manual_seed(0)
    model = Lagging() if lagging else nn.Sequential(nn.Linear(4, 5), nn.Tanh(), norm(nn.Linear(5, 3)))
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    for _ in range(1000):
        model(x)
    with pytest.raises(
        InputError, match=r"differs between two evaluations|keeps something of each evaluation"
    ):
        ll.supervised(model, [(x, y)], nn.CrossEntropyLoss(), mode="training")
    if not lagging:
        objective = ll.supervised(model, [(x, y)], nn.CrossEntropyLoss())
        elsewhere = 1.5 * objective.theta
        assert objective.value(elsewhere) == objective.value(elsewhere)


class Gated(nn.Module):
    """Takes a part in training mode, whose spectral norm moves, for some inputs alone."""

    def __init__(self):
        super().__init__()
        self.layer, self.normed = nn.Linear(4, 3), parametrizations.spectral_norm(nn.Linear(4, 3))

    def forward(self, x):
        if x[0, 0] > 0:
            return self.layer(x)
        return self.normed.train()(x)


def test_what_moves_for_a_later_batch_alone_is_refused():
    torch.manual_seed(0)
    model, x, y = Gated(), torch.rand(5, 4), torch.randint(3, (5,))
    for _ in range(1000):
        model(-x)
    assert ll.supervised(model, [(x, y)], nn.CrossEntropyLoss()).value() > 0
    with pytest.raises(InputError, match="keeps something of each evaluation"):
        ll.supervised(model, [(x, y), (-x, y)], nn.CrossEntropyLoss())


class Counting(nn.Module):
    """Keeps what does not matter to its loss: a count, and what it saw last."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls, self.last = self.calls + 1, x
        return self.layer(x)


def test_what_is_kept_without_use_is_no_reason_to_refuse():
    x, y = torch.rand(5, 4), torch.randint(3, (5,))
    assert ll.supervised(Counting(), [(x, y), (-x, y)], nn.CrossEntropyLoss()).value() > 0

"""A monitor keeps within the time that it is given, and measures only what the loss reads."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape.curvature import monitor as monitor_module
from landscape.curvature.allowance import Allowance
from tests.landscape.curvature.test_monitor import Quadratic, monitored, quadratic


class Clock:
    """A clock in place of time, which only products of the Hessian and steps of the training move."""

    def __init__(self, monkeypatch, product):
        self.now, self.product = 0.0, product
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(monitor_module, "hessian", lambda objective: self.slow(ll.hessian(objective)))

    def slow(self, operator):
        def multiply(vector):
            self.now += self.product
            return operator(vector)

        return multiply


class Wide(nn.Module):
    """A quadratic whose eigenvalues lie so close that they take many products."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(400, generator=torch.Generator().manual_seed(0)))


CLOSE = torch.linspace(0, 1, 400) ** 2


@pytest.mark.slow
@pytest.mark.parametrize(("product", "at_most"), [(0.05, 0.02), (0.3, 0.2), (2.0, 0.02)])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_the_overhead_is_never_above_the_budget_once_it_has_paid_for_setting_up(
    product, at_most, make, monkeypatch
):
    clock = Clock(monkeypatch, product)
    model = Wide()
    optimizer = make(model.parameters(), lr=1e-5)
    probe = ll.Objective(model, [CLOSE], quadratic)
    monitor = ll.Monitor(model, probe, optimizer=optimizer, k=3, at_most=at_most)
    for _ in range(300):
        optimizer.zero_grad()
        quadratic(model, CLOSE)[0].backward()
        optimizer.step()
        clock.now += 2.0
        if monitor.step():
            assert monitor.overhead <= at_most
    assert monitor.overhead <= at_most
    if at_most * 600 > 200 * product:  # the training pays for a cold solve
        assert monitor.overhead > at_most / 2  # the budget is used, too
        assert max(monitor.records[-1].residuals) <= 1e-3
    else:
        assert not monitor.records
    assert all(record.alignment for record in monitor.records)  # it was known which step would be measured


def test_a_measurement_that_is_stopped_says_so_and_the_next_goes_on(monkeypatch):
    clock = Clock(monkeypatch, 1.0)
    model = Wide()
    probe = ll.Objective(model, [CLOSE], quadratic)
    monitor = ll.Monitor(model, probe, k=3, at_most=0.5)
    monitor._allowance.expected = 0.0  # it is taken to be cheap
    while not monitor.records or max(monitor.records[-1].residuals) > 1e-3:
        clock.now += 10.0
        monitor.step()
    first, *_, last = monitor.records
    assert max(first.residuals) > 1e-3
    exact = CLOSE.sort(descending=True).values[:3].double()
    np.testing.assert_allclose(last.eigenvalues, exact, rtol=1e-3)
    for record in monitor.records:  # a residual bounds the distance to an eigenvalue
        for value, residual in zip(record.eigenvalues, record.residuals, strict=True):
            assert float((CLOSE - value).abs().min()) <= value * residual + 1e-5
    assert monitor.overhead <= 0.5


def test_a_measurement_that_was_stopped_gets_twice_the_time_however_little_it_took():
    """It was stopped for want of time, which it would else lack again and again."""
    allowance = Allowance(0.1)
    allowance.expected = 8.0
    allowance.learn(1.0, products=2, converged=False)
    assert allowance.expected == 16
    allowance.learn(20.0, products=2, converged=False)
    assert allowance.expected == 40
    allowance.learn(10.0, products=2, converged=True)
    assert allowance.expected == 15


def test_a_threshold_of_an_eigenvalue_that_has_not_converged_is_not_told(monkeypatch):
    model = Wide()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    probe = ll.Objective(model, [CLOSE], quadratic)
    monitor = ll.Monitor(model, probe, optimizer=optimizer, k=1, at_most=None)
    monitor._trackers[1].max_products = 2
    quadratic(model, CLOSE)[0].backward()
    optimizer.step()
    record = monitor.step()
    assert record.preconditioned is None
    assert record.threshold is None


def test_measurements_beyond_the_budget_count_too(monkeypatch):
    clock = Clock(monkeypatch, 1.0)
    monitor = monitored(Quadratic(), None, at_most=0.5)
    monitor.step()
    clock.now += 100.0
    record = monitor.measure()
    assert monitor.overhead == pytest.approx((record.products + 2) / 100)  # two to set up
    assert record.overhead == pytest.approx(monitor.overhead)


class Bag(nn.Module):
    """A large table, of which the loss reads some rows, and a weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(300, 2)
        self.scale = nn.Parameter(torch.tensor([0.7, 1.3]))

    def forward(self, rows):
        return self.table(rows) * self.scale


def test_rows_that_the_loss_does_not_read_change_nothing():
    """All numbers are those of the whole θ: an update is that of all rows, and zero is an eigenvalue."""
    rows = torch.arange(0, 12, 3)

    def loss(sign):
        return lambda model, batch: (sign * (model(batch) ** 2).sum() / 2, float(len(batch)))

    for sign, top in ((1.0, None), (-1.0, 0.0)):
        torch.manual_seed(0)
        model = Bag()
        probe = ll.Objective(model, [rows], loss(sign))
        assert probe.compact() is not None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = ll.Monitor(model, probe, optimizer=optimizer, k=3, at_most=None)
        before = probe.theta.clone()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        record = monitor.step()
        whole = probe.follow(model)
        expected = ll.top_eigenpairs(whole, 3, smallest=0, tol=1e-5)
        assert record.loss == pytest.approx(whole.value(), rel=1e-6)
        assert record.gradient_norm == pytest.approx(float(whole.grad().norm()), rel=1e-5)
        np.testing.assert_allclose(record.eigenvalues, expected.eigenvalues, rtol=1e-4, atol=1e-6)
        if top is None:  # the third stands twice
            update = whole.theta - before
            cosines = abs(expected.eigenvectors @ update.numpy()) / float(update.norm())
            np.testing.assert_allclose(record.alignment[:2], cosines[:2], atol=2e-3)

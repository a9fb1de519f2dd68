"""Quadratics in two tensors, whose steps of SAM are formulas: L = wᵀAw/2 has the gradient Aw."""

import torch
from torch import nn

from samrec import SAM

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0], [-1.0, 4.0]], dtype=torch.float64)
LR, RHO = 0.1, 0.5


class Quadratics:
    """A model whose batches are matrices, and SAM around SGD, which a test's formulas follow."""

    def __init__(self, **settings):
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        # one parameter in two tensors: inner products and norms are over all of them
        self.parts = [nn.Parameter(self.w.detach()[i : i + 1].clone()) for i in range(2)]
        self.optimizer = SAM(self.parts, torch.optim.SGD, rho=RHO, lr=LR, **settings)
        self.passes = 0
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=2)

    @property
    def now(self):
        return torch.cat(self.parts).detach().clone()

    def step(self, matrix, style="closure"):
        def closure():
            self.passes += 1
            self.optimizer.zero_grad()
            w = torch.cat(self.parts)
            loss = w @ matrix @ w / 2
            (self.scaler.scale(loss) if scaled else loss).backward()
            return loss.detach()

        scaled = style in ("scaled", "unscaled")
        if style == "closure":
            return self.optimizer.step(closure)
        if self.optimizer.climbs:
            closure()
        self.optimizer.first_step(scale=self.scaler.get_scale() if scaled else None)
        closure()
        if style == "unscaled":
            self.scaler.unscale_(self.optimizer)
        if scaled:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.second_step()
        return None


def unit(v):
    return v / v.norm()

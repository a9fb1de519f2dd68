"""Measures of sharpness by name, and objectives whose units are known."""

import numpy as np
import torch
from torch import nn

import landscape as ll
from landscape import Objective

RHO, SIGMA = 0.3, 0.05


def measure(objective, name, **settings):
    row = ll.sharpness(objective, [name], **{"rho": RHO, "sigma": SIGMA, **settings}).measures[name]
    return row.value, row.standard_error


def by_unit(model, batches, each):
    """An objective whose units weigh 1 each; `each` maps (model, batch) to their losses."""

    def units(model, batch):
        losses = each(model, batch)
        return losses, torch.ones_like(losses)

    return Objective(model, batches, lambda m, b: (each(m, b).sum(), len(each(m, b))), per_example=units)


def squared(model, batch):
    return (model(batch[0]).squeeze(-1) - batch[1]) ** 2


def draws(seed, count, size):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.standard_normal(size) for _ in range(count)]))


def regression(count=30, seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 1, bias=False).double()
    x, y = torch.randn(count, 3).double(), torch.randn(count).double()
    return model, x, y

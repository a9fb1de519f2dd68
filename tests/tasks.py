"""A task of somebody else's: a linear regression, for `--task tests.tasks:regression`."""

import torch
from torch import nn

from landscape import Objective
from landscape.storage.checkpoints import read_checkpoint


def squared(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).sum(), len(y)


def regression(checkpoint, options):
    model = nn.Linear(4, 2)
    model.load_state_dict(read_checkpoint(checkpoint)["weights"])
    generator = torch.Generator().manual_seed(options.seed)
    batch = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
    return Objective(model, [batch], squared, include=options.include, exclude=options.exclude)

"""SAM on a device that has no float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from samrec import SAM
from samrec.sam.variants import VARIANTS
from tests.without import WithoutFloat64


def trained(device, scaled, **settings):
    """Return the weights of a network after some steps within a context."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 3))
    x, y = torch.randn(16, 5), torch.randint(3, (16,))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)

    def backward():
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        return loss

    def closure():
        optimizer.zero_grad()
        return backward()

    with device:
        optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.1, lr=0.05, **settings)
        for _ in range(4):
            if not scaled:
                optimizer.step(closure)
                continue
            closure()
            optimizer.first_step(scale=scaler.get_scale())
            backward()
            scaler.step(optimizer)
            scaler.update()
        optimizer.load_state_dict(optimizer.state_dict())
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_takes_its_steps_without_float64(variant, adaptive, scaled):
    settings = {"variant": variant, "adaptive": adaptive}
    expected, found = (trained(device, scaled, **settings) for device in (nullcontext(), WithoutFloat64()))
    assert torch.equal(found, expected)

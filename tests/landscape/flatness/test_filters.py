"""Measures of filters, and sharpness by group, of models whose parameters are unusual."""

import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness.measures import sharpness_by_group
from tests.flatness import measure


class Scaled(nn.Module):
    """Weights without filters that are called an embedding's, where single weights may be filters."""

    def __init__(self):
        super().__init__()
        self.embed_scale = nn.Parameter(torch.linspace(-1, 1, 4).double())


def test_an_embedding_without_rows_has_no_relative_flatness(symmetric):
    def loss(model, _):
        return model.embed_scale @ symmetric[:4, :4] @ model.embed_scale / 2, 1

    assert set(ll.sharpness(Objective(Scaled(), [None], loss)).measures).isdisjoint(
        {"relative-flatness-embedding", "relative-flatness-last"}
    )
    single = Objective(Scaled(), [None], loss, filter_axes={"embed_scale": 0})
    w = Scaled().embed_scale.detach()
    for name in ("embedding", "last"):
        value, _ = measure(single, f"relative-flatness-{name}")
        assert value == pytest.approx(float(w @ symmetric[:4, :4] @ w), rel=1e-12)


def test_a_group_has_every_measure_that_its_settings_allow():
    """Float32 does not resolve a rise of 0.1, the default, of this loss; it does the one that is given."""
    model = nn.Linear(2, 1)
    objective = Objective(model, [torch.ones(1, 2)], lambda m, x: (1e8 * (1 + m(x).square().sum()), 1))
    name = "pac-bayes-sigma"
    (found,) = sharpness_by_group(objective, [name], rise=1e6, samples=2).values()
    assert (
        found.measures[name].value
        == ll.sharpness(objective, [name], rise=1e6, samples=2).measures[name].value
    )
    with pytest.raises(InputError, match="less than float32 resolves"):
        sharpness_by_group(objective, [name], rise=0.1)

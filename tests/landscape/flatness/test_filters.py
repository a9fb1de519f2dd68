"""Measures of filters, and sharpness by group, of models whose parameters are unusual."""

import pytest
import torch
from torch import nn

import landscape as ll
from landscape import Objective
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

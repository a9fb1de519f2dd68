"""Two small checkpoints, and measurements of them that take no time."""

from functools import partial

import pytest
import torch
from torch import nn

import landscape as ll
from landscape.report import compare


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ll, "sharpness", partial(ll.sharpness, measures=("sam", "asam")))
    monkeypatch.setattr(compare, "PROBES", 2)
    monkeypatch.setattr(compare, "STEPS", 3)


@pytest.fixture
def checkpoints(tmp_path):
    found = {name: tmp_path / f"{name}.pt" for name in "ab"}
    for seed, path in enumerate(found.values()):
        torch.manual_seed(seed)
        torch.save({"weights": nn.Linear(4, 2).state_dict()}, path)
    return found

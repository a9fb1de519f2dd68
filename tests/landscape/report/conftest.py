"""Two small checkpoints, and measurements of them that take no time."""

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def quick(few_measures):
    """Measure little in every test of this room."""


@pytest.fixture
def checkpoints(tmp_path):
    found = {name: tmp_path / f"{name}.pt" for name in "ab"}
    for seed, path in enumerate(found.values()):
        torch.manual_seed(seed)
        torch.save({"weights": nn.Linear(4, 2).state_dict()}, path)
    return found

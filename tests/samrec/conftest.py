"""Fixtures that the tests of several rooms of the trainer share."""

import pytest
import torch


@pytest.fixture
def double():
    """Compute in float64: in float32 Adam turns the rounding of a gradient that is zero into whole steps."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

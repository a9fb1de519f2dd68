"""No test passes or fails by chance: what it draws depends on its name, and not on what ran before it."""

import pytest
import torch
from hypothesis import settings

from tests.conftest import seed_of

AT_READING, DRAWN = torch.initial_seed(), torch.rand(1)


@pytest.fixture(scope="module")
def shared():
    return torch.initial_seed()


def test_a_file_draws_from_a_seed_of_its_own():
    assert seed_of("tests/structure/test_chance.py") == AT_READING


@pytest.mark.parametrize("number", [0, 1])
def test_a_test_draws_from_a_seed_of_its_own(shared, request, number):
    assert torch.initial_seed() == seed_of(request.node.nodeid)
    assert shared == seed_of("tests/structure/test_chance.py shared 0")
    assert not torch.equal(torch.rand(1), DRAWN)


def test_hypothesis_draws_the_same_in_every_run():
    assert settings.default.derandomize

"""What SAM cannot be built of, or step by, is refused in one line."""

from collections import deque

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from samrec import SAM
from tests.sams import vector


@pytest.fixture
def sharded():
    """A parameter of a model that FSDP2 has sharded, on one rank."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    yield fully_shard(nn.Linear(3, 1), mesh=mesh).weight
    torch.distributed.destroy_process_group()


def test_sharded_parameters_are_refused_in_one_line(sharded):
    """They would move, and the model would compute with what is gathered from elsewhere, at w."""
    with pytest.raises(ValueError, match=r"SAM cannot move sharded parameters \(FSDP2, DTensor\)") as refused:
        SAM([sharded], torch.optim.SGD)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda p: SAM([p], torch.optim.LBFGS), ValueError, "LBFGS calls the closure itself"),
        (lambda p: SAM([p], torch.optim.SGD([p], lr=0.1)), TypeError, "give its class"),
        (lambda p: SAM([p], "SGD", lr=0.1), TypeError, "is 'SGD'; give a class"),
        (lambda p: SAM([p, nn.Parameter(p.data)], torch.optim.SGD), ValueError, "share their storage"),
    ],
)
def test_what_sam_cannot_be_built_of_is_refused(made, error, said):
    with pytest.raises(error, match=said):
        made(vector(1.0))


@pytest.mark.parametrize("given", [[], torch.ones(()), "loss", [torch.ones(())], (1.0,)])
def test_a_step_by_what_is_no_closure_is_refused(given):
    with pytest.raises(ValueError, match="takes a closure or a list of closures"):
        SAM([vector(1.0)], torch.optim.SGD, lr=0.1).step(given)


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_closures_come_in_any_sequence(kind):
    p = vector(1.0, 2.0)
    optimizer = SAM([p], torch.optim.SGD, rho=0.1, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(kind([closure, closure])) == 10


@pytest.mark.parametrize("returned", [lambda loss: loss, lambda loss: loss.item(), lambda loss: None])
def test_several_closures_return_numbers_or_nothing_happens(returned):
    p = vector(1.0, 2.0)
    optimizer = SAM([p], torch.optim.SGD, rho=0.1, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return returned(loss)

    if returned(p.sum()) is None:
        with pytest.raises(ValueError, match="each of several closures has to return its loss"):
            optimizer.step([closure, closure])
        assert p.tolist() == [1.0, 2.0]
        assert optimizer.step(closure) is None  # a single one may keep it
    else:
        assert optimizer.step([closure, closure]).detach() == 10

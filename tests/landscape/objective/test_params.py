import pytest
import torch
from torch import nn

from landscape import InputError, ParamSpace


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.attention = nn.Linear(3, 3)
        self.up = nn.ConvTranspose1d(3, 4, 2)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_split_and_join_are_inverse():
    params = ParamSpace(Tied())
    assert torch.equal(params.join(params.split(params.theta)), params.theta)


def test_a_tied_weight_is_one_tensor():
    params = ParamSpace(Tied())
    assert [e.name for e in params.entries].count("embed.weight") == 1
    assert "head.weight" not in [e.name for e in params.entries]
    assert params.numel == 15 + 3 + 3 + 9 + 3 + 24 + 4


def test_filters_lie_along_the_axis_of_outputs():
    axes = {e.name: e.filter_axis for e in ParamSpace(Tied()).entries}
    assert axes["embed.weight"] == 0  # an item a row
    assert axes["attention.weight"] == 0  # an output unit a row
    assert axes["up.weight"] == 1  # a transposed convolution keeps its outputs on axis 1
    assert axes["norm.weight"] is None
    assert axes["attention.bias"] is None


def test_groups_count_their_coordinates():
    assert ParamSpace(Tied()).groups == {"embedding": 15, "norm": 6, "attention": 12, "other": 28}


def test_include_and_exclude_choose_coordinates():
    params = ParamSpace(Tied(), include=("embed*", "norm*"), exclude=("*.bias",))
    assert [e.name for e in params.entries] == ["embed.weight", "norm.weight"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"include": ("nothing*",)}, "no parameter matches 'nothing\\*'"),
        ({"exclude": ("*",)}, "every parameter is excluded"),
    ],
)
def test_patterns_that_leave_nothing_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        ParamSpace(Tied(), **kwargs)


def test_mixed_dtypes_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(InputError, match="one floating dtype"):
        ParamSpace(model)

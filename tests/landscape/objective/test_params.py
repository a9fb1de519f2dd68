import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from landscape import InputError, Objective, ParamSpace


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
    assert ParamSpace(Tied()).groups == {"embedding": 15, "norm": 6, "attention": 12, "convolution": 28}


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


class Conv1D(nn.Module):
    """A layer of Hugging Face's kind: x W + b, whose outputs are columns."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * torch.logspace(-2, 0, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class Dense(Conv1D):
    """The same under another name."""


class Factors(nn.Linear):
    """A linear layer with more matrices, as loralib's."""

    def __init__(self):
        super().__init__(4, 4)
        self.lora_a = nn.Parameter(torch.randn(2, 4))


@pytest.mark.parametrize(
    ("model", "name", "axis"),
    [
        (Conv1D(6, 4), "weight", 1),
        (Conv1D(4, 4), "weight", 1),
        (Dense(6, 4), "weight", 1),
        (Dense(4, 4), "weight", 0),  # of a square one, nothing tells
        (nn.Linear(4, 6), "weight", 0),
        (nn.Linear(4, 4), "weight", 0),
        (Factors(), "lora_a", 0),
        (nn.GRU(4, 6), "weight_ih_l0", 0),
        (nn.Bilinear(3, 4, 5), "weight", 0),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", 0),
    ],
)
def test_a_filter_is_what_makes_one_output(model, name, axis):
    assert {e.name: e.filter_axis for e in ParamSpace(model).entries}[name] == axis


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize(
    ("model", "axis"),
    [
        (nn.Linear(4, 6), 0),
        (nn.Conv2d(4, 6, 3), 0),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), 1),
        (nn.Embedding(6, 4), 0),
    ],
)
def test_a_parametrized_weight_is_a_weight_of_its_layer(model, axis, wrap):
    plain = ParamSpace(nn.ModuleDict({"a": model})).entries[0]
    for root in (nn.ModuleDict({"a": copy.deepcopy(model)}), copy.deepcopy(model)):
        wrap(root["a"] if isinstance(root, nn.ModuleDict) else root)
        found = {entry.name.rpartition(".")[2]: entry for entry in ParamSpace(root).entries}
        whole = found["original1" if wrap is parametrizations.weight_norm else "original"]
        assert (whole.filter_axis, whole.blocks, whole.group) == (axis, plain.blocks, plain.group)
        if "original0" in found:
            assert (found["original0"].filter_axis, found["original0"].group) == (None, "norm")


class Pair(nn.Module):
    """A matrix as a product of two; its parts are not those of a weight norm."""

    def forward(self, a, b):
        return a @ b

    def right_inverse(self, weight):
        return weight[:, :1], weight[:1]


def test_only_the_magnitudes_of_a_weight_norm_stand_still():
    model = nn.Linear(4, 6)
    register_parametrization(model, "weight", Pair())
    assert [e.filter_axis for e in ParamSpace(model).entries] == [None, 0, 0]


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_biases_of_any_shape_have_no_filters():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.up_proj_bias = (nn.Parameter(torch.ones(3, 4)) for _ in range(2))

    for model, names in (
        (
            nn.MultiheadAttention(4, 2, add_bias_kv=True),
            {"bias_k", "bias_v", "in_proj_bias", "out_proj.bias"},
        ),
        (Experts(), {"up_proj_bias"}),
        (nn.ParameterDict({"bias": torch.ones(1, 4), "w": torch.ones(3, 4)}), {"bias"}),
        (nn.utils.weight_norm(nn.LSTM(3, 4, bias=False), "weight_ih_l0"), {"weight_ih_l0_g"}),
    ):
        assert {e.name for e in ParamSpace(model).entries if e.filter_axis is None} == names


def test_filter_axes_can_be_said():
    model = nn.Sequential(Dense(4, 4), nn.Linear(4, 4))
    params = ParamSpace(model, filter_axes={"0.*ght": 1, "1.weight": None})
    assert [e.filter_axis for e in params.entries] == [1, None, None, None]
    for axes, message in (
        ({"0.bias": 1}, r"0\.bias of shape \(4,\) has no axis 1"),
        ({"2*": 0}, "matches '2"),
    ):
        with pytest.raises(InputError, match=message):
            ParamSpace(model, filter_axes=axes)


def test_a_name_is_no_pattern():
    model = nn.ParameterDict({name: torch.ones(2) for name in ("w[0]", "w0", "w?", "wx")})
    for include, exclude, left in (
        (["w[0]"], [], ["w[0]"]),
        (["w?"], [], ["w?"]),
        (["*"], ["w[0]", "w?"], ["w0", "wx"]),
        (["w[0x]"], [], ["w0", "wx"]),
    ):
        assert [e.name for e in ParamSpace(model, include, exclude).entries] == left
    model["w[0]"].requires_grad_(False)
    objective = Objective(model, [1], lambda m, _: (sum(p.sum() for p in m.values()), 1))
    assert [e.name for e in objective.params.entries] == ["w0", "w?", "wx"]


GROUPS = {
    "gpt2": {
        "transformer.wte.weight": "embedding",
        "transformer.h.0.ln_1.weight": "norm",
        "transformer.h.0.attn.c_attn.weight": "attention",
        "transformer.h.0.mlp.c_fc.weight": "ffn",
    },
    "llama": {
        "model.layers.0.self_attn.q_proj.weight": "attention",
        "model.layers.0.mlp.gate_proj.weight": "ffn",
        "model.layers.0.input_layernorm.weight": "norm",
        "lm_head.weight": "head",
    },
    "bert": {
        "bert.embeddings.position_embeddings.weight": "embedding",
        "bert.encoder.layer.0.attention.self.query.weight": "attention",
        "bert.encoder.layer.0.attention.output.dense.weight": "attention",
        "bert.encoder.layer.0.attention.output.LayerNorm.weight": "norm",
        "bert.encoder.layer.0.intermediate.dense.weight": "ffn",
        "bert.encoder.layer.0.output.dense.weight": "ffn",
        "bert.pooler.dense.weight": "head",
        "classifier.weight": "head",
    },
    "resnet": {
        "conv1.weight": "convolution",
        "bn1.weight": "norm",
        "layer1.0.conv1.weight": "convolution",
        "layer1.0.downsample.0.weight": "convolution",
        "layer1.0.downsample.1.weight": "norm",
        "fc.weight": "head",
    },
    "vgg": {"features.0.weight": "convolution", "classifier.6.weight": "head"},
    "transformer": {
        "layers.0.self_attn.in_proj_weight": "attention",
        "layers.0.linear1.weight": "ffn",
        "layers.0.norm1.weight": "norm",
        "decoder.layers.3.fc2.weight": "ffn",
    },
    "other": {"body.weight": "other", "pos_embed": "embedding"},
}


class LlamaRMSNorm(nn.Module):
    """Not one of torch's."""


def tree(names):
    """A model whose modules have the given names, each of the class that its last part suggests."""
    model = nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        here = model
        for index, part in enumerate(path):
            if not hasattr(here, part):
                here.add_module(part, made(part) if index == len(path) - 1 else nn.Module())
            here = getattr(here, part)
        if leaf not in dict(here.named_parameters(recurse=False)):
            here.register_parameter(leaf, nn.Parameter(torch.ones(2, 2)))
    return model


def made(part):
    if "norm" in part.lower() or part.startswith(("ln_", "bn")) or part == "1":
        return LlamaRMSNorm() if "input" in part else nn.BatchNorm2d(2)
    if part in ("wte", "position_embeddings"):
        return nn.Embedding(3, 2)
    return nn.Conv2d(1, 2, 3) if part in ("conv1", "0") else nn.Linear(2, 2)


@pytest.mark.parametrize("family", GROUPS)
def test_groups_follow_the_usual_names(family):
    found = {e.name: e.group for e in ParamSpace(tree(GROUPS[family])).entries}
    assert {name: found[name] for name in GROUPS[family]} == GROUPS[family]


def test_a_function_names_the_groups():
    params = ParamSpace(Tied(), group=lambda name, module: type(module).__name__)
    assert params.groups == {"Embedding": 15, "LayerNorm": 6, "Linear": 12, "ConvTranspose1d": 28}

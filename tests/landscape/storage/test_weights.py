"""A model's weights come out of whatever file holds them, and nothing else in it is made or run."""

import enum
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

import landscape as ll

ran = []


class Mine:
    """A class of the user's, as a pickle of Lightning's may hold one."""

    def __init__(self):
        self.callbacks = [self]

    def __setstate__(self, state):
        ran.append(state)


class Kind(enum.Enum):
    A = 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
        self.head = nn.Linear(2, 3)
        self.tied = self.head


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def lightning(state):
    """What a Trainer of Lightning 2 writes, hyperparameters of every kind among it."""
    hyper = {
        "lr": 0.1,
        "root": Path("x"),
        "of": Mine(),
        "kind": Kind.A,
        "args": Namespace(a=1),
        "big": 10**30,
    }
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": b"x"}},
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"betas": (0, 1)}]}
        ],
        "hyper_parameters": hyper,
        "class_weights": {"a": torch.ones(3)},
        "seen": {1, 2},
        "when": frozenset("ab"),
        "scale": 1j,
    }


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


SAVED = {
    "state_dict": lambda state: state,
    "parameters": lambda state: {name: nn.Parameter(t, False) for name, t in state.items()},
    "entry": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "parallel": lambda state: {"state_dict": prefixed(state, "module."), "arch": Mine()},
    "lightning": lambda state: lightning(prefixed(state, "model.") | {"metric.total": torch.zeros(())}),
    "lightning, compiled": lambda state: lightning(prefixed(state, "model._orig_mod.")),
    "views": lambda state: {name: torch.stack([t, t])[1] for name, t in state.items()},
    "transposed": lambda state: {
        name: t.T.contiguous().T if t.dim() == 2 else t for name, t in state.items()
    },
}


@pytest.mark.parametrize("saved", SAVED)
def test_a_model_gets_its_weights_back(saved, net, tmp_path):
    torch.save(SAVED[saved](net.state_dict()), tmp_path / "a.ckpt")
    torch.manual_seed(1)
    loaded = ll.load_weights(Net(), tmp_path / "a.ckpt")
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not ran


def test_safetensors(net, tmp_path):
    from safetensors.torch import save_file

    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_file(prefixed(state, "module."), tmp_path / "a.safetensors")
    found = ll.weights_of(tmp_path / "a.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


DTYPES = [
    *(torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.uint16),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
]


def same(a, b):
    """Whether two tensors hold the same bits; fp8 is not compared by `torch.equal`."""
    return a.dtype == b.dtype and torch.equal(*(t.resolve_conj().clone().view(torch.uint8) for t in (a, b)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_what_is_empty(dtype, tmp_path):
    whole = torch.arange(-3, 9).to(dtype)
    saved = {"a": whole[2:8:2], "b": whole.view(3, 4).T, "c": whole[:0], "d": whole[:1]}
    torch.save(saved, tmp_path / "a.pt")
    found = ll.weights_of(tmp_path / "a.pt")
    assert all(same(found[name].contiguous(), saved[name].contiguous()) for name in saved)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle(protocol, net, tmp_path):
    torch.save(lightning(net.state_dict()), tmp_path / "a.ckpt", pickle_protocol=protocol)
    found = ll.weights_of(tmp_path / "a.ckpt")
    assert all(torch.equal(found[name], tensor) for name, tensor in net.state_dict().items())
    assert not ran


def test_parameters_with_attributes(tmp_path):
    parameter = nn.Parameter(torch.ones(2))
    parameter.group = Mine()
    torch.save({"w": parameter}, tmp_path / "a.pt")
    assert torch.equal(ll.weights_of(tmp_path / "a.pt")["w"], torch.ones(2))


def test_a_prefix_is_as_it_is_given(tmp_path):
    state = {"module.model.w": torch.ones(1), "module.loss.w": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pt")
    for prefix, names in (
        (None, {"model.w", "loss.w"}),
        ("", set(state)),
        ("module.", {"model.w", "loss.w"}),
        ("module.model.", {"w"}),
    ):
        assert ll.weights_of(tmp_path / "a.pt", prefix=prefix).keys() == names


ONE = {"w": torch.ones(1)}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"model": ONE, "ema": ONE}, {}, "no single state dict, but model, ema; say which by key"),
        ({"model": ONE, "ema": ONE}, {"key": "net"}, "no single state dict at 'net'"),
        ({"epoch": 3}, {}, "holds no single state dict"),
        ({"w": Mine()}, {}, "holds no single state dict"),
        ({"_orig_mod.w": ONE["w"], "w": ONE["w"]}, {}, "differ only by what torch wraps with"),
        (ONE, {"prefix": "model."}, "no name that begins with 'model.'"),
        (Mine(), {}, "holds an object, not a state dict"),
        ([ONE], {}, "holds an object, not a state dict"),
    ],
)
def test_what_is_not_clear_is_refused(content, options, message, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ll.InputError, match=message):
        ll.weights_of(tmp_path / "a.pt", **options)
    assert not ran


def test_a_key_chooses(tmp_path):
    torch.save({"model": ONE, "ema": {"w": torch.zeros(1)}}, tmp_path / "a.pt")
    assert ll.weights_of(tmp_path / "a.pt", key="ema")["w"] == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.ones(3, 2)}, "lacks bias of the model"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(4)}, "size mismatch for bias"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(3), "scale": torch.ones(1)}, "has scale, which"),
        (
            {f"{net}.{name}": torch.ones(3, 2)[:3, 0] for net in "ab" for name in ("weight", "bias")},
            "lacks weight and 1 more of the model",
        ),
    ],
)
def test_weights_of_another_model_are_refused_in_a_line(state, message, tmp_path):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ll.InputError, match=message) as refused:
        ll.load_weights(nn.Linear(2, 3), tmp_path / "a.pt")
    assert "\n" not in str(refused.value)

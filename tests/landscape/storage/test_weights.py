"""A model's weights come out of whatever file holds them, and nothing else in it is made or run."""

import enum
import json
import struct
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
        ({"model": ONE, "ema": ONE}, {}, "no single state dict, but model, ema; choose one with key"),
        ({"model": ONE, "ema": ONE}, {"key": "net"}, "no single state dict at 'net'"),
        ({"epoch": 3}, {}, "holds no single state dict; its entries: epoch"),
        ({"state": {"net": ONE}, "step": 1}, {}, "holds no single state dict; its entries: state, step"),
        ({"w": Mine()}, {}, "holds no single state dict"),
        ({"_orig_mod.w": ONE["w"], "w": ONE["w"]}, {}, "differ only by what a wrapper of torch adds"),
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


def test_what_torch_wrote_before_archives(net, tmp_path):
    state = net.state_dict()
    torch.save({"model": state, "epoch": 3}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    found = ll.weights_of(tmp_path / "a.pth")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    kinds = {str(d): torch.arange(-3, 9).to(d)[2:8:2] for d in DTYPES[:5]} | {"none": torch.empty(0)}
    torch.save(kinds, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    found = ll.weights_of(tmp_path / "b.pth")
    assert all(same(found[name].contiguous(), tensor.contiguous()) for name, tensor in kinds.items())
    assert not ran


def test_what_python_2_wrote(tmp_path):
    """By hand, as torch 0.3 wrote it: short strings, all entries of the dictionary at once."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x03123U\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00K\x02\x85K\x01\x85tR"
    state = b"ccollections\nOrderedDict\n(](](U\x01w" + tensor + b"eetR"
    magic = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
    system = b"}U\rlittle_endian\x88s"
    pickles = (magic, b"M\xe9\x03", system, state, b"](U\x03123e")
    content = b"".join(b"\x80\x02" + one + b"." for one in pickles)
    numbers = struct.pack("<q2f", 2, 1.5, -2.0)
    (tmp_path / "a.pth").write_bytes(content + numbers)
    assert ll.weights_of(tmp_path / "a.pth")["w"].tolist() == [1.5, -2.0]
    for cut in range(1, len(content + numbers)):  # whatever is missing, it is refused in a line
        (tmp_path / "b.pth").write_bytes((content + numbers)[:cut])
        with pytest.raises(ll.InputError, match="not a readable checkpoint"):
            ll.weights_of(tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(content + struct.pack("<q2f", 2**60, 1.5, -2.0))
    with pytest.raises(ll.InputError, match="storage 123 is not whole"):
        ll.weights_of(tmp_path / "c.pth")


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight


def saved_safely(state, path):
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("left_out", ["head.weight", "table.weight"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_tied_weight_that_is_saved_once(left_out, prefix, tmp_path):
    torch.manual_seed(0)
    model = Decoder()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items() if name != left_out}
    found = ll.load_weights(Decoder(), saved_safely(state, tmp_path / "a.safetensors"))
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert found.head.weight is found.table.weight


def test_tied_weights_that_differ_in_the_file_are_those_of_another_model(tmp_path):
    """Torch would load one over the other, and the measured model would be neither."""
    state = Decoder().state_dict() | {"head.weight": torch.ones(5, 3)}
    with pytest.raises(
        ll.InputError, match=r"different weights for table\.weight and head\.weight, which are one"
    ):
        ll.load_weights(Decoder(), saved_safely(state, tmp_path / "a.safetensors"))
    state["head.weight"] = state["table.weight"] = torch.full((5, 3), torch.nan)
    ll.load_weights(Decoder(), saved_safely(state, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float32])
@pytest.mark.parametrize("values", [[0.5, 1.0], [1j, 0j], [1.0, 0.0]])
def test_numbers_that_the_model_cannot_hold_are_not_cut(values, dtype, tmp_path):
    module = nn.Module()
    module.register_buffer("mask", torch.zeros(2, dtype=dtype))
    torch.save({"mask": torch.tensor(values)}, tmp_path / "a.pt")
    if values == [1.0, 0.0] or (values == [0.5, 1.0] and dtype == torch.float32):
        assert ll.load_weights(module, tmp_path / "a.pt").mask.tolist() == values
        return
    with pytest.raises(ll.InputError, match=rf"has (float32|complex64) for mask, which is {str(dtype)[6:]}"):
        ll.load_weights(module, tmp_path / "a.pt")
    assert not module.mask.any()


def test_what_is_not_tied_must_be_there(tmp_path):
    model = Decoder()
    model.head = nn.Linear(3, 5, bias=False)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "head.weight"}
    with pytest.raises(ll.InputError, match=r"lacks head\.weight of the model"):
        ll.load_weights(model, saved_safely(state, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_several_files(kind, net, tmp_path):
    places = {}
    for number, name in enumerate(net.state_dict()):
        file = f"model-{number % 3}.{kind}"
        places[name] = file
    for file in set(places.values()):
        part = {n: t.clone() for n, t in net.state_dict().items() if places[n] == file}
        if kind == "bin":
            torch.save(part, tmp_path / file)
        else:
            saved_safely(part, tmp_path / file)
    index = tmp_path / f"model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    found = ll.load_weights(Net(), index)
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    last = next(iter(places.values()))
    for content, message in (
        ({"weight_map": places | {"more": last}}, "lacks more, which"),
        ({"weight_map": {"w": f"../{last}"}}, "not an index of weights"),
        ({"weight_map": {"w": "absent.bin"}}, "cannot read checkpoint"),
        ({"weight_map": {}}, "not an index of weights"),
        ({"weights": places}, "not an index of weights"),
        ([1], "not an index of weights"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(ll.InputError, match=message):
            ll.weights_of(index)


class Adapted(nn.Module):
    """A model with PEFT's names: a base, and what an adapter called `default` adds and takes the place of."""

    def __init__(self):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = nn.Module()
        inner = self.base_model.model
        inner.layer = nn.Module()
        inner.layer.base_layer = nn.Linear(3, 3)
        inner.layer.lora_A = nn.ModuleDict({"default": nn.Linear(3, 2, bias=False)})
        inner.head = nn.Module()
        inner.head.original_module = nn.Linear(3, 2)
        inner.head.modules_to_save = nn.ModuleDict({"default": nn.Linear(3, 2)})


ADAPTER = {
    "base_model.model.layer.lora_A.weight": torch.ones(2, 3),
    "base_model.model.head.weight": torch.full((2, 3), 2.0),
    "base_model.model.head.bias": torch.full((2,), 3.0),
}


def test_an_adapter_of_peft_goes_where_it_belongs(tmp_path):
    model = Adapted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = ll.load_weights(model, saved_safely(ADAPTER, tmp_path / "a.safetensors")).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = "base_model.model.head.modules_to_save.default"
    assert changed == {"base_model.model.layer.lora_A.default.weight", f"{own}.weight", f"{own}.bias"}
    assert (after[f"{own}.bias"] == 3).all()


@pytest.mark.parametrize("model", [Adapted, Net])
def test_an_adapter_of_another_model_is_refused(model, tmp_path):
    part = {name: tensor for name, tensor in ADAPTER.items() if "lora" in name}
    with pytest.raises(ll.InputError, match=r"is an adapter of PEFT.*PeftModel\.from_pretrained"):
        ll.load_weights(model(), saved_safely(part, tmp_path / "a.safetensors"))

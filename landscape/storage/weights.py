"""A model's weights out of whatever file they came in; nothing in the file is ever run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape.errors import InputError
from landscape.storage.files import existing
from landscape.storage.pickles import Stored
from landscape.storage.safe import is_safetensors, read_safetensors
from landscape.storage.saved import open_saved

Model = TypeVar("Model", bound=nn.Module)

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch puts into names, anywhere, when it wraps a module; no module of anybody else's is called so."""
PARALLEL = "module."  # what DataParallel and DistributedDataParallel put in front of all names
PEFT = "base_model.model."  # what PEFT puts in front of all names of an adapter
MOST_NAMED = 6  # entries of a file that is no state dict, in a message
INDEX = ".index.json"  # what Hugging Face's lists of files end with
EXTRA = "_extra_state"  # of modules that keep something else beside their tensors


def weights_of(path: Path | str, *, key: str | None = None, prefix: str | None = None) -> dict[str, Tensor]:
    """Read the named tensors of a model, onto the CPU.

    From a file of `torch.save`, of any version, that is a `state_dict` or a dictionary that holds one, from
    Lightning's checkpoints, from `.safetensors`, and from Hugging Face's index of several such files
    (`model.safetensors.index.json`). What else a file holds, such as hyperparameters or classes in a pickle,
    is neither loaded nor run.

    Args:
        path: the file.
        key: which entry is the state dict. Without it, Lightning's is `state_dict`; else it is the file
            itself, or the one entry that holds nothing but tensors.
        prefix: take only tensors whose names begin with this, and remove it from the names: `model.` for a
            Lightning module that keeps the network as `self.model`. Without it, only what torch's own
            wrappers add is removed: `torch.compile`, `DataParallel` and `DistributedDataParallel`, sharding
            and checkpointing. The empty prefix leaves all names as they are.

    Returns:
        The tensors by name, with the shapes and dtypes that they have in the file.

    Raises:
        InputError: the file cannot be read; holds no state dict, or several and no key is given; no name
            has the prefix; or two names would become one.
    """
    path = Path(path)
    found = _sharded(path, key) if path.name.endswith(INDEX) else _tensors_of(path, key)
    if prefix:
        if not (found := {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}):
            raise InputError(f"{path} has no name that begins with {prefix!r}")
        return found
    return found if prefix == "" else _unwrapped(path, found)


def load_weights(
    model: Model, path: Path | str, *, key: str | None = None, prefix: str | None = None
) -> Model:
    """Load a file's weights into a model, and return the model.

    As `weights_of`. Without a `prefix`, if the names are not the model's, the prefix that makes them so is
    removed, if there is exactly one. Every weight of the model must be in the file, and have its shape; of
    tied weights, which Hugging Face saves once, one is enough, and all that are there must be equal. An
    adapter of PEFT (`adapter_model.safetensors`) is loaded into the adapter of a model that has one, and its
    base stays.

    Args:
        model: any module; its weights are overwritten.
        path, key, prefix: as for `weights_of`.

    Returns:
        The model that was given.

    Raises:
        InputError: as `weights_of`, or the weights are not the model's.
    """
    path = Path(path)
    weights = weights_of(path, key=key, prefix=prefix)
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(EXTRA)}
    if prefix is None and state and weights.keys() != state.keys():
        weights = _without_prefix(state, weights)
    adapter = weights.keys() != state.keys() and all(name.startswith(PEFT) for name in weights)
    if adapter:
        weights = _of_adapter(model, state, weights, path)
    _need_held(path, state, weights)
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of shapes, a line each
        raise InputError(f"{path} does not fit the model: {str(error).splitlines()[-1].strip()}") from None
    loaded = {_place(state[name]) for name in weights.keys() & state.keys()}
    needed = [] if adapter else [n for n in missing if n in state and _place(state[n]) not in loaded]
    for wrong, said in (
        (needed, "lacks {} of the model"),
        (unknown, "has {}, which the model lacks"),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise InputError(f"{path} {said.format(wrong[0] + more)}; a prefix or a key may be needed")
    return model


def _tensors_of(path: Path, key: str | None) -> dict[str, Tensor]:
    """Read the tensors of one file."""
    if not is_safetensors(path):
        with open_saved(path, old=True) as saved:
            chosen = _chosen(path, saved.content, key)
            return {name: saved.tensor(stored) for name, stored in chosen.items()}
    found, _ = read_safetensors(path)
    if not found:
        raise InputError(f"{path} holds no tensors")
    return found


def _sharded(path: Path, key: str | None) -> dict[str, Tensor]:
    """Read the tensors that an index names, from the files beside it.

    Raises:
        InputError: it is not such an index, a file is not next to it, or lacks a tensor that it should hold.
    """
    try:
        places: dict[str, str] = json.loads(existing(path, "index", 2**28).read_bytes())["weight_map"]
        files = sorted(set(places.values()))
        if not files or any(Path(file).name != file for file in files):
            raise ValueError("a file is not next to it")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not an index of weights ({type(error).__name__}: {error})") from None
    found: dict[str, Tensor] = {}
    for file in files:
        tensors = _tensors_of(path.parent / file, key)
        for name in (name for name, place in places.items() if place == file):
            if name not in tensors:
                raise InputError(f"{path.parent / file} lacks {name}, which {path.name} says it holds")
            found[name] = tensors[name]
    return found


def _without_prefix(state: Mapping[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the one prefix that makes the names the model's, if there is exactly one."""
    tied: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        tied.setdefault(_place(tensor), []).append(name)
    first = next(iter(tied.values()))
    ends = {name.removesuffix(last) for last in first for name in weights if name.endswith(f".{last}")}
    fitting = [end for end in ends if all(any(end + n in weights for n in names) for names in tied.values())]
    if len(fitting) != 1:
        return weights
    (end,) = fitting
    return {n.removeprefix(end): t for n, t in weights.items() if n.startswith(end)}


def _of_adapter(
    model: nn.Module, state: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Give the tensors of PEFT's adapter the names that they have in a model with one: its own among them."""
    named = getattr(model, "active_adapter", "default")
    known = {}
    for name in state:
        parts = name.split(".")
        if named in parts:
            at = parts.index(named)
            start = at - 1 if parts[at - 1] == "modules_to_save" else at
            known[".".join(parts[:start] + parts[at + 1 :])] = name
    if set(weights) != set(known):
        raise InputError(
            f"{path} is an adapter of PEFT, and not the one that the model has; make the model by "
            "peft.PeftModel.from_pretrained(model, folder)"
        )
    return {known[name]: tensor for name, tensor in weights.items()}


def _need_held(path: Path, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Make sure that a model can hold a file's numbers: torch would load some over others, or cut them.

    Raises:
        InputError: weights that the model has tied differ in the file, or numbers are of a kind (complex, or
            with fractions) that the model's weight is not.
    """
    first: dict[Any, str] = {}
    for name in (name for name in state if name in weights):
        found, dtype = weights[name], state[name].dtype
        other = first.setdefault(_place(state[name]), name)
        if other != name and not _equal(found, weights[other]):
            raise InputError(
                f"{path} has different weights for {other} and {name}, which are one weight in the model; "
                "build the model without that tie"
            )
        whole = torch.can_cast(found.dtype, dtype)
        if not whole and (found.is_complex() or not _equal(found, found.to(dtype))):
            raise InputError(f"{path} has {str(found.dtype)[6:]} for {name}, which is {str(dtype)[6:]}")


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:  # told where they are loaded
        return True
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _place(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Tell tied tensors: they lie at one place in memory. Those that are empty, or nowhere, are not tied."""
    where = tensor.data_ptr() or id(tensor)
    return where, tuple(tensor.shape), tensor.stride()


def _unwrapped(path: Path, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    everywhere = all(name.startswith(PARALLEL) for name in found)
    for name, tensor in found.items():
        bare = name.removeprefix(PARALLEL) if everywhere else name
        for wrapper in WRAPPERS:
            bare = bare.replace(wrapper, "")
        renamed[bare] = tensor
    if len(renamed) < len(found):
        raise InputError(f'{path} has names that differ only by what a wrapper of torch adds; give prefix=""')
    return renamed


def _chosen(path: Path, content: Any, key: str | None) -> dict[str, Stored]:
    """Return the state dict in what a file holds."""
    if not isinstance(content, dict):
        raise InputError(f"{path} holds an object, not a state dict; save model.state_dict() instead")
    if key is None and "pytorch-lightning_version" in content:
        key = "state_dict"
    places = {name: inner for name, inner in content.items() if key in (None, name)}
    states = {name: state for name, inner in places.items() if (state := _state(inner))}
    if key is None and (whole := _state(content)):
        return whole
    if len(states) != 1:
        entries = ", ".join([*map(str, content)][:MOST_NAMED]) + ", …" * (len(content) > MOST_NAMED)
        named = f", but {', '.join(states)}; choose one with key" if states else f"; its entries: {entries}"
        where = "" if key is None else f" at {key!r}"
        raise InputError(f"{path} holds no single state dict{where}{named}")
    (state,) = states.values()
    return state


def _state(content: Any) -> dict[str, Stored] | None:
    """Return the tensors of a dictionary of nothing else; None for any other."""
    if not isinstance(content, dict):
        return None
    plain = {name: value for name, value in content.items() if not name.endswith(EXTRA)}
    return plain if plain and all(isinstance(value, Stored) for value in plain.values()) else None

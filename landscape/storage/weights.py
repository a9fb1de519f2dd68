"""A model's weights out of whatever file they came in; nothing in the file is ever run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from landscape.errors import InputError
from landscape.storage.pickles import Stored
from landscape.storage.safe import is_safetensors, read_safetensors
from landscape.storage.saved import open_saved

Model = TypeVar("Model", bound=nn.Module)

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch puts into names, anywhere, when it wraps a module; no module of anybody else's is called so."""
PARALLEL = "module."  # what DataParallel and DistributedDataParallel put in front of all names
EXTRA = "_extra_state"  # of modules that keep something else beside their tensors


def weights_of(path: Path | str, *, key: str | None = None, prefix: str | None = None) -> dict[str, Tensor]:
    """Read the named tensors of a model, onto the CPU.

    From a file of `torch.save` that is a `state_dict` or a dictionary that holds one, from Lightning's
    checkpoints, and from `.safetensors`. What else a file holds, such as hyperparameters or classes in a
    pickle, is neither loaded nor run.

    Args:
        path: of the file.
        key: which entry is the state dict. Without it, Lightning's is `state_dict`; else it is the file
            itself, or the one entry that holds nothing but tensors.
        prefix: take what has this in front of its name, and take that away: `model.` of a Lightning module
            that keeps the network as `self.model`. Without it, only what torch's own wrappers add goes:
            `torch.compile`, `DataParallel` and `DistributedDataParallel`, sharding and checkpointing.
            The empty prefix leaves all names as they are.

    Returns:
        The tensors by name, with the shapes and dtypes that they have in the file.

    Raises:
        InputError: the file cannot be read; holds no state dict, or several and no key is given; no name
            has the prefix; or two names would become one.
    """
    path = Path(path)
    if is_safetensors(path):
        found, _ = read_safetensors(path)
        if not found:
            raise InputError(f"{path} holds no tensors")
    else:
        with open_saved(path) as saved:
            chosen = _chosen(path, saved.content, key)
            found = {name: saved.tensor(stored) for name, stored in chosen.items()}
    if prefix:
        if not (found := {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}):
            raise InputError(f"{path} has no name that begins with {prefix!r}")
        return found
    return found if prefix == "" else _unwrapped(path, found)


def load_weights(
    model: Model, path: Path | str, *, key: str | None = None, prefix: str | None = None
) -> Model:
    """Load a file's weights into a model, and return the model.

    As `weights_of`; but without a `prefix`, where the names are not the model's, one that makes them so is
    taken, if there is exactly one. Every weight of the model must be in the file, and have its shape.

    Args:
        model: of any kind; its weights are overwritten.
        path, key, prefix: as for `weights_of`.

    Returns:
        The model that was given.

    Raises:
        InputError: as `weights_of`, or the weights are not the model's.
    """
    weights = weights_of(path, key=key, prefix=prefix)
    names = [name for name in model.state_dict() if not name.endswith(EXTRA)]
    if prefix is None and names and weights.keys() != set(names):
        ends = [name.removesuffix(names[0]) for name in weights if name.endswith(f".{names[0]}")]
        if len(fitting := [end for end in ends if all(end + name in weights for name in names)]) == 1:
            (end,) = fitting
            weights = {n.removeprefix(end): t for n, t in weights.items() if n.startswith(end)}
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of shapes, a line each
        raise InputError(f"{path} does not fit the model: {str(error).splitlines()[-1].strip()}") from None
    for wrong, said in (
        ([name for name in missing if not name.endswith(EXTRA)], "lacks {} of the model"),
        (unknown, "has {}, which the model has not"),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise InputError(f"{path} {said.format(wrong[0] + more)}; a prefix or a key may be needed")
    return model


def _unwrapped(path: Path, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    everywhere = all(name.startswith(PARALLEL) for name in found)
    for name, tensor in found.items():
        bare = name.removeprefix(PARALLEL) if everywhere else name
        for wrapper in WRAPPERS:
            bare = bare.replace(wrapper, "")
        renamed[bare] = tensor
    if len(renamed) < len(found):
        raise InputError(f'{path} has names that differ only by what torch wraps with; say prefix=""')
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
        named = f", but {', '.join(states)}; say which by key" if states else ""
        where = "" if key is None else f" at {key!r}"
        raise InputError(f"{path} holds no single state dict{where}{named}")
    (state,) = states.values()
    return state


def _state(content: Any) -> dict[str, Stored] | None:
    """Return the tensors of a dictionary of nothing else; None if it is no such."""
    if not isinstance(content, dict):
        return None
    plain = {name: value for name, value in content.items() if not name.endswith(EXTRA)}
    return plain if plain and all(isinstance(value, Stored) for value in plain.values()) else None

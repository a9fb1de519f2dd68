"""What a frozen loss is known by: a digest of its batches, and one of the criterion that is taken of them."""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscape.errors import InputError
from landscape.objective.batches import parts_of

BATCHES = "batches_sha256"
DIFFERENT = {
    "split": "splits of the data",
    "data_sha256": "data",
    "loss": "losses",
    "mode": "modes (training, eval)",
    BATCHES: "batches (other users or examples, noise, negatives, lengths of history, or another order)",
}
"""What makes losses incomparable, by its key in the provenance."""
UNKNOWN = "unknown"
DEEPEST = 8  # functions in functions


def batches_digest(batches: Iterable[Any]) -> str:
    """Identify batches: equal values in equal order give one digest, on whatever device they are.

    Batches that cannot be pickled have a digest that no others share, `unknown` and a random number.
    """
    digest = _Digest()
    try:
        for batch in batches:
            _Values(digest).dump(batch)
    except Exception:  # whatever an object does when it is pickled
        return f"{UNKNOWN} {uuid4().hex}"
    return digest.written.hexdigest()


def criterion_digest(criterion: Callable[..., Any]) -> str:
    """Identify a criterion by its name, and by a digest of its code, its settings and what it closes over."""
    digest = _Digest()
    _Values(digest).dump(_described(criterion, DEEPEST))
    named = getattr(criterion, "__name__", type(criterion).__name__)
    return f"{named} {digest.written.hexdigest()[:12]}"


def need_one_loss(provenances: Mapping[Any, Mapping[str, Any]]) -> None:
    """Refuse objectives that are to be compared and are not of one loss.

    Args:
        provenances: by the name under which each is spoken of.

    Raises:
        InputError: two are of different data, losses or frozen batches.
    """
    first, *others = provenances
    for other in others:
        for key, what in DIFFERENT.items():
            if provenances[first].get(key) != provenances[other].get(key):
                raise InputError(f"{first} and {other} have different {what}; they cannot be compared")


class _Digest:
    """A file that keeps nothing of what is written to it but a digest."""

    def __init__(self) -> None:
        self.written = hashlib.sha256()

    def write(self, part: bytes) -> int:
        self.written.update(part)
        return len(part)


class _Values(pickle.Pickler):
    """Pickles values alone: a tensor by its numbers, and nothing by where it has stood before."""

    def __init__(self, file: _Digest) -> None:
        super().__init__(file, protocol=5)
        self.fast = True

    def persistent_id(self, value: Any) -> str | None:
        """Return what a tensor or an array of numbers is known by; other values are pickled as they are."""
        if isinstance(value, Tensor):
            dtype, shape = value.dtype, () if value.is_nested else tuple(value.shape)
            arrays = [_array(part) for part in parts_of(value)]
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            dtype, shape, arrays = value.dtype, value.shape, [np.ascontiguousarray(value)]
        else:
            return None
        return f"{dtype} {shape} {' '.join(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)}"


def _array(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy()


def _described(part: Any, depth: int) -> Any:
    """Return plain values that distinguish functions; for other objects, their class."""
    if isinstance(part, FunctionType) and depth:
        cells = [cell.cell_contents for cell in part.__closure__ or ()]
        around = [*cells, *(part.__defaults__ or ()), *sorted((part.__kwdefaults__ or {}).items())]
        return [part.__module__, _code(part.__code__), [_described(value, depth - 1) for value in around]]
    if isinstance(part, partial) and depth:
        around = [part.func, *part.args, *sorted(part.keywords.items())]
        return [_described(value, depth - 1) for value in around]
    if isinstance(part, list | tuple) and depth:
        return [_described(value, depth - 1) for value in part]
    if isinstance(part, str | int | float | None | Tensor):
        return part
    settings = {k: v for k, v in getattr(part, "__dict__", {}).items() if isinstance(v, str | int | float)}
    tensors = list(part.state_dict().items()) if isinstance(part, nn.Module) else []
    return [type(part).__qualname__, getattr(part, "__qualname__", ""), sorted(settings.items()), tensors]


def _code(code: CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_name, code.co_code, constants, code.co_names]

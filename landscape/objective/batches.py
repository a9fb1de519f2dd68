"""Batches of any kind, kept on the device of the weights they are evaluated with."""

import copy
import warnings
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.data import Dataset, IterableDataset

from landscape.errors import InputError
from landscape.runtime import progress

HALF = (torch.bfloat16, torch.float16)
COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
LARGE = 2**30  # bytes of batches above which a warning says so
MANY = 10**5  # the most batches, of `LARGE` bytes in all, that an iterable without a length may give


def kept(batches: Iterable[Any], like: Tensor) -> list[Any]:
    """Return all batches, their tensors on the weights' device; half precision becomes the weights' dtype.

    Raises:
        InputError: they are not batches, or do not end.
    """

    def beside(t: Tensor) -> Tensor:
        return recorded(t).to(like if t.dtype in HALF else like.device)

    found: list[Any] = []
    size, length = 0, _length(batches)
    with reading(batches) as advance:
        for number, batch in enumerate(_iterated(batches)):
            tensors = list(tensors_of(batch))
            size += sum(part.nbytes for t in tensors for part in parts_of(t))
            if number >= length and (size > LARGE or number >= MANY):
                raise InputError(
                    f"the batches have no length and do not end after {number:,} ({size / 2**30:.1f} GiB); "
                    "freeze some of them: list(itertools.islice(loader, 100))"
                )
            moves = any(t.device != like.device or t.dtype in HALF or t.is_inference() for t in tensors)
            found.append(mapped(batch, beside) if moves else batch)
            advance(f"{size / 2**30:.1f} GiB")
    if size > LARGE:
        said = f"all batches are kept in memory, {size / 2**30:.1f} GiB"
        warnings.warn(f"{said}; consider a smaller sample, or landscape.streamed(loader)", stacklevel=4)
    return found


def need_batches(given: Iterable[Any]) -> None:
    """Refuse a data set, which gives single examples.

    Raises:
        InputError: it is one, and not of batches that it iterates over itself.
    """
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        raise InputError("a data set gives single examples; wrap it: DataLoader(dataset, batch_size=256)")


def reading(batches: Iterable[Any]) -> AbstractContextManager[Callable[..., None]]:
    """Show how many batches have been read, unless they stand in a list; call what is given for each."""
    if isinstance(batches, list | tuple):
        return nullcontext(lambda text="": None)
    return progress.bar("reading batches", _length(batches) or None)


def recorded(tensor: Tensor) -> Tensor:
    """Return a tensor that graphs may hold: one that was made in torch's inference mode is copied.

    Raises:
        InputError: it is on the meta device.
    """
    if tensor.is_meta:
        raise InputError("a tensor of a batch is on the meta device and has no values")
    return tensor.clone() if tensor.is_inference() else tensor


def _length(batches: Iterable[Any]) -> int:
    """Return how many batches there are; 0 where that is not known beforehand."""
    try:
        return len(batches)  # type: ignore[arg-type] # it may have none
    except TypeError:
        return 0


def _iterated(batches: Iterable[Any]) -> Iterator[Any]:
    if not isinstance(batches, str | Mapping):
        with suppress(TypeError):
            return iter(batches)
    raise InputError(f"the batches are a {type(batches).__name__}; give a list of them, or a data loader")


def tensors_of(batch: Any) -> list[Tensor]:
    """Return the tensors of a batch."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(batch, note)
    return found


def parts_of(tensor: Tensor) -> list[Tensor]:
    """Return the dense tensors that a sparse or nested one is made of; of a dense one, itself."""
    if tensor.is_nested:
        nested: Any = tensor  # torch has not typed what only these have
        sizes = nested._nested_tensor_size() if tensor.layout == torch.strided else nested.offsets()
        return [tensor.values(), sizes]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def doubled(batch: Any) -> Any:
    """Return a batch with its floating-point tensors in float64."""
    return mapped(batch, lambda t: t.double() if t.is_floating_point() else t)


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change the tensors of a batch inside mappings, lists, tuples and objects of any class.

    An object is copied as `copy.deepcopy` copies it, so that none of its own code need be known; what has no
    tensors stays itself, and so does what cannot be copied. The sizes of a packed sequence stay on the CPU,
    where torch wants them.
    """
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return _like(batch, {key: mapped(value, change) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        still = "batch_sizes" if isinstance(batch, PackedSequence) else None
        named = zip(batch._fields, batch, strict=True)
        return type(batch)(*(value if name == still else mapped(value, change) for name, value in named))
    if isinstance(batch, list | tuple):
        return type(batch)(mapped(value, change) for value in batch)
    return batch if isinstance(batch, np.ndarray | nn.Module) else _copied(batch, _Changing(change))


class _Changing(TorchFunctionMode):
    """Changes each tensor that is copied; a parameter clones what it holds.

    Attributes:
        met: whether one was.
    """

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._change = change
        self.met = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in (Tensor.__deepcopy__, Tensor.clone):
            return func(*args, **(kwargs or {}))
        self.met = True
        found = self._change(args[0])
        return args[1].setdefault(id(args[0]), found) if len(args) > 1 else found


def _copied(batch: Any, changing: _Changing) -> Any:
    try:
        with changing:
            found = copy.deepcopy(batch)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a class of the user's may raise anything when it is copied: it is then left alone
        return batch
    return found if changing.met else batch


def _like(batch: Mapping[Any, Any], found: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return a mapping of a batch's kind: those of Hugging Face's tokenizers and models have attributes."""
    if type(batch) is dict or not isinstance(batch, dict | UserDict):
        return found
    same = copy.copy(batch)
    for key, value in found.items():
        same[key] = value
    return same

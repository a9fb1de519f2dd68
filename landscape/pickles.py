"""What the pickle in a checkpoint claims, found out before torch makes any of it."""

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pickle import UnpicklingError
from typing import Any

import torch

from landscape.files import most_unpacked

LONGEST = 2**21  # bytes of a pickle: some 14,000 tensors
MOST_ENTRIES = 3 * 10**5  # of all containers, those that are shared counted wherever they stand
DEEPEST = 100  # containers in containers

_DTYPES = {
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
}
STORAGES = {f"torch {name}Storage": dtype.itemsize for name, dtype in _DTYPES.items()}
"""The storages of tensors, and how many bytes an element has."""
CALLED = (
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
GLOBALS = {*STORAGES, *CALLED, *(str(dtype).replace(".", " ") for dtype in _DTYPES.values())}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
WITH_ARGUMENT = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
CONTAINERS = ("EMPTY_LIST", "EMPTY_DICT")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Global:
    """A function or a class by its name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The bytes of tensors: elements, and bytes of one."""

    elements: int
    itemsize: int


CONTAINER, ORDERED, TENSOR, OTHER = object(), object(), object(), object()
"""What stands for an object that would be made."""


class DryRun:
    """Goes through a pickle as torch's unpickler does, and makes nothing but tuples of numbers and text.

    That unpickler runs no code of the file's, but believes what the file says: a tensor's size beyond its
    storage is allocated, a tuple as a key is hashed though each of its entries is shared by the next, a
    function that is none is printed in full. `torch.save` writes none of that of a plain checkpoint.

    Args:
        sizes: bytes of the archive's members by their name, such as `data/0`.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.storages: dict[str, tuple[str, Storage]] = {}
        self.most = most_unpacked(sum(sizes.values()))
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> None:
        """Go through a pickle.

        Raises:
            UnpicklingError: it holds more than tensors and plain values.
            ValueError: it is too long, or claims what the archive does not hold.
            LookupError, TypeError: it is damaged.
        """
        if len(pickled) > LONGEST:
            raise ValueError(f"its structure has {len(pickled):,} bytes, more than {LONGEST:,}")
        for opcode, argument, _ in pickletools.genops(pickled):
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in WITH_ARGUMENT:
            self.stack.append(argument)
        elif name in CONTAINERS:
            self.stack.append(CONTAINER)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "GLOBAL":
            self.stack.append(_known(argument))
        elif name not in ("PROTO", "STOP"):
            self._combine(name)

    def _combine(self, name: str) -> None:
        """Take what an opcode takes from the stack, and put there what it makes of that."""
        if name == "TUPLE":
            items = self._since_mark()
            self.stack.append(tuple(items))
        elif name in TUPLES:
            self.stack[-TUPLES[name] :] = [tuple(self._top(TUPLES[name]))]
        elif name == "APPEND":
            self.stack.pop()
        elif name == "APPENDS":
            self._since_mark()
        elif name == "SETITEM":
            _check_keys([self.stack.pop(-2), self.stack.pop()])
        elif name == "SETITEMS":
            _check_keys(self._since_mark())
        elif name == "BINPERSID":
            self.stack.append(self._storage(*self.stack.pop()))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._called(function, arguments))
        elif name == "BUILD" and self.stack[-2] is ORDERED:
            self.stack.pop()
        else:
            raise UnpicklingError(f"an opcode {name} that no plain checkpoint needs")

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("an empty stack")
        return self.stack[-count:]

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _storage(self, kind: Any, of: Any, key: Any, location: Any, elements: Any) -> Storage:
        if (kind, type(of), type(key), type(location)) != ("storage", Global, str, str):
            raise UnpicklingError("something persistent that is no storage")
        found = Storage(elements, STORAGES[of.name])
        if self.storages.setdefault(key, (of.name, found)) != (of.name, found):
            raise ValueError(f"storage {key} is claimed to be of two types")
        if elements * found.itemsize != self.sizes[f"data/{key}"]:
            raise ValueError(f"storage {key} is claimed to hold {elements:,} elements, and does not")
        return found

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise UnpicklingError("a call of what is no function")
        if function.name == "collections OrderedDict" and not arguments:
            return ORDERED
        if function.name == "torch._utils _rebuild_tensor_v2":
            return self._tensor(*arguments)
        if function.name == "torch._utils _rebuild_parameter" and arguments[0] is TENSOR:
            return TENSOR
        if function.name == "torch Size" and all(isinstance(n, int) for (size,) in [arguments] for n in size):
            return OTHER
        raise UnpicklingError(f"a call of {function.name}")

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
    ) -> object:
        if not isinstance(storage, Storage) or hooks is not ORDERED or type(requires_grad) is not bool:
            raise UnpicklingError("a tensor that is no plain one")
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise ValueError("a tensor has an impossible shape")
        elements = prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if elements and max(last + 1, elements) > storage.elements:
            raise ValueError(f"a tensor is claimed to hold {elements:,} elements, its storage has fewer")
        self.most -= elements * storage.itemsize
        if self.most < 0:
            raise ValueError("its tensors are far larger than the file")
        return TENSOR


def _known(name: str) -> Global:
    if name not in GLOBALS:
        raise UnpicklingError(f"the global {name}")
    return Global(name)


def _check_keys(items: list[Any]) -> None:
    if not all(isinstance(key, str | int | float | None) for key in items[::2]):
        raise UnpicklingError("a key that is neither text nor a number")


def check_extent(content: Any) -> None:
    """Make sure that nested containers can be compared, printed and copied: what is shared counts each time.

    Raises:
        ValueError: they are too many, or too deep.
    """
    left, waiting = MOST_ENTRIES, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            inner = [*value.values(), *getattr(value, "__dict__", {}).values()]
        elif isinstance(value, list | tuple):
            inner = list(value)
        else:
            continue
        left -= len(inner)
        if left < 0 or depth > DEEPEST:
            raise ValueError("its containers are nested without end")
        waiting += [(each, depth + 1) for each in inner]

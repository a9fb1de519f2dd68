"""What the pickle in a checkpoint claims, found out before torch makes any of it."""

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipInfo

import torch

from landscape.storage.archives import most_unpacked

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
STORAGES = {f"torch {name}Storage": dtype for name, dtype in _DTYPES.items()}
"""The storages of tensors, and what an element is."""
CALLED = (
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
GLOBALS = {*STORAGES, *CALLED, *(str(dtype).replace(".", " ") for dtype in _DTYPES.values())}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
WITH_ARGUMENT = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Global:
    """A function or a class by its name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The elements of tensors: the archive's member `data/KEY`."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class Stored:
    """A tensor, as a part of a storage that it does not leave. Strides and offset are in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Ordered(dict[str, Any]):
    """What stands for an OrderedDict, which may have attributes."""


OTHER = object()
"""What stands for any other object that would be made."""


class DryRun:
    """Goes through a pickle as torch's unpickler does, and makes nothing but tuples of numbers and text.

    That unpickler runs no code of the file's, but believes what the file says: a tensor's size beyond its
    storage is allocated, a tuple as a key is hashed though each of its entries is shared by the next, a
    function that is none is printed in full. `torch.save` writes none of that of a plain checkpoint.

    Args:
        members: of the archive, by their names, such as `data/0`.
    """

    def __init__(self, members: Mapping[str, ZipInfo]) -> None:
        self.sizes = {name: member.file_size for name, member in members.items()}
        self.storages: dict[str, Storage] = {}
        self.most = most_unpacked(sum(self.sizes.values()))
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """Go through a pickle; return what stands for what it holds, of containers without their entries.

        Raises:
            UnpicklingError: it holds more than tensors and plain values.
            ValueError: it is too long, or claims what the archive does not hold.
            LookupError, TypeError: it is damaged.
        """
        if len(pickled) > LONGEST:
            raise ValueError(f"its structure has {len(pickled):,} bytes, more than {LONGEST:,}")
        for opcode, argument, _ in pickletools.genops(pickled):
            self._step(opcode.name, argument)
        return self.stack[-1]

    def _step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in WITH_ARGUMENT:
            self.stack.append(argument)
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "EMPTY_LIST":
            self.stack.append(OTHER)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "GLOBAL":
            self.stack.append(self._named(argument))
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
            self._set([self.stack.pop(-2), self.stack.pop()])
        elif name == "SETITEMS":
            self._set(self._since_mark())
        elif name == "BINPERSID":
            self.stack.append(self._storage(*self.stack.pop()))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._called(function, arguments))
        elif name == "BUILD" and isinstance(self.stack[-2], Ordered):
            self.stack.pop()
        else:
            self._uncommon(name)

    def _uncommon(self, name: str) -> None:
        raise UnpicklingError(f"an opcode {name} that no plain checkpoint needs")

    def _named(self, name: str) -> Global:
        if name not in GLOBALS:
            raise UnpicklingError(f"the global {name}")
        return Global(name)

    def _set(self, items: list[Any]) -> None:
        """Take keys and values for the dictionary on top of the stack."""
        if not all(isinstance(key, str | int | float | None) for key in items[::2]):
            raise UnpicklingError("a key that is neither text nor a number")

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("an empty stack")
        return self.stack[-count:]

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _storage(self, kind: Any, of: Any, key: Any, location: Any, elements: Any) -> Any:
        if (kind, type(of), type(key), type(location)) != ("storage", Global, str, str):
            raise UnpicklingError("something persistent that is no storage")
        found = Storage(key, STORAGES[of.name], elements)
        if self.storages.setdefault(key, found) != found:
            raise ValueError(f"storage {key} is claimed to be of two types")
        if elements * found.dtype.itemsize != self.sizes[f"data/{key}"]:
            raise ValueError(f"storage {key} is claimed to hold {elements:,} elements, and does not")
        return found

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise UnpicklingError("a call of what is no function")
        if function.name == "collections OrderedDict" and not arguments:
            return Ordered()
        if function.name == "torch._utils _rebuild_tensor_v2":
            return self._tensor(*arguments)
        if function.name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], Stored):
            return arguments[0]
        if function.name == "torch Size" and all(isinstance(n, int) for (size,) in [arguments] for n in size):
            return OTHER
        raise UnpicklingError(f"a call of {function.name}")

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
    ) -> Stored:
        if (
            not isinstance(storage, Storage)
            or not isinstance(hooks, Ordered)
            or type(requires_grad) is not bool
        ):
            raise UnpicklingError("a tensor that is no plain one")
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise ValueError("a tensor has an impossible shape")
        elements = prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if elements and max(last + 1, elements) > storage.elements:
            raise ValueError(f"a tensor is claimed to hold {elements:,} elements, its storage has fewer")
        self.most -= elements * storage.dtype.itemsize
        if self.most < 0:
            raise ValueError("its tensors are far larger than the file")
        return Stored(storage, offset, size, stride)


class Outline(DryRun):
    """Goes through any pickle and keeps its dictionaries, by their text keys, and the tensors in them.

    Whatever else it would make, a class of Lightning's or of the user's among it, is left out as `OTHER`:
    neither called nor imported.
    """

    def _named(self, name: str) -> Global:
        return Global(name)

    def _set(self, items: list[Any]) -> None:
        if isinstance(target := self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, str))

    def _storage(self, *named: Any) -> Any:
        known = len(named) == 5 and isinstance(named[1], Global) and named[1].name in STORAGES
        return super()._storage(*named) if known else OTHER

    def _called(self, function: Any, arguments: Any) -> Any:
        try:
            return super()._called(function, arguments)
        except UnpicklingError:
            return OTHER

    def _uncommon(self, name: str) -> None:
        """Take from the stack what the opcode takes, by pickle's own table, and put `OTHER` there."""
        if name == "BUILD":
            self.stack.pop()
            return
        taken = OPCODES[name].stack_before
        if pickletools.markobject in taken:
            self._since_mark()
            taken = taken[: taken.index(pickletools.markobject)]
        self._top(len(taken))
        del self.stack[len(self.stack) - len(taken) :]
        self.stack += [OTHER] * len(OPCODES[name].stack_after)


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

"""What a pickle of `torch.save` holds, without importing or calling anything that it names."""

import io
import pickle
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

LONGEST = 2**24  # bytes of a pickle: some 100,000 tensors, and at most 2 GB of Python's own objects
OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT"),
    *("BINSTRING", "SHORT_BINSTRING"),  # of Python 2
    *("BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT"),
    *("GLOBAL", "STACK_GLOBAL", "BINPERSID"),
)
"""The opcodes of protocols 2 to 5 that Python's unpickler may run as they are; `Unpickler` adds its own."""
STORAGES = {
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Storage(NamedTuple):
    """The numbers of tensors: `elements` of them in the archive's member `data/KEY`."""

    key: str
    dtype: torch.dtype
    elements: int


class Stored(NamedTuple):
    """A tensor as a part of a storage; offset and strides are in elements.

    `bits` may set `conj` or `neg`: the tensor is then the conjugate, or the negative, of what is stored.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    bits: Mapping[str, bool]


class Other:
    """Stands for everything that is neither a tensor nor a plain value. It does nothing."""

    def append(self, *_: Any) -> None: ...
    def extend(self, *_: Any) -> None: ...


OTHER = Other()


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, bits: Any = None
) -> Stored | Other:
    return _tensor_of(storage, offset, size, stride, _grad, _hooks, getattr(storage, "dtype", None), bits)


def _tensor_of(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, bits: Any = None
) -> Stored | Other:
    plain = isinstance(storage, Storage) and isinstance(dtype, torch.dtype)
    return Stored(storage, dtype, offset, size, stride, bits or {}) if plain else OTHER


def _dictionary(*entries: Any) -> Any:
    """Make an OrderedDict: torch writes its entries one by one, and Python 2 all at once, as pairs."""
    if not entries:
        return {}
    (pairs,) = entries
    plain = isinstance(pairs, list) and all(isinstance(p, list) and len(p) == 2 for p in pairs)
    return {k: v for k, v in pairs if isinstance(k, str)} if plain else OTHER


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": _dictionary,
    "torch Size": lambda size: (*size,),
    "torch._utils _rebuild_tensor": lambda s, offset, size, stride: _tensor(
        s, offset, size, stride, None, None
    ),  # before torch 0.4
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
"""What is called in place of the functions that torch names."""


class Unpickler(pickle._Unpickler):
    """Python's unpickler, in Python, with everything taken out that could act on what a file says.

    A class or a function of any other name than torch's own few is `OTHER`, and what it would make too. No
    key is hashed but text and numbers: the hash of a nested tuple can take for ever, or all of the C stack.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")  # which is what texts of Python 2 are read as
        self.storages: dict[str, Storage] = {}  # by key

    def find_class(self, module: str, name: str) -> Any:
        """Return a function of ours, a dtype, or `OTHER`."""
        if module == "torch.storage" and name == "UntypedStorage":
            return torch.uint8
        found = STORAGES.get(name, vars(torch).get(name)) if module == "torch" else None
        return found if isinstance(found, torch.dtype) else FUNCTIONS.get(f"{module} {name}", OTHER)

    def persistent_load(self, pid: Any) -> Storage | Other:
        """Return the storage that a tuple ("storage", type, key, device, elements) names.

        Before archives, a sixth entry could make it a part of another storage; it was None even then.
        """
        _, dtype, key, _, elements, *part = pid
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str)) or any(p is not None for p in part):
            return OTHER
        self.storages[key] = found = Storage(key, dtype, elements)
        return found

    def call(self) -> None:
        """Call one of the functions above; of anything else, nothing is called."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(function(*arguments) if isinstance(function, FunctionType) else OTHER)

    def forget(self, taken: int) -> None:
        """Put `OTHER` in place of the topmost entries."""
        del self.stack[len(self.stack) - taken :]
        self.stack.append(OTHER)

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, in turn, of a dictionary. A key that is neither text nor number is `OTHER`."""
        if isinstance(target := self.stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key if isinstance(key, str | int | float | None) else OTHER] = value

    dispatch: ClassVar[dict[int, Callable[[Any], Any]]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in OPCODES
    }
    dispatch |= {
        pickle.REDUCE[0]: call,
        pickle.BUILD[0]: lambda self: self.stack.pop(),
        pickle.NEWOBJ[0]: lambda self: self.forget(2),
        pickle.NEWOBJ_EX[0]: lambda self: self.forget(3),
        pickle.EMPTY_SET[0]: lambda self: self.forget(0),
        pickle.ADDITEMS[0]: lambda self: self.pop_mark(),
        pickle.FROZENSET[0]: lambda self: (self.pop_mark(), self.forget(0)),
        pickle.SETITEM[0]: lambda self: self.set_items([self.stack.pop(-2), self.stack.pop()]),
        pickle.SETITEMS[0]: lambda self: self.set_items(self.pop_mark()),
    }


def outline(pickled: bytes) -> Any:
    """Return what a pickle holds: plain values, `Stored` for tensors, `OTHER` for the rest.

    Raises:
        ValueError: it is too long.
        Exception: of any kind, if it is damaged.
    """
    if len(pickled) > LONGEST:
        raise ValueError(f"its structure has {len(pickled):,} bytes, more than {LONGEST:,}")
    return Unpickler(io.BytesIO(pickled)).load()


def next_outline(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Read one of several pickles that lie end to end; return its `outline`, and its storages by key.

    Raises:
        Exception: of any kind, if it is damaged or too long.
    """
    start = file.tell()
    pickled = io.BytesIO(file.read(LONGEST))
    unpickler = Unpickler(pickled)
    found = unpickler.load()
    file.seek(start + pickled.tell())
    return found, unpickler.storages

"""How often the host would wait for a GPU, counted on a CPU."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

READING = {
    *(getattr(Tensor, name) for name in ("item", "tolist", "cpu", "nonzero", "unique", "masked_select")),
    *(getattr(Tensor, f"__{name}__") for name in ("float", "int", "bool", "index")),
    *(torch.equal, torch.allclose, torch.nonzero, torch.unique, torch.masked_select),
}


class Waits(TorchFunctionMode):
    """Counts what brings numbers from the device, or a shape that depends on them.

    Attributes:
        calls: how often each function did; `total` is the sum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.calls.total()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func is Tensor.__getitem__ and any(_is_mask(part) for part in _parts(args[1]))
        if func in READING or masked:
            self.calls[str(resolve_name(func))] += 1
        return func(*args, **(kwargs or {}))


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype is torch.bool

"""A device without float64, such as `mps` of a Mac: this machine's CPU, while a mode is on."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WIDE = (torch.float64, torch.complex128)


class WithoutFloat64(TorchDispatchMode):
    """Refuses every tensor of 64-bit floating numbers, as torch does on such a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) and t.dtype in WIDE for t in tree_leaves(made)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return made

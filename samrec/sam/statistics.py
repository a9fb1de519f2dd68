"""What normalization layers remember of the batches they have seen."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

REMEMBERED = ("running_mean", "running_var", "num_batches_tracked")


class RunningStatistics:
    """Keeps the running statistics of every layer that is called from now on, until they are put back.

    So a second pass over a batch, at other weights, leaves no trace in a BatchNorm. The optimizer does
    not know the model: layers are noticed as they are called, by the names of their buffers.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._hook = register_module_forward_pre_hook(self._keep)

    def restore(self) -> None:
        """Put back what was kept, and notice no more layers."""
        self._hook.remove()
        with torch.no_grad():
            for buffer, before in self._kept.values():
                buffer.copy_(before)
        self._kept.clear()

    def _keep(self, module: nn.Module, _: Any) -> None:
        if module._buffers and module.training:
            for name in REMEMBERED:
                buffer = module._buffers.get(name)
                if buffer is not None and id(buffer) not in self._kept:
                    self._kept[id(buffer)] = (buffer, buffer.clone())

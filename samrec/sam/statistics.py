"""What normalization layers remember of the batches they have seen."""

import warnings
from collections.abc import Iterable
from typing import Any
from weakref import WeakMethod, WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

REMEMBERED = ("running_mean", "running_var", "num_batches_tracked")


class RunningStatistics:
    """Undoes what a pass changes in the running statistics of BatchNorm and its kin.

    The optimizer does not know the model, so a hook finds these layers among the modules that a pass calls.
    The hook is set in the first pass, and in each pass in which other parameters have a gradient than in the
    pass before.
    """

    def __init__(self) -> None:
        self._layers: WeakSet[nn.Module] = WeakSet()
        self._looked_in: set[int] = set()
        self._looked_for: list[int] = []
        self._looking: tuple[Any, Any] | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __reduce__(self) -> Any:
        return RunningStatistics, ()  # a copy finds the layers of its own model

    def hold(self, parameters: Iterable[Tensor]) -> None:
        """Keep the statistics as they are, until `restore`; `parameters` are those that have a gradient."""
        used = [id(p) for p in parameters]
        if used != self._looked_for:
            self._looked_for = used
            warnings.filterwarnings("ignore", "Using `torch.compile")  # which says that it sees the hook
            look = WeakMethod(self._look)  # the hook must not outlive an optimizer that is left above w
            hook = register_module_forward_pre_hook(lambda *called: (found := look()) and found(*called))
            self._looking = hook, warnings.filters[0]
            finalize(self, hook.remove)
        for layer in self._layers:
            self._keep(layer)

    def restore(self) -> None:
        """Put back what was kept; without `hold` before, nothing."""
        if self._looking is not None:
            hook, silence = self._looking
            hook.remove()
            if silence in warnings.filters:
                warnings.filters.remove(silence)  # type: ignore[attr-defined] # a list
            self._looking = None
            self._looked_in.clear()
        if self._kept:
            with torch.no_grad():
                for buffer, before in self._kept.values():
                    buffer.copy_(before)
            self._kept.clear()

    def _look(self, called: nn.Module, _: Any) -> None:
        """Find the layers in a module that is called, in what of it is not called or compiled, too."""
        if id(called) in self._looked_in:
            return
        for module in called.modules():
            self._looked_in.add(id(module))
            if module not in self._layers and any(name in module._buffers for name in REMEMBERED):
                self._layers.add(module)
                self._keep(module)

    def _keep(self, layer: nn.Module) -> None:
        for name in REMEMBERED:
            buffer = layer._buffers.get(name)
            if buffer is not None and id(buffer) not in self._kept:
                self._kept[id(buffer)] = (buffer, buffer.clone())

"""Settings of torch that change what it computes, set for the whole process while something is measured."""

from collections.abc import Callable
from contextlib import ContextDecorator, ExitStack
from threading import Lock, local
from typing import Any, cast

import torch
from torch import backends


class Setting(ContextDecorator):
    """A context, or a decorator, that sets something for the whole process.

    The first thread to enter sets it, and the last to leave undoes it. In each thread, the caller's
    `torch.autocast` is off meanwhile: it would round what is measured, and in other threads it would not.
    Where a model asks for it by itself, it is part of the model.

    Args:
        change: sets it, and returns what undoes that.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change, self._lock, self._users = change, Lock(), 0
        self._here = local()  # what each thread has to leave

    def set(self) -> None:
        """Set it for the process; any thread may `unset` it."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._undo = self._change()

    def unset(self) -> None:
        """Undo `set`, if nobody else needs it."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo()

    def __enter__(self) -> None:
        self.set()
        self._here.plain = [*getattr(self._here, "plain", ()), _without_autocast()]

    def __exit__(self, *_: Any) -> None:
        self._here.plain.pop().close()
        self.unset()


def _without_autocast() -> ExitStack:
    plain, accelerator = ExitStack(), torch.accelerator.current_accelerator()
    for kind in ("cpu", *([accelerator.type] if accelerator else [])):
        if torch.is_autocast_enabled(kind):
            plain.enter_context(torch.autocast(kind, enabled=False))
    return plain


def _multiply_as_float32() -> Callable[[], None]:
    cudnn, cpu = cast(Any, backends.cudnn), cast(Any, backends.mkldnn)  # typed as the modules they replace
    kinds = [backends.cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]
    before = [kind.fp32_precision for kind in kinds]
    try:
        legacy = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    except RuntimeError:  # only torch's newer interface was used, and the older one cannot be read
        legacy = None
    if legacy:  # both interfaces must say the same
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = False
    for kind in kinds:
        kind.fp32_precision = "ieee"

    def undo() -> None:
        if legacy:
            torch.set_float32_matmul_precision(legacy[0])
            backends.cudnn.allow_tf32 = legacy[1]
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision

    return undo


def _leave_cudnn() -> Callable[[], None]:
    enabled, backends.cudnn.enabled = backends.cudnn.enabled, False

    def undo() -> None:
        backends.cudnn.enabled = enabled

    return undo


full_precision = Setting(_multiply_as_float32)
"""Multiply float32 as float32: not in TF32 on a GPU, nor in bfloat16 on a CPU that offers it.

Both keep 10 bits of a factor or fewer, so that no residual would fall below about 1e-3. Torch takes TF32 for
convolutions by default, and for all products after `torch.set_float32_matmul_precision("high")`.
"""

without_cudnn = Setting(_leave_cudnn)
"""Take torch's own recurrent layers: those of cuDNN have no gradient in eval mode, and no second one."""

"""Watching the operations of torch, one by one."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


def watching(saw: Callable[[Any, Any, Any], None]) -> AbstractContextManager[Any]:
    """Return a context in which each operation is followed by `saw(operation, inputs, outputs)`."""

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return "torch._dynamo" in sys.modules  # else torch imports its compiler, 2 s, to ward it off

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            saw(func, (args, kwargs), found)
            return found

    return Watch()  # type: ignore[no-untyped-call] # torch's

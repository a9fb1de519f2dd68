"""Tables of which a loss reads some rows only: which rows, and how to leave the others out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Recorder(TorchFunctionMode):
    """Records which rows of some tables are looked up in the block, and which tables are used otherwise.

    Attributes:
        rows: by name, whether each row was looked up. Bool, shape (rows,).
        whole: names of the tables that were passed to anything but `F.embedding`.
    """

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {id(table): name for name, table in tables.items()}
        self.rows = {n: torch.zeros(len(t), dtype=torch.bool, device=t.device) for n, t in tables.items()}
        self.whole: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        looked_up = func is F.embedding and len(args) > 1 and self._names.get(id(args[1]))
        if looked_up:
            self.rows[looked_up][args[0]] = True
        for tensor in () if looked_up else _tensors([*args, *kwargs.values()]):
            if id(tensor) in self._names:
                self.whole.add(self._names[id(tensor)])
        return func(*args, **kwargs)


def rows_read(
    evaluate: Callable[[Any], Any], batches: Iterable[Any], tables: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return which rows are looked up for some batches, of the tables that nothing else is done with."""
    with Recorder(tables) as seen:
        for batch in batches:
            evaluate(batch)
    return {name: rows for name, rows in seen.rows.items() if name not in seen.whole}


class Renumbering(TorchFunctionMode):
    """Lets `F.embedding` find rows by their old numbers in tables that hold some rows only.

    Args:
        numbers: pairs of such a table and the new number of each old row.
    """

    def __init__(self, numbers: Iterable[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._numbers = {id(table): new for table, new in numbers}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.embedding and len(args) > 1 and id(args[1]) in self._numbers:
            args = (self._numbers[id(args[1])][args[0]], *args[1:])
        return func(*args, **(kwargs or {}))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)

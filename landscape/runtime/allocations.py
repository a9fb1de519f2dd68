"""How many bytes of tensors are alive at once: a count of storages, which is the same in every run."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.runtime.watching import watching


class Allocations:
    """Counts the bytes of the storages that operations return, until they are freed.

    What an operation takes inside and gives back before it returns is not seen, nor are NumPy's arrays.

    Attributes:
        alive: bytes that are held now.
        peak: the most that was held at once.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Begin to count.

        Args:
            known: tensors that are not counted, such as a model's.
        """
        self.alive = self.peak = 0
        self._seen = {t.untyped_storage()._cdata for t in known}
        self._watch = watching(self._saw)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._watch.__exit__(*raised)

    def _saw(self, _operation: Any, inputs: Any, outputs: Any) -> None:
        before = {storage._cdata for storage in storages(inputs)}
        for storage in storages(outputs):
            if storage._cdata not in before | self._seen:
                self._seen.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def storages(found: Any) -> Iterator[torch.UntypedStorage]:
    """Yield where the dense tensors among some values lie."""
    for tensor in tree_leaves(found):
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
            yield tensor.untyped_storage()


def peak(compute: Callable[[], Any], known: Iterable[Tensor] = ()) -> tuple[Any, int]:
    """Return what `compute` returns, and the most bytes of new tensors that were alive at once."""
    with Allocations(known) as counted:
        found = compute()
    return found, counted.peak

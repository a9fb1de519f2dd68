"""Dataclasses of tensors, which are copied, padded and stacked as a whole."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tensors:
    """Base of frozen dataclasses whose fields are tensors, others of this kind, or None."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order that `filled` takes."""
        found: list[Tensor] = []
        for value in vars(self).values():
            if isinstance(value, Tensors):
                found += value.tensors()
            elif value is not None:
                found.append(value)
        return found

    def filled(self, tensors: Sequence[Tensor]) -> Self:
        """Return one of the same form that holds these tensors: `batch.filled(batch.tensors())`."""
        return self._filled(iter(tensors))

    def changed(self, kind: type[T], change: Callable[[T], T]) -> Self:
        """Return this with each field of a kind changed."""
        return replace(
            self, **{k: change(value) for k, value in vars(self).items() if isinstance(value, kind)}
        )

    def _filled(self, tensors: Iterator[Tensor]) -> Self:
        new: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensors):
                new[name] = value._filled(tensors)
            elif value is not None:
                new[name] = next(tensors)
        return replace(self, **new)

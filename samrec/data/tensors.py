"""Dataclasses of tensors, which are copied, padded and stacked as a whole."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

from torch import Tensor

T = TypeVar("T")


class Tensors:
    """Base of frozen dataclasses whose fields are tensors, others of this kind, or None."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order that `filled` takes."""
        found: list[Tensor] = []
        for value in _values(self):
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
        found = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        new = {name: change(value) for name, value in found.items() if isinstance(value, kind)}
        return replace(self, **new)  # type: ignore[type-var]

    def _filled(self, tensors: Iterator[Tensor]) -> Self:
        new: dict[str, Any] = {}
        for field, value in zip(fields(self), _values(self), strict=True):  # type: ignore[arg-type]
            if isinstance(value, Tensors):
                new[field.name] = value._filled(tensors)
            elif value is not None:
                new[field.name] = next(tensors)
        return replace(self, **new)  # type: ignore[type-var]


def _values(of: Any) -> list[Any]:
    return [getattr(of, field.name) for field in fields(of)]

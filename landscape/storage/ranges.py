"""What the numbers of a result may be, so that tables, reports and pictures can be made of any file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import numpy as np
from pydantic import AfterValidator

from landscape.errors import InputError
from landscape.runtime.arguments import LARGEST


@dataclass(frozen=True)
class Range:
    """What the numbers of a field may be, as an annotation of it.

    Attributes:
        least, most: its ends.
        finite: whether NaN and the infinities are refused. A loss may be either of them.
        infinite: whether the infinities are allowed. NaN alone is a number that is not known.
    """

    least: float = -LARGEST
    most: float = LARGEST
    finite: bool = False
    infinite: bool = True

    def check(self, name: str, value: Any) -> None:
        """Look at all numbers of an array, a number, or whatever JSON holds.

        Raises:
            InputError: one of them is out of the range.
        """
        for numbers in _numbers(value):
            if (self.finite and not np.isfinite(numbers).all()) or (
                not self.infinite and np.isinf(numbers).any()
            ):
                raise InputError(f"{name} holds a number that is not finite")
            known = numbers[np.isfinite(numbers)]
            if known.size and not self.least <= float(known.min()) <= float(known.max()) <= self.most:
                raise InputError(f"{name} holds a number that is not from {self.least:g} to {self.most:g}")


FINITE = Range(finite=True)
NOT_INFINITE = Range(infinite=False)
NOT_NEGATIVE = Range(0)  # a norm, an error: NaN where it is not known
POSITIVE = Range(1 / LARGEST, finite=True)


def check_ranges(result: Any) -> None:
    """Make sure that each field of a dataclass is in its range, nested ones and plain JSON included.

    Raises:
        InputError: one is not, named.
    """
    hints = get_type_hints(type(result), include_extras=True)
    for field in fields(result):
        given = getattr(hints[field.name], "__metadata__", ())
        within = next((one for one in given if isinstance(one, Range)), Range())
        within.check(field.name, getattr(result, field.name))


def _numbers(value: Any) -> Iterator[Any]:
    """Yield the numbers in a value, as arrays of floats."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield np.array([float(value) if isinstance(value, float) or abs(value) < 2**1000 else 2 * LARGEST])
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        check_ranges(value)


def _within(value: float) -> float:
    Range().check("it", value)
    return value


Measured = Annotated[float, AfterValidator(_within)]
"""A number of JSON that may be drawn."""

"""What a public function's arguments may be: declared in its signature, checks_arguments before it begins."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce, wraps
from numbers import Integral, Real
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

from landscape.errors import InputError, shortened

F = TypeVar("F", bound=Callable[..., Any])
MOST = 10**6
"""Draws, steps, products and pieces that may be asked for: more would not end, or not fit the memory."""
LARGEST = 1e100
"""The largest size of any number, infinity apart: its square and its cube are numbers still."""


class Rule(Protocol):
    """What an argument may be; `str` gives the words after "must be"."""

    def allows(self, value: Any) -> bool:
        """Tell whether the argument may be this."""


@dataclass(frozen=True)
class Whole:
    """A whole number, both ends included."""

    least: int
    most: int = MOST

    def allows(self, value: Any) -> bool:
        return (
            isinstance(value, Integral)
            and not isinstance(value, bool)
            and self.least <= int(value) <= self.most
        )

    def __str__(self) -> str:
        return f"a whole number from {self.least:,} to {self.most:,}"


@dataclass(frozen=True)
class Between:
    """A real number: both ends excluded, and not larger than results may hold."""

    low: float = -math.inf
    high: float = math.inf

    def allows(self, value: Any) -> bool:
        real = isinstance(value, Real) and not isinstance(value, bool)
        return real and self.low < value < self.high and (value == 0 or 1 / LARGEST <= abs(value) <= LARGEST)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"between {self.low:g} and {self.high:g}"
        if self.low == 0:
            return f"positive, from {1 / LARGEST:g} to {LARGEST:g}"
        return f"a number from {-LARGEST:g} to {LARGEST:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        return any(isinstance(value, type(each)) and value == each for each in self.values)

    def __str__(self) -> str:
        first, *others = map(str, self.values)
        return f"one of {first}, {', '.join(others)}" if others else first


@dataclass(frozen=True)
class Each:
    """A sequence of such, not empty, or one of a certain length."""

    rules: tuple[Rule, ...]
    length: int | None = None

    def allows(self, value: Any) -> bool:
        return (
            (isinstance(value, Sequence) or getattr(value, "ndim", 0) == 1)
            and not isinstance(value, str | bytes)
            and (len(value) == self.length if self.length else len(value) > 0)
            and all(any(rule.allows(each) for rule in self.rules) for each in value)
        )

    def __str__(self) -> str:
        return f"{self.length or 'one or more'} values, each {' or '.join(map(str, self.rules))}"


@dataclass(frozen=True)
class Texts:
    """Several strings, which a single one is not: its letters would be taken."""

    def allows(self, value: Any) -> bool:
        several = isinstance(value, Sequence | Set) and not isinstance(value, str | bytes)
        return several and all(isinstance(each, str) for each in value)

    def __str__(self) -> str:
        return 'a list of strings, such as ["a", "b"]'


@dataclass(frozen=True)
class Place:
    """A path, as text too."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, str | Path) and str(value) != ""

    def __str__(self) -> str:
        return "a path"


Count = Annotated[int, Whole(1)]
Several = Annotated[int, Whole(2)]  # of which there is a spread
Dimension = Annotated[int, Whole(1, 2)]
CountOrZero = Annotated[int, Whole(0)]
Seed = Annotated[int, Whole(0, 2**63 - 1)]
Size = Annotated[int, Whole(1, 2**63 - 1)]
Number = Annotated[float, Between()]
Positive = Annotated[float, Between(0)]
Share = Annotated[float, Between(0, 1)]
Names = Annotated[Sequence[str], Texts()]


def checks_arguments(function: F) -> F:
    """Let a function, or the constructor of a class, refuse arguments that its signature does not allow.

    What counts is `Annotated[…, Rule]`, `Literal`, `bool` and `Path`, and unions, sequences and pairs of
    them. Other annotations say nothing here. Numbers of NumPy become Python's own, and a text that is a path
    becomes a `Path`. Help and notebooks show plain types; `inspect.unwrap` leads to the rules.

    Raises:
        InputError: by the function that is returned; it names the argument.
    """
    if isinstance(function, type):
        function.__init__ = checks_arguments(function.__init__)  # type: ignore[misc] # which dataclasses make
        return function
    signature = inspect.signature(function)
    declared = {
        name: (rules, NoneType in get_args(parameter.annotation))
        for name, parameter in signature.parameters.items()
        if (rules := _rules(parameter.annotation))
    }

    @wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name in (name for name in declared if name in given.arguments):
            (rules, optional), value = declared[name], given.arguments[name]
            if not (value is None and optional) and not any(rule.allows(value) for rule in rules):
                raise InputError(f"{name} is {said(value)}; it must be {' or '.join(map(str, rules))}")
            given.arguments[name] = Path(value) if Place() in rules and value else _plain(value)
        return function(*given.args, **given.kwargs)

    plain = [p.replace(annotation=_shown(p.annotation)) for p in signature.parameters.values()]
    vars(checking)["__signature__"] = signature.replace(parameters=plain)
    return checking  # type: ignore[return-value] # its signature is the function's


def _shown(annotation: Any) -> Any:
    """Return a type without its rules."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return parts[0]
    if kind in (Union, UnionType):
        return reduce(or_, map(_shown, parts))
    return kind[tuple(map(_shown, parts))] if kind in (Sequence, tuple) else annotation


def _rules(annotation: Any) -> tuple[Rule, ...]:
    """Return what an annotation allows besides None; nothing if a part of it says nothing."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if annotation is bool or kind is Literal or annotation is Path:
        return (Place() if annotation is Path else Choice(parts or (True, False)),)
    if kind is Annotated:
        return tuple(part for part in parts[1:] if hasattr(part, "allows"))
    inner = [_rules(part) for part in parts if part is not NoneType]
    if not inner or not all(inner):
        return ()
    if kind in (Union, UnionType):
        return tuple(rule for rules in inner for rule in rules)
    if kind is Sequence or kind is tuple:
        return (Each(inner[0], len(parts) if kind is tuple else None),)
    return ()


def _plain(value: Any) -> Any:
    """Return Python's own number for one of NumPy, which JSON does not know."""
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return (tuple if isinstance(value, tuple) else list)(map(_plain, value))


def said(value: Any) -> str:
    """Return the words for a value that is refused: never long, and never an error."""
    if isinstance(value, Integral) and abs(int(value)) >= 10**30:
        return "an integer of more than 30 digits"
    if isinstance(value, Real) and not isinstance(value, bool):
        written = f"{value:g}" if not isinstance(value, Integral) else str(value)
        return f"{written}.0" if isinstance(value, float) and written.lstrip("-").isdigit() else written
    return shortened(repr(value), 60) if isinstance(value, str | Sequence | Mapping) else type(value).__name__

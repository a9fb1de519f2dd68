"""Public names that are imported where they are first used."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attributes(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562), for names found in the module `modules` says.

    `landscape --help` must not wait for torch; completion must know the names before they are used.
    """

    def find(name: str) -> Any:
        if name not in modules:
            unknown = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(unknown, name=name, obj=sys.modules[package])  # for "Did you mean"
        return getattr(import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return find, names

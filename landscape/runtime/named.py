"""A function that the user names: by its module, or by its file."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

from landscape.errors import InputError

FORM = "package.module:function"
SEPARATORS = frozenset("/\\")


def function_of(named: str, option: str) -> Callable[..., Any]:
    """Import the function that `package.module:function` or `folder/file.py:function` names.

    Modules are looked for in the current folder first, and those that a file imports also beside it.

    Args:
        named: its name, from the user: importing runs code, so that nothing else may choose it.
        option: the option that names it, for messages.

    Raises:
        InputError: it is not such a name; there is no such module, file or function; or a file is called like
            another module.
    """
    module, colon, name = named.rpartition(":")
    if not colon or set(name) & SEPARATORS:  # the colon of a drive
        module, name = named, ""
    by_file = module.endswith(".py")
    if not module or not name or (not by_file and (module.startswith(".") or set(module) & SEPARATORS)):
        stem = PureWindowsPath(module).stem  # which knows both separators
        meant = f"{module if by_file else stem.lstrip('.') or 'mytask'}:{name or 'objective'}"
        where = "" if by_file else ", in the folder of the file"
        raise InputError(f"{option} takes {FORM}, or file.py:function, not {named!r}; write {meant}{where}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as for `python -m landscape`; the script `landscape` stands elsewhere
    try:
        imported = _of_file(Path(module).resolve()) if by_file else import_module(module)
    except ImportError as error:
        raise InputError(f"no task {named!r} ({error}); expected {FORM}") from None
    if not hasattr(imported, name):
        raise InputError(f"no task {named!r} ({module} has no attribute {name!r}); expected {FORM}")
    if not callable(found := getattr(imported, name)):
        raise InputError(f"{named} is not a function or another callable; expected {FORM}")
    return found  # type: ignore[no-any-return] # callable


def _of_file(file: Path) -> ModuleType:
    """Import a file as Python runs a script, whose folder is the first that modules are looked for in."""
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    name = file.stem
    known = sys.modules.get(name)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == file:
        return known
    spec = spec_from_file_location(name, file)
    if known is not None or spec is None or spec.loader is None:
        raise ImportError(f"another module is called {name}; rename the file")
    if (folder := str(file.parent)) not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = made = module_from_spec(spec)
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        raise
    return made

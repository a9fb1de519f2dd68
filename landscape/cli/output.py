"""What commands print: one JSON object, or a table."""

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from landscape.errors import printable
from landscape.runtime.ranks import ranks
from landscape.runtime.table import Table

if TYPE_CHECKING:
    from landscape.storage.results import Result


PLAIN_WORDS = {
    "λ": "lambda",
    "θ": "theta",
    "ρ": "rho",
    "σ": "sigma",
    "∇": "grad ",
    "‖": "||",
    "±": "+-",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "−": "-",
    "–": "-",
    "…": "...",
}

_kept: ContextVar[TextIO | None] = ContextVar("_kept", default=None)
"""Standard output, where it is kept for one JSON object."""


def write_plainly() -> None:
    """Let the standard streams write what their encoding lacks (ASCII, Latin-1) in other words, or as `?`."""

    def other_words(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join(PLAIN_WORDS.get(c, "?") for c in lacking), error.end

    codecs.register_error("plain", other_words)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it is closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # until the end
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="plain")


@contextmanager
def json_alone() -> Iterator[None]:
    """Keep standard output for `show`: what a task or a model prints in the block goes to standard error."""
    kept = _kept.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.reset(kept)


def show(as_json: bool, values: Mapping[str, Any], *tables: Table) -> None:
    """Print `values` as JSON, or the tables; only the first rank prints."""
    if not ranks().first:
        return
    if as_json:
        written = json.dumps(_plain(values), ensure_ascii=False)
        print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in written), file=_kept.get())
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        for part in table.rich(console.width):
            console.print(part)


def complain(message: str) -> None:
    """Print one line on standard error, of several ranks from the first of them that has to."""
    if ranks().speaks():
        with suppress(OSError):  # a full disk, a closed terminal: the exit code still says it
            print(f"landscape: {printable(message)}", file=sys.stderr, flush=True)


def values(result: "Result") -> dict[str, Any]:
    """Return the fields of a result except arrays, settings and provenance."""
    from numpy import ndarray

    left_out = ("settings", "provenance")
    return {
        key: value
        for key, value in vars(result).items()
        if key not in left_out and not isinstance(value, ndarray)
    }


def named(files: Iterable[Path]) -> dict[str, list[str]]:
    """Return what names the files that a command has written in its JSON; nothing where there is none."""
    return {"files": found} if (found := list(map(str, files))) else {}


def written(files: Iterable[Path]) -> list[Table]:
    """Return what names the files that a command has written, a sentence for each folder."""
    folders: dict[Path, list[str]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file.name)
    return [Table(f"Written to {folder}: {', '.join(names)}", [], []) for folder, names in folders.items()]


def _plain(value: Any) -> Any:
    """Return what JSON holds: NaN becomes null, and a dataclass an object of its fields."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""metrics.jsonl: a dictionary a line, of every epoch, and of the test at the end."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from landscape.errors import InputError
from landscape.storage.files import replacing
from landscape.training_log import checked_line


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read all lines; an empty list if there is no file. A line that a kill cut short is left out.

    Raises:
        InputError: a line is JSON, but none that training writes.
    """
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        with suppress(ValueError, RecursionError):
            lines.append((number, json.loads(text)))
    return [_checked(path, number, line) for number, line in lines]


def _checked(path: Path, number: int, line: Any) -> dict[str, Any]:
    try:
        return checked_line(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}, line {number} is not a training-log entry: {where} {first['msg']}"
        ) from None


def truncate(path: Path, epoch: int) -> None:
    """Keep the lines of epochs up to `epoch`."""
    kept = [line for line in read_log(path) if line["epoch"] <= epoch and "test" not in line]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")

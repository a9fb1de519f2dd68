"""metrics.jsonl: a dictionary a line, of every epoch, and of the test at the end."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from landscape.errors import InputError
from landscape.files import replacing


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
    """Read all lines; none if there is no file. A last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text("utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def truncate(path: Path, epoch: int) -> None:
    """Keep the lines of epochs up to `epoch`."""
    kept = [line for line in read_log(path) if line["epoch"] <= epoch and "test" not in line]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")

"""metrics.jsonl: one dictionary per line, for every epoch, and for the test at the end."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from landscape.errors import InputError
from landscape.storage.files import existing, plain_file, write_text
from landscape.storage.ranges import Measured
from samrec.choices import VALIDATED

MOST = 2**28  # bytes
WRITTEN = ("epochs", "pretraining", "metrics.jsonl", "monitor.jsonl", "tensorboard", "wandb")
"""What training changes in place in a run's folder; the other files are replaced whole."""


def _validated(metrics: dict[str, float | None]) -> dict[str, float | None]:
    if VALIDATED not in metrics:
        raise ValueError(f"no {VALIDATED}")
    return metrics


class _Line(BaseModel):
    """What a line must hold, to be drawn and to be counted on."""

    model_config = ConfigDict(strict=True)

    epoch: Annotated[int, Field(ge=0, lt=2**63)]
    seconds: Measured = 0.0
    loss: Measured | None = None  # not a number where no step saw the loss at w, which JSON has as null
    losses: dict[str, Measured | None] = {}
    valid: Annotated[dict[str, Measured | None], AfterValidator(_validated)] = {}
    test: dict[str, Measured | None] = {}


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_written(line))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read all lines; none if there is no file. A line that a kill cut short is not JSON, and is left out.

    Raises:
        InputError: it is not a file of at most 256 MiB, or a line is JSON, but training does not write such a
            line.
    """
    if not path.exists() or not (path.is_file() and path.stat().st_size):
        plain_file(path, "training log")
        return []
    lines = []
    content = existing(path, "training log", MOST).read_text("utf-8", errors="replace")
    for number, text in enumerate(content.splitlines(), start=1):
        with suppress(ValueError, RecursionError):
            lines.append((number, json.loads(text)))
    return [_checked(path, number, line) for number, line in lines]


def _checked(path: Path, number: int, line: Any) -> dict[str, Any]:
    try:
        _Line.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}, line {number} is not a training-log entry: {where} {first['msg']}"
        ) from None
    found: dict[str, Any] = line
    return found


def truncate(path: Path, epoch: int) -> None:
    """Keep the lines of epochs up to `epoch`."""
    kept = [line for line in read_log(path) if line["epoch"] <= epoch and "test" not in line]
    write_text(path, "".join(map(_written, kept)))


def _written(line: dict[str, Any]) -> str:
    """Write a line as JSON, which has no number that is not one: null stands for it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(line)) + "\n"

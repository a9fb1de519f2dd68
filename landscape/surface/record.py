"""Finished points on disk, so that an interrupted surface goes on where it stood."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from landscape.directions import Direction
from landscape.errors import InputError
from landscape.files import replacing
from landscape.objective import Objective
from landscape.surface.ways import Step

ELSEWHERE = ("checkpoint", "data")
"""Where a file lay says nothing of what was measured; its hash, which is beside it, does."""


def fingerprint(objective: Objective, directions: Sequence[Direction], center: float) -> str:
    """Return a hash of what decides the loss at a step: weights, directions, data, L(θ) to the last bit."""
    told = {key: value for key, value in objective.provenance.items() if key not in ELSEWHERE}
    digest = hashlib.sha256(json.dumps([told, objective.weight, center.hex()], sort_keys=True).encode())
    for vector in (objective.theta, *(d.vector for d in directions)):
        digest.update(vector.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


class Record:
    """The points of one fingerprint, in a file of JSON lines where there is one, else in memory alone.

    Nothing is written before the first point. A file of another fingerprint is then replaced, a line that
    a kill has cut short is dropped.

    Args:
        file: where, or None.
        fingerprint: of what is measured.
        size: how many entries a step has.

    Attributes:
        known: the loss by step.
        way: how points were evaluated, by name; empty if nobody has said.
    """

    def __init__(self, file: Path | None, fingerprint: str, size: int) -> None:
        self.file = file
        self.known: dict[Step, float] = {}
        self.way = ""
        self._begin: list[Any] = [{"fingerprint": fingerprint}]
        if file and file.is_file() and (lines := _lines(file)) and lines[0] == self._begin[0]:
            self._begin = []
            for line in lines[1:]:
                if isinstance(line, dict):
                    self.way = str(line.get("way", ""))
                elif isinstance(line, list) and len(line) == size + 1 and set(map(type, line)) == {float}:
                    self.known[tuple(line[:-1])] = line[-1]

    def point(self, step: Step, loss: float) -> None:
        """Keep a finished point."""
        self.known[step] = loss
        self._write([*step, loss])

    def chosen(self, way: str) -> None:
        """Keep how points are evaluated, so that a run that goes on evaluates them so too."""
        self.way = way
        self._write({"way": way})

    def _write(self, line: Any) -> None:
        if not self.file:
            return
        try:
            if self._begin:
                with replacing(self.file):  # empties it, or says in one line why it cannot be written
                    pass
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(each) + "\n" for each in (*self._begin, line))
        except OSError as error:
            raise InputError(f"cannot write {self.file}: {error.strerror}") from error
        self._begin = []


def _lines(file: Path) -> list[Any]:
    """Read the lines that are whole, and cut off what follows them."""
    found: list[Any] = []
    whole = 0
    content = file.read_bytes()
    for line in content.splitlines(keepends=True):
        with suppress(ValueError, RecursionError):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
                whole += len(line)
                continue
        break
    if found and whole < len(content):
        with file.open("r+b") as opened:
            opened.truncate(whole)
    return found

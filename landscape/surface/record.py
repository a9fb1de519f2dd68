"""Finished points on disk, so that an interrupted surface goes on where it stood."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from landscape.errors import InputError
from landscape.objective.objective import Objective
from landscape.runtime.ranks import ALONE, Ranks
from landscape.storage.files import replacing
from landscape.surface.directions import Direction
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
    a kill has cut short is dropped. Each rank writes a file of its own, since appends from several machines
    to one file of a network disk interleave; whoever comes later, alone or not, reads them all.

    Args:
        file: where, or None; of the rank 2, NAME.rank2.jsonl beside NAME.jsonl.
        fingerprint: of what is measured.
        size: how many entries a step has.
        ranks: who evaluates points.

    Raises:
        InputError: the ranks do not measure the same.

    Attributes:
        known: the loss by step.
        way: how points were evaluated, by name; empty if nobody has said.
    """

    def __init__(self, file: Path | None, fingerprint: str, size: int, ranks: Ranks = ALONE) -> None:
        self.file = _of_rank(file, ranks.rank) if file else None
        self.known: dict[Step, float] = {}
        self.way = ""
        self._begin: list[Any] = [{"fingerprint": fingerprint}]
        for path in _of_all_ranks(file) if file else ():
            lines = _lines(path)
            if lines and lines[0] == {"fingerprint": fingerprint}:
                self._take_over(lines[1:], size, own=path == self.file)
        found = ranks.gathered((fingerprint, self.known))  # a network disk may not show all files to all yet
        if any(other != fingerprint for other, _ in found):
            raise InputError("the ranks do not measure the same; are their checkpoints, data and CPUs alike?")
        self.add(known for _, known in found)

    def _take_over(self, lines: Sequence[Any], size: int, own: bool) -> None:
        """Take over a file's points, and of the own file, which goes on, how points are evaluated."""
        if own:
            self._begin = []
        for line in lines:
            if isinstance(line, dict) and own:
                self.way = str(line.get("way", ""))
            elif isinstance(line, list) and len(line) == size + 1 and set(map(type, line)) == {float}:
                self.known[tuple(line[:-1])] = line[-1]

    def add(self, others: Iterable[Mapping[Step, float]]) -> None:
        """Take over points that other ranks keep."""
        for known in others:
            self.known.update(known)

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


def _of_rank(file: Path, rank: int) -> Path:
    return file.with_name(f"{file.stem}.rank{rank}{file.suffix}") if rank else file


def _of_all_ranks(file: Path) -> list[Path]:
    others = file.parent.glob(f"{escape(file.stem)}.rank*{file.suffix}")
    return [path for path in (*sorted(others), file) if path.is_file()]


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

"""Finished points on disk, so that an interrupted surface goes on where it stood."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import torch

from landscape.errors import InputError
from landscape.objective.identity import UNKNOWN
from landscape.objective.objective import Objective
from landscape.objective.shards import local
from landscape.runtime.ranks import ALONE, Ranks
from landscape.storage.files import existing, own, replacing
from landscape.surface.directions import Direction
from landscape.surface.strategies import Step

ELSEWHERE = ("checkpoint", "data", "derivatives")
"""Keys that do not decide the loss: where a file was, whose hash is in another key, and what was checked."""

MOST = 2**30  # bytes


def fingerprint(objective: Objective, directions: Sequence[Direction], center: float) -> str:
    """Return a hash of what decides the loss at a step: weights, directions, data, and the bits of L(θ)."""
    known = {key: value for key, value in objective.provenance.items() if key not in ELSEWHERE}
    told = {key: value for key, value in known.items() if not str(value).startswith(UNKNOWN)}
    digest = hashlib.sha256(json.dumps([told, objective.weight, center.hex()], sort_keys=True).encode())
    for vector in (objective.theta, *(d.vector for d in directions)):
        digest.update(local(vector).detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class PointLog:
    """The points of one fingerprint, in a file of JSON lines if one is given, otherwise in memory only.

    Nothing is written before the first point. Then a file of another fingerprint is replaced, and a line that
    was cut short by a kill is dropped. Each rank writes its own file, since appends from several machines to
    one file on a network disk interleave; later runs, of one process or several, read all of them.

    Args:
        file: NAME.jsonl, or None; rank 2 writes NAME.rank2.jsonl next to it.
        fingerprint: a hash of what is measured.
        size: number of entries of a step.
        ranks: those that evaluate points.

    Raises:
        InputError: the ranks do not measure the same.

    Attributes:
        known: the loss by step.
        strategy: how points were evaluated, as `str(Strategy)`; empty if that was not noted.
    """

    def __init__(self, file: Path | None, fingerprint: str, size: int, ranks: Ranks = ALONE) -> None:
        self.file = _of_rank(file, ranks.rank) if file else None
        self.known: dict[Step, float] = {}
        self.strategy = ""
        self._replace = True
        self._ahead: list[Any] = [{"fingerprint": fingerprint}]  # written with the next point
        for path in _of_all_ranks(file) if file else ():
            lines, length = _lines(path)
            if lines and lines[0] == {"fingerprint": fingerprint}:
                self._read(lines[1:], size, own=path == self.file)
                if path == self.file and length < path.stat().st_size:
                    os.truncate(path, length)
        found = ranks.gathered((fingerprint, self.known))  # a network disk may not show all files to all yet
        if any(other != fingerprint for other, _ in found):
            raise InputError(
                "the ranks do not measure the same; check that their checkpoints, data and CPUs agree"
            )
        self.take_over(known for _, known in found)

    def _read(self, lines: Sequence[Any], size: int, own: bool) -> None:
        """Take over a file's points and, from this rank's own file, the strategy too."""
        if own:
            self._replace, self._ahead = False, []
        for line in lines:
            if isinstance(line, dict) and own:
                self.strategy = str(line.get("strategy", ""))
            elif isinstance(line, list) and len(line) == size + 1 and set(map(type, line)) == {float}:
                self.known[tuple(line[:-1])] = line[-1]

    def take_over(self, others: Iterable[Mapping[Step, float]]) -> None:
        """Take over points that other ranks have stored."""
        for known in others:
            self.known.update(known)

    def add(self, step: Step, loss: float) -> None:
        """Store a finished point."""
        self.known[step] = loss
        self._ahead.append([*step, loss])
        if self.file:
            self._write(self.file)

    def choose(self, strategy: str) -> None:
        """Note how points are evaluated, so that a run that goes on uses the same strategy."""
        self.strategy = strategy
        self._ahead.append({"strategy": strategy})

    def _write(self, path: Path) -> None:
        try:
            if self._replace:
                with replacing(path):  # empties it, or says in one line why it cannot be written
                    pass
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in self._ahead)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        self._replace, self._ahead = False, []


def _of_rank(file: Path, rank: int) -> Path:
    return file.with_name(f"{file.stem}.rank{rank}{file.suffix}") if rank else file


def _of_all_ranks(file: Path) -> list[Path]:
    others = file.parent.glob(f"{escape(file.stem)}.rank*{file.suffix}")
    return [path for path in (*sorted(others), file) if path.is_file()]


def _lines(file: Path) -> tuple[list[Any], int]:
    """Return the complete lines, and how many bytes they are.

    Raises:
        InputError: the file is a link, or larger than any that is written.
    """
    found: list[Any] = []
    whole = 0
    own(file.parent, file.name)
    if file.stat().st_size:
        existing(file, "file of points", MOST)
    for line in file.read_bytes().splitlines(keepends=True):
        with suppress(ValueError, RecursionError):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
                whole += len(line)
                continue
        break
    return found, whole

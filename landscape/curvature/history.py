"""What a monitor measured along a training: a record per measurement, as lines of JSON and as arrays."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from landscape.errors import InputError
from landscape.objective.identity import DIFFERENT
from landscape.runtime.ranks import is_writer
from landscape.storage.display import Brief, Drawn
from landscape.storage.files import existing, write_text
from landscape.storage.ranges import check_ranges
from landscape.storage.results import Array, Result, agree

VERSION = 1
MONITOR = "monitor.jsonl"
"""The name under which a run's folder holds the file of its monitor."""
MOST_BYTES, MOST_NUMBERS = 2**28, 10**7  # of a file, and of its measurements times the eigenvalues of each


@dataclass(frozen=True, repr=False)
class SharpnessRecord(Brief):
    """One measurement. What was not asked for, or cannot be known, is None.

    Attributes:
        step: number of the optimizer's steps before it.
        loss, gradient_norm: L(θ) and ‖∇L(θ)‖; None where they are not finite.
        eigenvalues: the largest of ∇²L(θ), descending; none where the loss or its gradient is not finite.
        residuals: ‖Hv - λv‖ / |λ| of each; of one that is zero to the rounding of a product, ‖Hv - λv‖ / ‖H‖.
        products: Hessian-vector products of the eigenvalues, those of `preconditioned` among them.
        threshold: the edge of stability of the optimizer (`landscape.curvature.stability.edge_of`).
        preconditioned: λmax of P⁻¹H, to which the threshold applies where P is not the identity.
        alignment: |cos| of the last update of θ with each eigenvector.
        trace, trace_error: Hutchinson's estimate of tr H, and its standard error.
        sam: L(θ + ρ ∇L/‖∇L‖) - L(θ).
        seconds: wall time of the measurement.
        overhead: time of all measurements so far, relative to the training's own; None before its first step.
    """

    step: int
    loss: float | None = None
    gradient_norm: float | None = None
    eigenvalues: tuple[float, ...] = ()
    residuals: tuple[float, ...] = ()
    products: int = 0
    threshold: float | None = None
    preconditioned: float | None = None
    alignment: tuple[float, ...] = ()
    trace: float | None = None
    trace_error: float | None = None
    sam: float | None = None
    seconds: float = 0.0
    overhead: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers by name, those of sequences numbered from 1: for a logger."""
        found: dict[str, float] = {}
        for name, value in asdict(self).items():
            if isinstance(value, tuple):
                found |= {f"{name.removesuffix('s')}_{i}": each for i, each in enumerate(value, start=1)}
            elif value is not None and name != "step":
                found[name] = value
        return found


_RECORD = TypeAdapter(SharpnessRecord)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SharpnessHistory(Drawn, Result):
    """The sharpness along a training, as `landscape.Monitor` measured it; NaN where a number is missing.

    Attributes:
        steps: number of optimizer steps before each measurement. All arrays but three have its shape,
            (measurements,).
        eigenvalues, residuals, alignment: k numbers from each measurement. Shape (measurements, k).
        products, durations: Hessian-vector products and seconds of each measurement.
        losses, gradient_norms, thresholds, preconditioned, traces, trace_errors, sam, overheads: see
            `SharpnessRecord`.
    """

    steps: Array
    losses: Array
    gradient_norms: Array
    eigenvalues: Array
    residuals: Array
    products: Array
    thresholds: Array
    preconditioned: Array
    alignment: Array
    traces: Array
    trace_errors: Array
    sam: Array
    durations: Array
    overheads: Array

    def check(self) -> None:
        count = len(self.steps)
        arrays = [getattr(self, f.name) for f in fields(self) if f.name not in RESULT]
        agree(all(len(array) == count for array in arrays), bool((np.diff(self.steps) > 0).all()))
        rows = (self.eigenvalues, self.residuals, self.alignment)
        agree(all(a.ndim == (2 if any(a is row for row in rows) else 1) for a in arrays))
        agree(len({row.shape for row in rows}) == 1)

    @property
    def converged(self) -> Any:
        """Whether each residual is within the tolerance, shape (measurements, k)."""
        return self.residuals <= self.settings["tol"]


RESULT = {f.name for f in fields(Result)}


def history_of(records: Sequence[SharpnessRecord], **told: Any) -> SharpnessHistory:
    """Return records as arrays. `told` are the fields of `Result` apart from `seconds`."""
    width = max((len(r.eigenvalues) for r in records), default=0)

    def column(value: Callable[[SharpnessRecord], float | None]) -> Array:
        return np.array([math.nan if (v := value(r)) is None else v for r in records], dtype=np.float64)

    def rows(values: Callable[[SharpnessRecord], Sequence[float]]) -> Array:
        table = np.full((len(records), width), math.nan)
        for row, record in zip(table, records, strict=True):
            row[: len(values(record))] = values(record)
        return table

    return SharpnessHistory(
        steps=column(lambda r: r.step),
        losses=column(lambda r: r.loss),
        gradient_norms=column(lambda r: r.gradient_norm),
        eigenvalues=rows(lambda r: r.eigenvalues),
        residuals=rows(lambda r: r.residuals),
        products=column(lambda r: r.products),
        thresholds=column(lambda r: r.threshold),
        preconditioned=column(lambda r: r.preconditioned),
        alignment=rows(lambda r: r.alignment),
        traces=column(lambda r: r.trace),
        trace_errors=column(lambda r: r.trace_error),
        sam=column(lambda r: r.sam),
        durations=column(lambda r: r.seconds),
        overheads=column(lambda r: r.overhead),
        seconds=float(sum(r.seconds for r in records)),
        **told,
    )


class RecordFile:
    """The records of one monitor in a file of JSON lines: a header, then a line per measurement.

    A file of the same settings and data is continued, as a training is that is resumed. Records of steps that
    are taken again are replaced. If processes train together with the same path, one writes it.

    Args:
        path: NAME.jsonl, or None to keep the records in memory only.
        header: settings and provenance, which JSON must hold.
        same: keys of `identity.DIFFERENT` whose provenance must agree for a file to be continued.

    Raises:
        InputError: the file holds something else.

    Attributes:
        records: in the order of their steps.
    """

    def __init__(self, path: Path | None, header: dict[str, Any], same: Sequence[str]) -> None:
        self.path, self.header = path, {"monitor": VERSION, **header}
        self.records: list[SharpnessRecord] = []
        if path and path.exists():
            before, self.records = read_records(path)
            now = json.loads(json.dumps(self.header))
            kept = [("settings", now["settings"], before["settings"])]
            kept += [
                (DIFFERENT[key], now["provenance"].get(key), before["provenance"].get(key)) for key in same
            ]
            if changed := [name for name, new, old in kept if new != old]:
                raise InputError(f"{path} holds measurements with different {changed[0]}; give another file")

    def add(self, record: SharpnessRecord) -> None:
        """Append a record, or replace those of its step and later ones.

        A file that lacks its end, as a kill or a full disk leaves it, or that is gone is written anew.

        Raises:
            InputError: the file cannot be written.
        """
        earlier = [known for known in self.records if known.step < record.step]
        fresh = not self.records or len(earlier) < len(self.records)
        self.records = [*earlier, record]
        if not (self.path and is_writer(self.path)):
            return
        if fresh or not _ends(self.path):
            lines = [json.dumps(self.header), *map(_line, self.records)]
            write_text(self.path, "".join(f"{line}\n" for line in lines))
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error


def _line(record: SharpnessRecord) -> str:
    return json.dumps(asdict(record), allow_nan=False)


def _ends(path: Path) -> bool:
    """Tell whether the last line of a file is whole, so that another may follow."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except OSError:  # it is gone, or empty
        return False


def read_history(path: str | Path) -> SharpnessHistory:
    """Read the file that a monitor writes.

    Raises:
        InputError: it is missing, or a monitor does not write such a file.
    """
    header, records = read_records(Path(path))
    found = history_of(records, settings=header["settings"], provenance=header["provenance"])
    try:
        check_ranges(found)
    except InputError as error:
        raise InputError(f"{path} is not a readable file of landscape.Monitor: {error}") from None
    return found


def read_records(path: Path) -> tuple[dict[str, Any], list[SharpnessRecord]]:
    """Return the header and the records; a last line that a kill cut short is left out."""
    lines = existing(path, "monitor file", MOST_BYTES).read_text("utf-8", errors="replace").split("\n")
    try:
        header = json.loads(lines[0])
        agree(header["monitor"] == VERSION, isinstance(header["settings"]["tol"], float))
        agree(isinstance(header["provenance"], dict))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InputError(
            f"{path} is not a file of landscape.Monitor: its first line is not a header"
        ) from None
    records: list[SharpnessRecord] = []
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            record = _RECORD.validate_json(line)
            agree((records[-1].step if records else -1) < record.step < 2**53, 0 <= record.products < 2**53)
            agree(len(record.residuals) == len(record.eigenvalues))
            agree(len(record.alignment) in (0, len(record.eigenvalues)))
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not a measurement of landscape.Monitor") from error
        records.append(record)
    if len(records) * max((len(record.eigenvalues) for record in records), default=0) > MOST_NUMBERS:
        raise InputError(f"{path} holds more eigenvalues than can be read ({MOST_NUMBERS:,})")
    return header, records

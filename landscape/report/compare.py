"""Every measurement of several checkpoints, in one folder with one page."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from landscape.curvature.history import MONITOR, read_history
from landscape.errors import InputError, encodable
from landscape.report.report import (
    MOST,
    PAGE,
    Compared,
    Comparison,
    Measured,
    read_index,
    render,
    result_path,
    write_index,
)
from landscape.runtime import progress
from landscape.runtime.ranks import ranks
from landscape.storage.files import locked, writable
from landscape.storage.results import load_as, surroundings
from landscape.surface.point_log import fingerprint
from landscape.tasks import Facts, TaskOptions, differences_of, facts_of, objectives_of

if TYPE_CHECKING:
    from landscape.objective.objective import Objective
    from landscape.storage.results import Result

R = TypeVar("R", bound="Result")
PARTS = tuple(name for name in Measured.__dataclass_fields__ if name != "monitor")
PROBES, STEPS = 4, 40  # of the spectral density: about half as long again as all else


@dataclass(frozen=True)
class Measurements:
    """What is measured of each checkpoint.

    Attributes:
        radius: radius of the surfaces, in units of their directions.
        tol: the largest error of a surface, relative to its range.
        grid: points per axis of plain planes instead, with no error bar; lines take twice as many.
        top: how many of the largest eigenvalues.
        rho: radius ρ of the sharpness measures.
        density: whether to measure the spectral density too.
    """

    radius: float = 1.0
    tol: float = 1e-3
    grid: int | None = None
    top: int = 5
    rho: float = 0.1
    density: bool = True


def compare_checkpoints(
    checkpoints: Mapping[str, Path],
    out: Path,
    options: TaskOptions,
    title: str,
    asked: Measurements,
    task: str | None = None,
    facts: Facts = Facts(),  # noqa: B008  frozen
    command: str = "",
) -> dict[str, Any]:
    """Measure each checkpoint, and save the results and the page in a folder.

    What an earlier call left in the folder is taken over where weights, data and settings are the same.
    Ranks that were joined share the batches, of surfaces the points, and of facts what the task lets them.

    Args:
        checkpoints: by the names under which they are shown, `report.MOST` of them or fewer.
        out: the folder; no other process may write to it meanwhile.
        options: the batches that are measured, and the device.
        title: title of the page.
        asked: what is measured.
        task: as `landscape.tasks.task_of` takes it.
        facts: tables and curves of no single checkpoint, for the page.
        command: the command line to name on the page.

    Returns:
        The path of the page, and the main numbers of each checkpoint, as plain values.

    Raises:
        InputError: too many checkpoints, one of them twice, `out` cannot be written to or is in use, and as
            `objectives_of` and `Objective.distribute`.
    """
    if len(checkpoints) > MOST:
        raise InputError(f"{len(checkpoints)} checkpoints are given; one report compares {MOST} at most")
    with locked(writable(out)):
        objectives = objectives_of(checkpoints.values(), options, task)
        shares = [objective.distribute(ranks()) for objective in objectives]
        compared: list[Compared] = []
        entries = []
        _mark_unfinished(out)
        each = zip(checkpoints.items(), objectives, shares, strict=True)
        for number, ((name, path), objective, shared) in enumerate(each):
            place = number, len(checkpoints)
            measuring = _Measuring(out, name, options.seed, _identity(objective), place)
            measured = measuring.all(objective, shared, asked)
            known = facts_of(path, options, task)
            _keep_monitor(path, result_path(out, name, "monitor"))
            compared.append(Compared(name=name, path=encodable(str(path)), facts=known))
            about = {"title": title, "command": encodable(command), "version": version("samrec-landscape")}
            if ranks().first:  # a report that is made from now on shows what there is
                write_index(Comparison(checkpoints=compared, finished=False, **about), out)
            entries.append({"name": name, "path": str(path), **_entry(measured, known)})
        said = differences_of(checkpoints, options, task)
        if ranks().first:
            told = replace(facts, statements=(*facts.statements, *said))
            write_index(Comparison(checkpoints=compared, facts=told, **about), out)
            render(out)
    return {"report": str(out / PAGE), "checkpoints": entries}


def _keep_monitor(checkpoint: Path, kept: Path) -> None:
    """Keep what a monitor wrote beside a checkpoint, if it did; warn of a file that cannot be read."""
    if not ranks().first:
        return
    kept.unlink(missing_ok=True)  # of an earlier comparison
    file = checkpoint.parent / MONITOR
    if file.exists():
        try:
            read_history(file).save(kept)
        except InputError as error:
            warnings.warn(f"left out of the report: {error}", stacklevel=3)


def _mark_unfinished(out: Path) -> None:
    """Let an earlier comparison say that its results are being replaced: after a kill they may be mixed."""
    if ranks().first:
        with suppress(InputError):  # there is none, or none that can be read
            write_index(read_index(out).model_copy(update={"finished": False}), out)


@dataclass(frozen=True)
class _Measuring:
    """The measurements of one checkpoint, in the files of a folder.

    Attributes:
        folder, name: where, and the stem of the files.
        seed: random seed of every measurement.
        identity: what is measured, see `_identity`.
        place: how many checkpoints were measured before this one, and how many there are.
    """

    folder: Path
    name: str
    seed: int
    identity: str
    place: tuple[int, int]

    def all(self, objective: "Objective", shared: "Objective", asked: Measurements) -> Measured:
        """Measure an objective, of which `shared` is this rank's share."""
        import landscape as ll

        operator = ll.hessian(shared)
        shape = {"radius": asked.radius, "tol": asked.tol}
        grid = asked.grid
        found = Measured(
            plane=self._result("plane", ll.Slice, ll.plane, objective, **shape, grid=grid),
            line=self._result("line", ll.Slice, ll.line, objective, **shape, grid=grid and 2 * grid - 1),
            hessian=self._result("hessian", ll.Eigenpairs, ll.top_eigenpairs, operator, k=asked.top),
            trace=self._result("trace", ll.Trace, ll.trace, operator),
            density=self._result(
                "density", ll.SpectralDensity, ll.spectral_density, operator, probes=PROBES, steps=STEPS
            )
            if asked.density
            else None,
            sharpness=self._result("sharpness", ll.Sharpness, ll.sharpness, shared, rho=asked.rho),
        )
        if not asked.density and ranks().first:  # what lies there may be of other weights or data
            result_path(self.folder, self.name, "density").unlink(missing_ok=True)
        return found

    def _result(self, part: str, kind: type[R], measure: Callable[..., R], of: Any, **asked: Any) -> R:
        """Return what an earlier run found, if it asked the same of the same; else measure, and save it."""
        asked["seed"] = self.seed
        path = result_path(self.folder, self.name, part)
        request = hashlib.sha256(dumps([part, asked, self.identity]).encode()).hexdigest()
        found = _answer(kind, path, request)
        everywhere = all(ranks().gathered(found is not None))  # ranks measure together or not at all
        if found and everywhere:
            return found
        before, checkpoints = self.place
        number = before * len(PARTS) + PARTS.index(part) + 1
        with progress.stage(self.name, number, checkpoints * len(PARTS)):
            result = measure(of, **asked)
        result = replace(result, provenance={**result.provenance, "request": request})
        result.save(path)
        return result


def _answer(kind: type[R], path: Path, request: str) -> R | None:
    """Read the result of an earlier run, if there is one and it is what was asked for now."""
    if path.exists():
        with suppress(InputError):  # it is damaged, or something else
            found = load_as(kind, path)
            if found.provenance.get("request") == request:
                return found
    return None


def _identity(objective: "Objective") -> str:
    """Identify what is measured and with what: weights, data, the loss to its last bit, versions, device.

    This holds for the whole objective: shares of the batches are summed in another order, which moves
    that last bit.
    """
    told = surroundings(objective.theta.device) | {"landscape": version("samrec-landscape")}
    return dumps([fingerprint(objective, (), objective.value()), told])


def _entry(measured: Measured, facts: Facts) -> dict[str, Any]:
    """Return the main numbers; what the task tells of the test, if it does, has a place of its own."""
    rows = {
        table.title: {row.name: dict(zip(table.columns, row.values, strict=True)) for row in table.rows}
        for table in facts.tables
    }
    return {
        **measured.sharpness.entry,
        "eigenvalues": measured.hessian.eigenvalues.tolist(),
        "smallest": measured.hessian.smallest,
        "converged": measured.hessian.converged,
        "trace": measured.trace.value,
        "trace_se": measured.trace.standard_error,
        "test": next((named["test"] for named in rows.values() if "test" in named), {}),
        "facts": rows,
        "headlines": facts.headlines(),
    }

"""From a checkpoint to its objective, and to what else is known of it, by a task."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from landscape.errors import InputError
from landscape.runtime.arguments import Seed, Size, checks_arguments
from landscape.runtime.named import FORM, function_of
from landscape.runtime.ranks import ranks
from landscape.storage.checkpoints import read_checkpoint
from landscape.storage.display import Brief
from landscape.storage.files import existing

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.objective.objective import Objective

GROUP = "landscape.tasks"
FOREIGN = (".ckpt",)
"""What files of Lightning end with, which name no task."""


@checks_arguments
@dataclass(frozen=True)
class TaskOptions:
    """What a task needs to know besides the checkpoint.

    Attributes:
        users: how many users (or examples) the frozen objective holds; None for all.
        seed: which of them, and which negatives. The same for all checkpoints that are compared.
        device: `auto`, `cpu` or `cuda`.
        data: the data file. Needed if it has moved, or if the path that the checkpoint stores lies neither
            under its folder nor under the current one: such a path is not read.
        include, exclude: name patterns of the parameters that take part.
        metric: `loss`, that of training, or another that the task knows, such as a validation loss or a
            ranking metric. An objective's provenance says which it is of.

    Raises:
        InputError: no users, or a seed that is not a whole number from 0.
    """

    users: Size | None = 2048
    seed: Seed = 0
    device: str = "auto"
    data: Path | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    metric: str = "loss"


@dataclass(frozen=True)
class FactRow:
    """A row of numbers.

    Attributes:
        name: name of the row, such as `test`.
        values: one number per column of the table; None where it is not known.
        intervals: their 95% intervals, from and to; none at all, or one per column. None where it is not
            known, which one with an end that is not finite becomes.
        note: what the numbers are of, such as `1,234 users`.
    """

    name: str
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        known = (pair if pair and all(map(math.isfinite, pair)) else None for pair in self.intervals)
        object.__setattr__(self, "intervals", tuple(known))


@dataclass(frozen=True, repr=False)
class FactTable(Brief):
    """A titled table of numbers that a task knows of a checkpoint; equal titles make one table of a report.

    Attributes:
        title: title of the table.
        columns: their names.
        rows: as `FactRow`.
        note: a paragraph on how the numbers were made.
        headline: the names of a row and a column: the one number to show where there is room for only one.

    Raises:
        InputError: a row does not have one value per column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[FactRow, ...]
    note: str = ""
    headline: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        width = len(self.columns)
        if any(len(row.values) != width or len(row.intervals) not in (0, width) for row in self.rows):
            raise InputError(f"each row of the table {self.title!r} needs one value per column, {width}")


@dataclass(frozen=True, repr=False)
class FactCurve(Brief):
    """A titled curve that a task knows of a checkpoint; equal titles make one plot of a report.

    Attributes:
        title: the quantity on the vertical axis.
        over: the quantity on the horizontal axis, such as `epoch`.
        x, y: the points; a y that is None is left out.

    Raises:
        InputError: there is not one y per x, or an x is not finite.
    """

    title: str
    over: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not all(abs(x) < 2**63 for x in self.x):
            raise InputError(f"the curve {self.title!r} needs one y per x, and each x a finite number")


@dataclass(frozen=True, repr=False)
class Facts(Brief):
    """What a report shows of a checkpoint besides the measurements.

    Attributes:
        tables: as `FactTable`.
        curves: as `FactCurve`.
        statements: sentences for the top of the report.
    """

    tables: tuple[FactTable, ...] = ()
    curves: tuple[FactCurve, ...] = ()
    statements: tuple[str, ...] = ()

    def headlines(self) -> dict[str, float | None]:
        """Return the headline of each table that has one, by the names of its row and column."""
        return {
            " ".join(table.headline): row.values[table.columns.index(table.headline[1])]
            for table in self.tables
            if table.headline and table.headline[1] in table.columns
            for row in table.rows
            if row.name == table.headline[0]
        }


class Task(Protocol):
    """What a checkpoint is for: called with its file and the options, a task gives its objective.

    A function is a task. An object may also have these methods; what it does not have is not drawn:

    - `theta(checkpoint)`: the parameters by name, without an objective. They are tensors on the CPU.
    - `initial(checkpoint)`: the same for the initial weights of its training.
    - `trajectory(checkpoint)`: the checkpoints that its training kept, as a list of paths in order.
    - `facts(checkpoint, options)`: `Facts`, tables and curves for a report.
    - `differences(checkpoints, options)`: how several checkpoints (a mapping of names to files) differ from
      the first, as a list of sentences for a report.
    - `export(checkpoint, target, options)`: writes what `target`'s ending names, and says what it is.
    """

    def __call__(self, checkpoint: Path, options: TaskOptions, /) -> "Objective":
        """Build the objective."""
        ...


def task_of(checkpoint: Path, task: str | None = None) -> Task:
    """Find the task of a checkpoint.

    Args:
        checkpoint: its file.
        task: `package.module:name` or `file.py:name`, from the user. Without it, the checkpoint's own key
            `task` names an installed entry point of the group `landscape.tasks`; it is never taken as
            something to import, since a file must not choose what code runs.

    Raises:
        InputError: the checkpoint cannot be read, or there is no such task.
    """
    return _imported(task) if task else _registered(checkpoint)


def objective_of(checkpoint: Path, options: TaskOptions, task: str | None = None) -> "Objective":
    """Build the objective of a checkpoint.

    Args:
        checkpoint: its file.
        options: what is measured, and on what.
        task: as `task_of` takes it.

    A warning says which of `data` and `users` were given and are not read by the task.

    Raises:
        InputError: as `task_of`, or the task returns no objective, or does not heed the metric, the patterns
            or the device of the options.
    """
    from landscape.objective.objective import Objective

    found = _built(task_of(checkpoint, task), checkpoint, options)
    if not isinstance(found, Objective):
        raise InputError(f"the task {task} returned {type(found).__name__}, not a landscape.Objective")
    if (metric := found.provenance.get("metric", "loss")).casefold() != options.metric.casefold():
        raise InputError(
            f"the task of {checkpoint} measures its {metric}; "
            f"it does not provide the metric {options.metric!r}"
        )
    if (found.params.include, found.params.exclude) != (tuple(options.include), tuple(options.exclude)):
        raise InputError(
            f"the task of {checkpoint} does not hold the excluded parameters fixed; "
            "pass include=options.include and exclude=options.exclude to Objective"
        )
    if options.device.partition(":")[0] not in ("auto", device := found.theta.device.type):
        raise InputError(f"the task of {checkpoint} put the model on {device}, not on {options.device}")
    return found


def theta_of(
    checkpoint: Path, objective: "Objective", options: TaskOptions, task: str | None = None
) -> "Tensor":
    """Return the parameters of a checkpoint in the coordinates of an objective, shape (numel,).

    A task that offers `theta` builds no objective for it.

    Raises:
        InputError: as `objective_of`, or the checkpoint is not of a model with these parameters.
    """
    read = getattr(task_of(checkpoint, task), "theta", None)
    if read:
        return joined(read(checkpoint), checkpoint, objective)
    with warnings.catch_warnings():  # of one user or of all: its loss is not wanted
        warnings.filterwarnings("ignore", "the task of .* does not read users")
        other = objective_of(checkpoint, replace(options, users=1), task)
    if other.theta.shape != objective.theta.shape:
        raise InputError(f"{checkpoint} has {len(other.theta):,} parameters, not {len(objective.theta):,}")
    own, its = ([(entry.name, entry.shape) for entry in o.params.entries] for o in (objective, other))
    if own != its:
        raise InputError(f"{checkpoint} has parameters of other names or shapes, or in another order")
    return other.theta


def initial_of(checkpoint: Path, task: str | None = None) -> "Mapping[str, Tensor]":
    """Return the parameters that a checkpoint's training began from, by name; see `joined`.

    Raises:
        InputError: as `task_of`, or the task does not know them.
    """
    read = getattr(task_of(checkpoint, task), "initial", None)
    if not read:
        raise InputError(
            f"the task of {checkpoint} does not know the initial weights of its training; use --prior zero"
        )
    found: Mapping[str, Tensor] = read(checkpoint)
    return found


def trajectory_of(checkpoint: Path, task: str | None = None) -> list[Path]:
    """Return the checkpoints that a checkpoint's training kept, in order.

    Raises:
        InputError: as `task_of`, or the task does not know them.
    """
    read = getattr(task_of(checkpoint, task), "trajectory", None)
    if not read:
        raise InputError(f"the task of {checkpoint} has no trajectory; name its folder with --trajectory")
    return list(read(checkpoint))


def facts_of(checkpoint: Path, options: TaskOptions, task: str | None = None) -> Facts:
    """Return what a checkpoint's task tells of it, or nothing.

    Raises:
        InputError: as `task_of`, and what the task raises.
    """
    read = getattr(task_of(checkpoint, task), "facts", None)
    return read(checkpoint, options) if read else Facts()


def differences_of(
    checkpoints: Mapping[str, Path], options: TaskOptions, task: str | None = None
) -> tuple[str, ...]:
    """Return what the task of the first of several checkpoints says about their differences, or nothing.

    Raises:
        InputError: as `task_of`, and what the task raises.
    """
    compare = getattr(task_of(next(iter(checkpoints.values())), task), "differences", None)
    return tuple(compare(checkpoints, options)) if compare and len(checkpoints) > 1 else ()


def export_of(checkpoint: Path, target: Path, options: TaskOptions, task: str | None = None) -> str:
    """Write what a checkpoint's task exports in the format of the target's ending; return what it is.

    Raises:
        InputError: as `task_of`, or the task exports nothing, or not in this format.
    """
    write = getattr(task_of(checkpoint, task), "export", None)
    if not write:
        raise InputError(f"the task of {checkpoint} exports nothing; surfaces (.npz, .h5) can be exported")
    return str(write(checkpoint, target, options))


def joined(weights: "Mapping[str, Tensor]", checkpoint: Path, objective: "Objective") -> "Tensor":
    """Return named parameters of a checkpoint in the coordinates of an objective, shape (numel,).

    Raises:
        InputError: they are of another model.
    """
    for entry in objective.params.entries:
        if entry.name not in weights or weights[entry.name].shape != entry.shape:
            raise InputError(f"{checkpoint} has no parameter {entry.name} of shape {tuple(entry.shape)}")
    return objective.params.join(weights).to(objective.theta)


@checks_arguments
def objectives_of(
    checkpoints: Iterable[Path], options: TaskOptions, task: str | None = None, shared: bool = False
) -> list["Objective"]:
    """Return the objectives of checkpoints that are to be compared, built before any is measured.

    Args:
        checkpoints: their files, in the order in which they are compared.
        options: what is measured, and on what.
        task: as `task_of` takes it.
        shared: deal the batches to the ranks, see `Objective.distribute`; else each rank holds all of them.

    Raises:
        InputError: as `objective_of`, one checkpoint is given twice, or two are of different data, losses or
            frozen batches; and as `Objective.distribute`.
    """
    from landscape.objective.identity import need_one_loss

    checkpoints = list(checkpoints)
    if len({Path(checkpoint).resolve() for checkpoint in checkpoints}) < len(checkpoints):
        raise InputError("the same checkpoint is given twice; each must be a different file")
    objectives = {checkpoint: objective_of(checkpoint, options, task) for checkpoint in checkpoints}
    if len(objectives) > 1:
        need_one_loss({checkpoint: of.provenance for checkpoint, of in objectives.items()})
    return [o.distribute(ranks()) if shared else o for o in objectives.values()]


class _Noting(TaskOptions):
    """Options that note which of them are read."""

    def __getattribute__(self, name: str) -> Any:
        super().__getattribute__("__dict__").setdefault("read", set()).add(name)
        return super().__getattribute__(name)


def _built(task: Task, checkpoint: Path, options: TaskOptions) -> Any:
    """Return what a task makes of a checkpoint; say which options it does not read."""
    noting = _Noting(**{field.name: getattr(options, field.name) for field in fields(options)})
    found, read = task(checkpoint, noting), noting.read  # the latter a note, and no option
    for name in ("data", "users"):
        given = getattr(options, name)
        if given not in (None, getattr(TaskOptions, name)) and not {name, "__dict__"} & read:
            warnings.warn(f"the task of {checkpoint} does not read {name}: {given} is ignored", stacklevel=3)
    return found


def _registered(checkpoint: Path) -> Task:
    existing(checkpoint, "checkpoint")
    name = None if checkpoint.suffix.lower() in FOREIGN else read_checkpoint(checkpoint).get("task")
    known = {point.name: point for point in entry_points(group=GROUP)}
    if not isinstance(name, str) or name not in known:
        named = f"the task {name[:40]!r}, which is not installed" if isinstance(name, str) else "no task"
        raise InputError(f"{checkpoint} names {named}; add --task {FORM}, as in examples/task.py")
    return cast("Task", known[name].load())


def _imported(task: str) -> Task:
    found = function_of(task, "--task")
    try:
        signature(found).bind(None, None)
    except TypeError as error:
        raise InputError(f"{task} does not take a checkpoint and options as arguments: {error}") from None
    except ValueError:
        pass  # a function of C does not tell its arguments
    return cast("Task", found)

"""From a checkpoint to an objective, by the task that the checkpoint names or the user does."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from landscape.storage.checkpoints import read_checkpoint
from landscape.storage.files import existing

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

GROUP = "landscape.tasks"
FOREIGN = (".ckpt",)
"""What files of Lightning end with, which name no task."""


@dataclass(frozen=True)
class TaskOptions:
    """What a task needs to know beside the checkpoint.

    Attributes:
        users: how many users (or examples) the frozen objective holds; None for all.
        seed: which of them, and which negatives. The same for all checkpoints that are compared.
        device: `auto`, `cpu` or `cuda`.
        data: the data file, where it is no longer where the checkpoint says.
        include, exclude: name patterns of the parameters that take part.
        metric: what is measured: `loss`, that of training, or another that the task knows, such as a
            validation loss or a ranking metric. An objective's provenance says which it is of.
    """

    users: int | None = 2048
    seed: int = 0
    device: str = "auto"
    data: Path | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    metric: str = "loss"


Task = Callable[[Path, TaskOptions], "Objective"]


def objective_of(checkpoint: Path, options: TaskOptions, task: str | None = None) -> "Objective":
    """Build the objective of a checkpoint.

    Args:
        task: `package.module:function`, from the user. Without it, the checkpoint's own key `task` names
            an installed entry point of the group `landscape.tasks`; it is never taken as something to
            import, since a file must not choose what code runs.

    Raises:
        InputError: the checkpoint cannot be read, there is no such task, it returns no objective, or it does
            not heed the metric, the patterns or the device of the options.
    """
    from landscape.objective.objective import Objective

    found = (_imported(task) if task else _registered(checkpoint))(checkpoint, options)
    if not isinstance(found, Objective):
        raise InputError(f"the task {task} returned {type(found).__name__}, not a landscape.Objective")
    if (metric := found.provenance.get("metric", "loss")) != options.metric:
        raise InputError(f"the task of {checkpoint} measures its {metric}, and no {options.metric!r}")
    if (found.params.include, found.params.exclude) != (tuple(options.include), tuple(options.exclude)):
        raise InputError(
            f"the task of {checkpoint} holds other parameters still than asked; "
            "pass include=options.include and exclude=options.exclude to Objective"
        )
    if options.device.partition(":")[0] not in ("auto", device := found.theta.device.type):
        raise InputError(f"the task of {checkpoint} measures on {device}, and not on {options.device}")
    return found


DIFFERENT = {
    "data_sha256": "data",
    "loss": "losses",
    "batches_sha256": "batches (other users, noise, negatives or lengths of history)",
}
"""What makes losses incomparable, by its key in the provenance."""


def objectives_of(
    checkpoints: Iterable[Path], options: TaskOptions, task: str | None = None, shared: bool = False
) -> list["Objective"]:
    """Return the objectives of checkpoints that are to be compared, built before any is measured.

    Args:
        checkpoints: their files, in the order in which they are compared.
        options: what is measured, and on what.
        task: `package.module:function` that makes an objective of a checkpoint; samrec's if not given.
        shared: deal the batches to the ranks, see `Objective.distribute`; else each rank holds all of them.

    Raises:
        InputError: as `objective_of`, or two are of different data, losses or frozen batches; and as
            `Objective.distribute`.
    """
    objectives = {checkpoint: objective_of(checkpoint, options, task) for checkpoint in checkpoints}
    first, *others = objectives
    for other in others:
        for key, what in DIFFERENT.items():
            a, b = (objectives[checkpoint].provenance.get(key) for checkpoint in (first, other))
            if a != b:
                raise InputError(f"{first} and {other} are of different {what}; their losses do not compare")
    return [o.distribute(ranks()) if shared else o for o in objectives.values()]


def _registered(checkpoint: Path) -> Task:
    existing(checkpoint, "checkpoint")
    name = None if checkpoint.suffix.lower() in FOREIGN else read_checkpoint(checkpoint).get("task")
    known = {point.name: point for point in entry_points(group=GROUP)}
    if not isinstance(name, str) or name not in known:
        named = f"the task {name[:40]!r}" if isinstance(name, str) else "no task"
        raise InputError(
            f"{checkpoint} names {named}; installed are {', '.join(sorted(known)) or 'none'}, "
            "or say --task package.module:function"
        )
    found: Task = known[name].load()
    return found


def _imported(task: str) -> Task:
    module, _, name = task.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as for `python -m landscape`; the script `landscape` stands elsewhere
    try:
        found: Task = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"no task {task!r} ({error}); expected package.module:function") from None
    if not callable(found):
        raise InputError(f"{task} is no function; expected package.module:function")
    return found

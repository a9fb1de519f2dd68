"""Options that several commands share, declared once."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property, wraps
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from typer.core import TyperCommand

from landscape.cli.help import write_help
from landscape.cli.output import json_alone
from landscape.errors import InputError, encodable
from landscape.runtime import progress
from landscape.runtime.devices import DeviceName
from landscape.storage.files import locked, writable
from landscape.tasks import TaskOptions

if TYPE_CHECKING:
    from landscape.objective.objective import Objective

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Condition:
    """When an option has an effect; it stands in the option's annotation: see `only_with` and `not_with`.

    Attributes:
        option: another option of the command.
        values: its values that count; empty for whether it is given at all.
        wanted: whether the effect is there with them, or without.
    """

    option: str
    values: tuple[str, ...]
    wanted: bool

    def __str__(self) -> str:
        return f"{self.option} {', '.join(self.values)}".rstrip()

    def holds(self, context: Any) -> bool:
        """Tell whether the option has an effect, with what a command was given."""
        (other,) = (each for each in context.command.params if self.option in each.opts)
        value = context.params[other.name]
        if not self.values:
            met = value not in (None, False)
        elif other.multiple:  # where none is named, all are meant
            met = any(each in self.values for each in value or self.values)
        else:
            met = str(value) in self.values
        return met == self.wanted


def only_with(option: str, *values: str) -> Condition:
    """Refuse an option unless another one is given, or has one of these values, and say so in --help."""
    return Condition(option, values, wanted=True)


def not_with(option: str, *values: str) -> Condition:
    """Refuse an option if another one is given, or has one of these values, and say so in --help."""
    return Condition(option, values, wanted=False)


class Declared(TyperCommand):
    """A command that refuses options that would be ignored, and whose help fits into 80 columns."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for option, condition in self.conditions():
            option.help = f"{option.help} {'Only' if condition.wanted else 'Not'} with {condition}."

    def conditions(self) -> Iterator[tuple[Any, Condition]]:
        """Yield each option that has a condition, with the condition."""
        assert self.callback is not None
        own = inspect.signature(self.callback, eval_str=True).parameters
        for option in self.params:
            for said in get_args(own[option.name].annotation) if option.name in own else ():
                if isinstance(said, Condition):
                    yield option, said

    def get_help(self, ctx: Any) -> str:
        """Return the help in what standard output can write; click would write UTF-8 to any terminal."""
        encoding = sys.stdout.encoding or "utf-8"
        return super().get_help(ctx).encode(encoding, "plain").decode(encoding)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, see `landscape.cli.help`; Typer's own tables cut names and words at 80 columns."""
        write_help(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            InputError: an option is given whose condition does not hold.
        """
        for option, condition in self.conditions():
            if ctx.get_parameter_source(option.name).name != "DEFAULT" and not condition.holds(ctx):
                if condition.wanted:
                    needed = " ".join([condition.option, *condition.values[:1]])
                    raise InputError(f"{option.opts[0]} is for {condition}; add {needed}")
                raise InputError(f"{option.opts[0]} has no effect with {condition}; leave one of them out")
        with json_alone() if ctx.params.get("json") else nullcontext():
            return super().invoke(ctx)


def _best(folder: Path) -> Path:
    """Return the checkpoint that a run's folder stands for: its best.pt, or last.pt where it has no other."""
    if not folder.is_dir():
        return folder
    held = [folder / name for name in ("best.pt", "last.pt") if (folder / name).is_file()]
    if not held:
        raise InputError(f"{folder} is a folder without best.pt; give the file of a checkpoint")
    return held[0]


Checkpoints = Annotated[
    list[Path],
    typer.Option(
        "--ckpt",
        help="Checkpoint, or a run's folder for its best.pt (repeat to compare several).",
        callback=lambda given: list(map(_best, given)),
    ),
]
Checkpoint = Annotated[
    Path, typer.Option("--ckpt", help="Checkpoint, or a run's folder for its best.pt.", callback=_best)
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed.")]
Device = Annotated[DeviceName, typer.Option(help="Device to compute on.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Data = Annotated[
    Path | None, typer.Option(help="Data file, if it has moved since the checkpoint was written.")
]
Users = Annotated[
    int,
    typer.Option(
        min=1,
        max=2**63 - 1,
        help="Number of users, or of a task's examples, in the frozen loss (at most all).",
    ),
]


Task = Annotated[
    str | None,
    typer.Option(
        help="package.module:function, or file.py:function, that builds an Objective from a checkpoint of "
        "your own model."
    ),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Vary only parameters whose name matches (repeatable).")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Hold parameters fixed whose name matches (repeatable).")
]


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options of every command that computes something."""

    context: typer.Context
    seed: Seed = 0
    device: Device = "auto"
    json: Json = False

    def hold(self, folder: Path) -> None:
        """Keep other processes out of an output folder until the command has ended, see `hold`."""
        hold(self.context, folder)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(CommonOptions):
    """Options of a command that reads several checkpoints."""

    ckpt: Checkpoints
    data: Data = None
    task: Task = None

    @cached_property
    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints by name, see `names_of`."""
        return dict(zip(names_of(self.ckpt), self.ckpt, strict=True))

    @property
    def task_options(self) -> TaskOptions:
        """What a task needs to know."""
        return TaskOptions(seed=self.seed, device=self.device, data=self.data)

    def need_own_files(self, parts: Iterable[str]) -> None:
        """Make sure that the results of a part, NAME.PART, are in the files of no other checkpoint or part.

        Raises:
            InputError: a checkpoint, or a part of another one, has the name of a part.
        """
        owners = dict(self.checkpoints)
        for name, part in product(self.checkpoints, dict.fromkeys(parts)):
            both = f"{name}.{part}"
            if path := owners.get(both):
                raise InputError(f"results of two would be in one file, {both}; rename the file {path}")
            owners[both] = self.checkpoints[name]

    def objectives(self, *, shared: bool = False, **changes: Any) -> "dict[str, Objective]":
        """Return the objective of each checkpoint, by name, as `landscape.tasks.objectives_of`.

        Args:
            shared: let the processes of torchrun share the batches.
            changes: to the task's options.
        """
        from landscape.tasks import objectives_of

        settings = replace(self.task_options, **changes)
        found = objectives_of(self.checkpoints.values(), settings, self.task, shared=shared)
        return dict(zip(self.checkpoints, found, strict=True))

    def each_objective(self) -> "Iterator[tuple[str, Objective]]":
        """Yield name and objective of each checkpoint, whose batches ranks share; bars say which it is."""
        found = self.objectives(shared=True)
        for number, (name, objective) in enumerate(found.items(), start=1):
            with progress.stage(name, number, len(found)):
                yield name, objective

    def objective(self, path: Path, **changes: Any) -> "Objective":
        """Return the objective of one checkpoint, as `landscape.tasks.objective_of`."""
        from landscape.tasks import objective_of

        return objective_of(path, replace(self.task_options, **changes), self.task)


@dataclass(frozen=True, kw_only=True)
class MeasurementOptions(CheckpointOptions):
    """Options of a command that measures the frozen loss of several checkpoints."""

    users: Users = 2048
    include: Include = None
    exclude: Exclude = None

    @property
    def task_options(self) -> TaskOptions:
        given = replace(super().task_options, users=self.users)
        return replace(given, include=tuple(self.include or ("*",)), exclude=tuple(self.exclude or ()))


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options.

    A parameter whose type is a dataclass of options is spread into one option a field on the command line,
    and the command is called with the dataclass. Options that are required come first.
    """
    own = inspect.signature(command, eval_str=True).parameters
    kinds: dict[str, Callable[..., Any]] = {
        name: parameter.annotation
        for name, parameter in own.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    groups = {name: inspect.signature(kind, eval_str=True).parameters for name, kind in kinds.items()}
    spread = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.items()
        for each in (groups[name].values() if name in groups else [parameter])
    ]
    spread.sort(key=lambda each: each.default is not inspect.Parameter.empty)

    @wraps(command)
    def gather(**given: Any) -> None:
        gathered = {
            name: kinds[name](**{field: given.pop(field) for field in group})
            for name, group in groups.items()
        }
        command(**gathered, **given)

    gather.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined] # what typer and inspect read
    gather.__annotations__ = {each.name: each.annotation for each in spread}
    return gather


def by_ranks(command: F) -> F:
    """Mark a command that the processes of `torchrun -m landscape …` may carry out together."""
    command.by_ranks = True  # type: ignore[attr-defined]  # a function may have any
    return command


def hold(context: typer.Context, folder: Path) -> None:
    """Keep other processes out of an output folder until the command of this context has ended.

    Raises:
        InputError: another process holds it, or it cannot be written to.
    """
    context.with_resource(locked(writable(folder)))


def names_of(checkpoints: list[Path]) -> list[str]:
    """Name each checkpoint: by its file, or by its folder where the file is a run's best.pt or last.pt.

    Where those names are equal, as much of the path is added as makes them different. Case does not count, as
    files are named by them and many disks ignore it.

    Raises:
        InputError: the same checkpoint is given twice.
    """
    if len({c.resolve() for c in checkpoints}) < len(checkpoints):
        raise InputError("the same checkpoint is given twice; each --ckpt must be a different file")
    files = [tuple(map(encodable, c.resolve().with_suffix("").parts[1:])) for c in checkpoints]
    runs = [parts[:-1] if parts[-1] in ("best", "last") else parts for parts in files]
    for depth in range(1, max(map(len, files)) + 1):
        for places, length in ((runs, depth), (files, depth + 1)):
            names = ["-".join(parts[-length:]) for parts in places]
            if all(names) and len({name.casefold() for name in names}) == len(names):
                return names
    return [f"{parts[-1]}-{number}" for number, parts in enumerate(files, start=1)]

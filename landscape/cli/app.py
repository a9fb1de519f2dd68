"""The command line: the measurements, one file each, and the commands that other packages add."""

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from landscape.cli.options import Declared
from landscape.cli.output import complain, write_plainly
from landscape.errors import MOST, InputError, printable, shortened, words_of
from landscape.runtime import progress
from landscape.runtime import ranks as parallel

MEASUREMENTS = ("surface", "path", "hessian", "sharpness", "bound", "compare", "report", "export", "doctor")
SYNONYMS = {"checkpoint": "ckpt", "model": "ckpt", "output": "out", "output_dir": "out", "k": "top"}
"""What options are called elsewhere, and what here; a command may know more, in an attribute `synonyms`."""
GROUP = "landscape.commands"
"""Entry points by which a package adds commands: a name, and a function or a typer app."""
UNFORESEEN = (MemoryError, RuntimeError, OverflowError, UnicodeError)
"""Errors that become one line without being expected anywhere; all others are defects, with a traceback."""
INTERRUPTED = 128 + signal.SIGINT
USAGE: Any = typer.BadParameter.__base__
"""The error of a wrong option or command: click's, or that of the click inside newer versions of typer."""


class Command(TyperCommand):
    """A command as the list of commands shows it; its options are declared when it is called.

    Args:
        name: as it is called.
        found: the function or typer app that it stands for, or why there is none.
        panel: title of the part of the list that it stands in; None for the first.
    """

    def __init__(self, name: str, found: Any, panel: str | None = None) -> None:
        broken = isinstance(found, Exception)
        said = found.info.help if isinstance(found, typer.Typer) else found.__doc__
        super().__init__(name, help=_flowing(said or ""), rich_help_panel=panel, hidden=broken)
        self.found, self.panel = found, panel

    @property
    def by_ranks(self) -> bool:
        """Whether the processes of torchrun carry it out together; see `landscape.cli.options.by_ranks`."""
        return getattr(self.found, "by_ranks", False)

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Declare the options, and parse them.

        Raises:
            InputError: the command cannot be imported, or is not one for torchrun.
        """
        if isinstance(self.found, Exception):
            raise InputError(f"the command {self.name} cannot be loaded {self.panel}: {self.found}")
        if parallel.ranks().size > 1 and not self.by_ranks:
            shared = [name for name, command in _commands().items() if command.by_ranks]
            raise InputError(f"{self.name} runs in one process; torchrun is for {', '.join(shared)}")
        declared = _declared(self.name or "", self.found)
        try:
            return declared.make_context(*arguments, **extra)
        except Exception as error:
            # NoSuchOption, of click or of the copy of it within typer, suggests what is spelled alike.
            if asked := getattr(error, "option_name", None):
                synonyms = SYNONYMS | getattr(self.found, "synonyms", {})
                meant = f"--{synonyms.get(asked.strip('-').replace('-', '_'), '')}".replace("_", "-")
                if any(meant in parameter.opts for parameter in declared.params):
                    error.possibilities = [meant]  # type: ignore[attr-defined] # of NoSuchOption
            raise


class Commands(TyperGroup):
    """Commands that are imported when they are called or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the measurements, then what packages add, by name."""
        return list(_commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None. A measurement is found without looking for what packages add."""
        return _measurement(cmd_name) if cmd_name in MEASUREMENTS else _commands().get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; of one that a signal stopped, typer would forget which signal it was."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise typer.Abort from stopped


@cache
def _measurement(name: str) -> Command:
    return Command(name, import_module(f"landscape.cli.{name}").command)


@cache
def _commands() -> Mapping[str, Command]:
    points = {point.name: point for point in entry_points(group=GROUP)}
    added = {name: _added(points[name]) for name in sorted(points.keys() - set(MEASUREMENTS))}
    return {name: _measurement(name) for name in MEASUREMENTS} | added


def _added(point: EntryPoint) -> Command:
    panel = f"from {point.module.partition('.')[0]}"
    try:
        return Command(point.name, point.load(), panel)
    except Exception as error:  # whatever is wrong with another package, the rest works
        return Command(point.name, error, panel)


def _declared(name: str, found: Any) -> Any:
    """Return a command with its options, from a function or from a typer app."""
    made = found
    if not isinstance(found, typer.Typer):
        made = typer.Typer(add_completion=False)
        made.command(name)(found)
    for registered in made.registered_commands:
        registered.help = _flowing(registered.callback.__doc__ or "")
        if registered.cls is TyperCommand:  # a package's own class stays
            registered.cls = Declared
    declared = typer.main.get_command(made)
    for each in getattr(declared, "commands", {"": declared}).values():
        each.params.append(_quiet())
    return declared


def _quiet() -> Any:
    """Return the option that every command has."""
    only = typer.Typer(add_completion=False)

    @only.command()
    def declared(
        quiet: Annotated[
            bool,
            typer.Option("--quiet", help="Show no progress.", expose_value=False, callback=progress.hush),
        ] = False,
    ) -> None:
        pass

    return typer.main.get_command(only).params[0]


def _flowing(paragraphs: str) -> str:
    """Join the lines of each paragraph except examples, which are indented: a terminal breaks them anew."""
    parts = inspect.cleandoc(paragraphs).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else part.replace("\n", " ") for part in parts)


app = typer.Typer(
    name="landscape",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"landscape {version('samrec-landscape')}")
        raise typer.Exit


@app.callback(result_callback=lambda *_, **__: parallel.leave())
def landscape(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure the loss landscape of a model around its minima: surfaces, curvature and sharpness."""
    parallel.join()


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 2.

    What nothing foresaw (memory that ran out, an error inside torch) is one line too; with `--traceback`
    anywhere among the arguments, its traceback.
    """
    # GNU OpenMP's threads spin 300,000 times before they sleep. Two trainings on two cores then take a
    # hundred times as long (150 s an epoch of Beauty); at 2,000 times, 3.9 s, and 1.3 s alone, as before.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ["MPLBACKEND"] = "agg"  # no command opens a window, and an unknown one could not be imported
    warnings.showwarning = _one_line
    arguments = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    told = () if len(arguments) < len(sys.argv) - 1 else UNFORESEEN
    write_plainly()
    try:
        _check_folder()
        code = app(arguments or ["--help"], prog_name="landscape", standalone_mode=False)
        if code == INTERRUPTED:  # by typer, which says nothing: before the command began, or after its end
            raise typer.Abort
        sys.stdout.flush()
    except InputError as error:
        code = _ended_by(error, str(error))
    except USAGE as error:
        called = [name for name in arguments[:1] if name in _commands()]
        path = error.ctx.command_path if error.ctx else " ".join(["landscape", *called])
        said = error.format_message().rstrip(".")
        code = _failed(f"{said or 'Missing command'}; see: {path} --help")
    except (typer.Abort, KeyboardInterrupt) as error:
        code = _stopped(error.__cause__ or error)
    except BrokenPipeError:  # the reader of our output has gone: `landscape … | head`
        code = 1
    except OSError as error:  # a full disk, a folder that went away
        code = _ended_by(error, f"{error.strerror or error}: {error.filename or 'output'}")
    except told as error:
        code = _ended_by(error, f"{words_of(error)} (--traceback shows where)")
    except Exception as error:  # a library's import turns an interrupt into an ImportError
        if not (stopped := _interrupt_behind(error)):
            raise
        code = _stopped(stopped)
    _end(code if isinstance(code, int) else 0)


def _check_folder() -> None:
    """Refuse to work in a folder that is gone: libraries of torch abort the process there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the working directory has been removed; change to another one") from None


def _stopped(by: BaseException) -> int:
    return _failed(str(by) or "interrupted", 128 + getattr(by, "signal", signal.SIGINT))


def _ended_by(error: Exception, said: str) -> int:
    """Say what ended the command."""
    stopped = _interrupt_behind(error)
    return _stopped(stopped) if stopped else _failed(said)


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interrupt that became an error: while a class was made, or while a library was imported."""
    behind = error.__cause__ or error.__context__
    if behind is None or isinstance(behind, KeyboardInterrupt):
        return behind
    return _interrupt_behind(behind)


def _failed(message: str, code: int = 2) -> int:
    complain(shortened(message, MOST))
    return code


def _end(code: int) -> NoReturn:
    """Leave with an exit code, whatever has become of the streams."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # the interpreter would fail on them once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if parallel.parted():  # a normal exit aborts now and then, in the threads of torch
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    if parallel.ranks().first:
        print(f"landscape: warning: {printable(str(message))}", file=sys.stderr)

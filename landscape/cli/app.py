"""The command and its subcommands, one file each."""

import inspect
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from landscape.cli import (
    baselines,
    bound,
    compare,
    data,
    demo,
    evaluate,
    export,
    hessian,
    path,
    report,
    sharpness,
    surface,
    sweep,
    train,
)
from landscape.cli.output import complain
from landscape.errors import InputError, printable
from landscape.runtime import ranks as parallel

SHARED = ("train", "evaluate", "surface", "hessian", "sharpness", "compare")
"""Commands that the processes of `torchrun --nproc-per-node N -m landscape …` carry out together."""

app = typer.Typer(
    name="landscape",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"landscape {version('samrec-landscape')}")
        raise typer.Exit


@app.callback(result_callback=lambda *_, **__: parallel.leave())
def landscape(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train sequential recommenders, and measure the loss landscape of their minima (or of any model's)."""
    parallel.join()
    if parallel.ranks().size > 1 and context.invoked_subcommand not in SHARED:
        raise InputError(
            f"{context.invoked_subcommand} runs in one process; torchrun is for {', '.join(SHARED)}"
        )


def _flowing(paragraphs: str) -> str:
    """Join the lines of each paragraph but examples, which are indented: a terminal breaks them anew."""
    parts = inspect.cleandoc(paragraphs).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else part.replace("\n", " ") for part in parts)


for module in (
    demo,
    train,
    sweep,
    evaluate,
    baselines,
    surface,
    path,
    hessian,
    sharpness,
    bound,
    compare,
    report,
    export,
):
    app.command(name=module.__name__.rpartition(".")[2])(module.command)


app.add_typer(data.app, name="data")
for registered in (*app.registered_commands, *data.app.registered_commands):
    registered.help = _flowing((registered.callback and registered.callback.__doc__) or "")


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    # GNU OpenMP's threads spin 300,000 times before they sleep. Two trainings on two cores then take a
    # hundred times as long (150 s an epoch of Beauty); at 2,000 times, 3.9 s, and 1.3 s alone, as before.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    warnings.showwarning = _one_line
    try:
        app()
    except SystemExit as ended:
        if parallel.parted():  # a normal exit aborts now and then, in the threads of torch
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else 0)
        raise
    except InputError as error:
        complain(str(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone: `landscape … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that went away
        complain(f"{error.strerror or error}: {error.filename or 'output'}")
        sys.exit(2)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    if parallel.ranks().first:
        print(f"landscape: warning: {printable(str(message))}", file=sys.stderr)

"""Options that several of samrec's commands share."""

import csv
from typing import Annotated, Any, Literal, get_args

import typer

from landscape.errors import InputError
from landscape.runtime.ranks import ranks


def _among_ranks(asked: bool) -> bool:
    if asked and ranks().size == 1:
        raise InputError("--shard-items splits the items among the processes of torchrun, but there is one")
    return asked


ShardItems = Annotated[
    bool,
    typer.Option(
        "--shard-items",
        callback=_among_ranks,
        help="Split the item table by rows among the processes of torchrun.",
    ),
]
MaxMemory = Annotated[
    float | None,
    typer.Option(min=0, metavar="GIB", help="Maximum memory of a run (default: all that is free)."),
]
Part = Annotated[Literal["valid", "test"], typer.Option(help="Held-out items to rank.")]


def listed(text: str) -> list[str]:
    """Return values that stand between commas; one that holds a comma stands in quotes."""
    return [one.strip() for row in csv.reader([text], skipinitialspace=True) for one in row]


def some_of(choices: Any, said: str) -> Any:
    """Return a repeatable option whose values are those of a `Literal`; Typer has no lists of choices."""
    names = get_args(choices)

    def checked(given: list[str] | None) -> list[str]:
        for one in given or ():
            if one not in names:
                raise typer.BadParameter(f"{one!r} is not one of {', '.join(map(repr, names))}.")
        return list(dict.fromkeys(given or ()))

    return typer.Option(callback=checked, metavar="|".join(names), help=f"{said} (repeatable).")

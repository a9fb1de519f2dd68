"""Pages that are made from the code, so that they cannot differ from it: commands, names, pictures."""

import ast
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup


def commands(_: Path) -> str:
    """Return the reference of all commands, from their own declarations."""
    from landscape.cli.app import app

    context = typer.main.get_command(app).make_context("landscape", [], resilient_parsing=True)
    return "\n\n".join(["# Commands", *_sections(context, "landscape")])


def _sections(context: Any, name: str) -> Iterator[str]:
    """Yield the parts of the reference of a context's command, and those of its subcommands."""
    command = context.command
    yield from [f"## {name}"] if " " in name else []
    yield from _paragraphs(command.help or "")
    if command.params:
        yield "\n".join(["| | | default |", "|---|---|---|", *(_row(p, context) for p in command.params)])
    for below in command.list_commands(context) if isinstance(command, TyperGroup) else ():
        subcommand = command.get_command(context, below)
        called = subcommand.make_context(below, [], parent=context, resilient_parsing=True)
        yield from _sections(called, f"{name} {below}")


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs; examples, which are indented, as one block of code."""
    for is_example, parts in groupby(text.split("\n\n"), key=lambda part: part.startswith(" ")):
        lines = [part.strip() for part in parts]
        yield from ["```sh\n" + "\n".join(lines) + "\n```"] if is_example else lines


def _row(parameter: Any, context: Any) -> str:
    """Return the line of an option or argument: how it is written, what it means, and its default."""
    written = "` / `".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        written = parameter.name.upper()
    elif not parameter.is_flag:
        written += f" {parameter.display_type(context)}"
    default = "required" if parameter.required else _default(parameter.default)
    return f"| `{_cell(written)}` | {_cell(parameter.help or '')} | {default} |"


def _default(value: Any) -> str:
    return "" if value is None or value is False or value == [] else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def names(package: str) -> Callable[[Path], str]:
    """Return what makes the reference of a package's public names, from their docstrings."""

    def page(_: Path) -> str:
        module = import_module(package)
        homes = {name: getattr(module, name).__module__.split(".")[1] for name in module.__all__}
        parts = [f"# {package}", (module.__doc__ or "").strip()]
        for home, public in groupby(
            sorted(homes, key=lambda name: (homes[name], name)), key=homes.__getitem__
        ):
            parts += [f"## {home}", *(f"::: {package}.{name}" for name in public)]
        return "\n\n".join(parts)

    return page


def gallery(root: Path) -> str:
    """Return all pictures, each below what the module that draws it says of it."""
    parts = ["# Gallery", *_pictures(root, "The study", "figures", "figures/gallery")]
    return "\n\n".join([*parts, *_pictures(root, "Examples", "examples", "examples/pictures")])


def _pictures(root: Path, title: str, code: str, folder: str) -> Iterator[str]:
    """Yield a section with the pictures of a folder; the longest name that begins a picture's made it."""
    modules = sorted((path.stem for path in root.glob(f"{code}/*.py")), key=len)
    pictures = sorted(root.glob(f"{folder}/*.png"))
    yield from [f"## {title}"] if pictures else []
    for picture in pictures:
        made_by = [name for name in modules if picture.stem.startswith(name)]
        said = _summary(root / code / f"{made_by[-1]}.py") if made_by else ""
        yield f"### {picture.stem}\n\n{said}\n\n![{picture.stem}](../{folder}/{picture.name})"


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]


GENERATED: Mapping[str, Callable[[Path], str]] = {
    "docs/commands.md": commands,
    "docs/landscape.md": names("landscape"),
    "docs/samrec.md": names("samrec"),
    "docs/gallery.md": gallery,
}
"""Their places in the tree, and what makes them of the repository at a root."""

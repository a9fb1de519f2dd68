"""Pages that are made from the code, so that they cannot differ from it: commands, names, pictures."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

WHOLE = {"plots": "landscape.plots", "samrec": "samrec"}
"""Packages that have one page in the API."""


def generated(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the place in the tree and the text of each page that is made from the repository at a root."""
    yield "docs/commands.md", commands()
    yield "docs/api/index.md", overview()
    for page, names in modules().items():
        yield f"docs/api/{page}.md", api(page, names)
    yield "docs/gallery.md", gallery(root)


def commands() -> str:
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


def modules() -> Mapping[str, list[str]]:
    """Return the full names of the public functions and classes on each page of the API."""
    pages: dict[str, list[str]] = {}
    for name in sorted(_functions_and_classes("landscape")):
        home = _public(name).__module__.split(".")[1]
        pages.setdefault(home, []).append(name)
    return pages | {page: _functions_and_classes(package) for page, package in WHOLE.items()}


def _functions_and_classes(package: str) -> list[str]:
    names = (f"{package}.{name}" for name in import_module(package).__all__)
    return [name for name in names if callable(_public(name))]


def _public(name: str) -> Any:
    package, _, last = name.rpartition(".")
    return getattr(import_module(package), last)


def overview() -> str:
    """Return a table of all public names, module by module."""
    parts = ["# API", "Every public function and class, with a link to its description."]
    for page, names in modules().items():
        parts += [f"## [{_title(page)}]({page}.md)", _summaries(names)]
    return "\n\n".join(parts)


def api(page: str, names: list[str]) -> str:
    """Return the reference of a module's public names: a table of them, then their docstrings."""
    said = import_module(_title(page)).__doc__ or ""
    return "\n\n".join([f"# {_title(page)}", said.strip(), _summaries(names), *(f"::: {n}" for n in names)])


def _title(page: str) -> str:
    return WHOLE.get(page, f"landscape.{page}")


def _summaries(names: list[str]) -> str:
    said = {name: (inspect.getdoc(_public(name)) or "").split("\n\n")[0] for name in names}
    return "\n".join(
        ["| name | |", "|---|---|", *(f"| [`{name}`][{name}] | {_cell(said[name])} |" for name in names)]
    )


def gallery(root: Path) -> str:
    """Return all pictures, each with what the module that draws it says of it, and its code."""
    parts = ["# Gallery", *_pictures(root, "Examples", "examples", "examples/pictures")]
    return "\n\n".join([*parts, *_pictures(root, "The study", "figures", "figures/gallery")])


def _pictures(root: Path, title: str, code: str, folder: str) -> Iterator[str]:
    """Yield a section with the pictures of a folder; the longest name that begins a picture's made it."""
    modules = sorted((path.stem for path in root.glob(f"{code}/*.py")), key=len, reverse=True)
    pictures = sorted(root.glob(f"{folder}/*.png"))
    yield from [f"## {title}"] if pictures else []
    for module, drawn in groupby(pictures, key=lambda p: next(m for m in modules if p.stem.startswith(m))):
        shown = "\n\n".join(f"![{picture.stem}](../{folder}/{picture.name})" for picture in drawn)
        source = (root / code / f"{module}.py").read_text("utf-8")
        said = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
        listing = f'````python title="{code}/{module}.py"\n{source}````'
        parts = [f"### {module}", said, '<div class="beside" markdown>', shown, listing, "</div>"]
        yield "\n\n".join(parts)

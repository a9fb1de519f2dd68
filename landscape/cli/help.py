"""The help of one command: whole names, whole words, and examples that can be copied, in any terminal."""

import re
import shutil
from itertools import groupby
from typing import Any

NAMES = 22
"""Widest name of an option beside which its text begins; that of a longer one begins on the next line."""
INDENT = "   "
WIDEST = 80


def write_help(command: Any, context: Any, formatter: Any) -> None:
    """Write a command's usage, what it does, its examples, and its options by panel.

    Args:
        command: one of typer's.
        context: its context.
        formatter: click's `HelpFormatter`, or that of the click inside newer versions of typer.
    """
    formatter.width = min(shutil.get_terminal_size().columns, WIDEST) - 2  # click's has at least 50
    command.format_usage(context, formatter)
    for example, paragraphs in groupby((command.help or "").split("\n\n"), lambda p: p.startswith(" ")):
        formatter.write_paragraph()
        for number, paragraph in enumerate(paragraphs):
            if example:
                formatter.write(_broken(paragraph.strip(), formatter.width))
                continue
            if number:
                formatter.write_paragraph()
            formatter.write_text(paragraph)
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        if found := parameter.get_help_record(context):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or usual
            panels.setdefault(panel, []).append((_named(found[0]), _explained(found[1])))
    for title, rows in panels.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows, col_max=NAMES)


def _named(names: str) -> str:
    """Write the value of an option as one of it: what may be repeated says so, and a range stands behind."""
    return re.sub(r"<list\[(\w+)\]>", lambda one: f"<{one[1].lower()}>", names).replace(" range>", ">")


def _explained(text: str) -> str:
    """Leave out the upper end of a range that is there to refuse nonsense alone."""
    return re.sub(r"(\d+)<=x<=\d{7,}", r"x>=\1", text)


def _broken(example: str, width: int) -> str:
    """Return the lines of an example for a shell, broken before an option where it is longer than a line."""
    lines = [INDENT]
    for part in re.split(r" (?=--\w)", example):
        if len(lines[-1]) + len(part) + 3 > width and lines[-1].strip():
            lines[-1] += " \\"
            lines.append(2 * INDENT)
        lines[-1] += part if lines[-1].isspace() else f" {part}"
    return "\n".join(lines) + "\n"

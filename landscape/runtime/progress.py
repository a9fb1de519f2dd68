"""Progress on standard error: one line on a terminal or in a notebook, a line every 30 s elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from landscape.errors import printable
from landscape.runtime.ranks import ranks

WIDTH = 79
PLAIN, NOTEBOOK = 30.0, 1.0
"""Seconds between two lines in a file, and between two changes of the line in a notebook."""
_state: dict[str, Any] = {"quiet": False, "stage": ""}


def hush(quiet: bool) -> None:
    """Show no progress from now on, or show it again."""
    _state["quiet"] = quiet


@contextmanager
def hushed() -> Iterator[None]:
    """Show no progress within the block."""
    before = _state["quiet"]
    _state["quiet"] = True
    try:
        yield
    finally:
        _state["quiet"] = before


@contextmanager
def stage(name: str, number: int, count: int) -> Iterator[None]:
    """Put `name, number of count` in front of the labels of all bars within the block."""
    before = _state["stage"]
    _state["stage"] = f"{name}, {number} of {count}: " if count > 1 else f"{name}: "
    try:
        yield
    finally:
        _state["stage"] = before


@contextmanager
def bar(label: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar of `total` steps while the block runs; call what is given once a step.

    It may be given a short text, which stays beside the bar until the next: `advance("loss 0.31")`; or,
    instead of a step, a new forecast of the total: `advance(total=120)`.
    """
    said = printable(_state["stage"] + label)
    if _state["quiet"] or not ranks().first:
        yield lambda text="", *, total=None: None
    elif sys.stderr.isatty():
        with _rich(said, total, done) as advance:
            yield advance
    else:
        line = _Line(said, total, done, in_notebook=_in_notebook())
        try:
            yield line.advance
        finally:
            line.close()


@contextmanager
def _rich(label: str, total: int, done: int) -> Iterator[Callable[..., None]]:
    """Show a bar on one line of a terminal, which goes away at the end."""
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    def cut(share: int) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", ratio=share)

    columns = (
        progress.TextColumn("{task.description}", markup=False, table_column=cut(3)),
        progress.BarColumn(bar_width=10),
        progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
        progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
        progress.TextColumn("left", table_column=Column(no_wrap=True)),
        progress.TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        progress.TextColumn("{task.fields[text]}", markup=False, table_column=cut(2)),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True, expand=True) as shown:
        task = shown.add_task(label, total=total, completed=done, text="")

        def advance(text: str = "", *, total: int | None = None) -> None:
            if total is not None:
                shown.update(task, total=total)
                return
            shown.update(task, advance=1)
            if text:
                shown.update(task, text=printable(text))

        yield advance


class _Line:
    """Progress where no bar can move: a line now and then, in a notebook over the one before."""

    def __init__(self, label: str, total: int, done: int, in_notebook: bool) -> None:
        self.label, self.total, self.done, self.text = label, total, done, ""
        self.began = self.shown = time.monotonic()
        self.skipped, self.written = done, False
        self.over = in_notebook
        self.every = NOTEBOOK if in_notebook else PLAIN

    def advance(self, text: str = "", *, total: int | None = None) -> None:
        if total is not None:
            self.total = total
            return
        self.done, self.text = self.done + 1, printable(text) or self.text
        now = time.monotonic()
        if now - self.shown >= self.every:
            self.shown, self.written = now, True
            self._write(self._said(now - self.began))

    def close(self) -> None:
        if self.over and self.written:
            self._write("")

    def _said(self, seconds: float) -> str:
        left = seconds / (self.done - self.skipped) * max(0, self.total - self.done)
        parts = (f"{self.label} {self.done}/{self.total}", _clock(seconds), f"{_clock(left)} left", self.text)
        return " · ".join(part for part in parts if part)

    def _write(self, said: str) -> None:
        out: TextIO = sys.stdout if self.over else sys.stderr
        out.write(f"\r{said[:WIDTH]:{WIDTH}}\r" if self.over else f"landscape: {said}\n")
        out.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, which shows what is written over a line."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None

"""Progress on standard error: one line on a terminal or in a notebook, a line every 30 s elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from landscape.errors import printable, shortened
from landscape.runtime.ranks import ranks

WIDTH = 79
NARROW = 72
"""Columns of a terminal below which the bar and the time that has passed are left out."""
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
def bar(label: str, total: int | None, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar of `total` steps while the block runs; call what is given once a step.

    Where `total` is None, because it is not known, the steps are counted.

    It may be given a short text, which stays beside the bar until the next: `advance("loss 0.31")`; or,
    instead of a step, a new forecast of the total: `advance(total=120)`.
    """
    place, label = printable(_state["stage"]), printable(label)
    if _state["quiet"] or not ranks().first:
        yield lambda text="", *, total=None: None
    elif sys.stderr.isatty():
        with _rich(place, label, total, done) as advance:
            yield advance
    else:
        line = _Line(place + label, total, done, in_notebook=_in_notebook())
        try:
            yield line.advance
        finally:
            line.close()


@contextmanager
def _rich(place: str, label: str, total: int | None, done: int) -> Iterator[Callable[..., None]]:
    """Show a bar on one line of a terminal, which goes away at the end."""
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    def text(of: str, share: int) -> progress.TextColumn:
        column = Column(no_wrap=True, overflow="ellipsis", ratio=share)
        return progress.TextColumn(of, markup=False, table_column=column)

    whole, console = Column(no_wrap=True), Console(stderr=True)
    counts = progress.MofNCompleteColumn(table_column=whole)
    left = progress.TimeRemainingColumn(compact=True, table_column=whole)
    room = console.width - 2 * len(str(total)) - 12  # beside counts and the time that is left
    columns: tuple[progress.ProgressColumn, ...]
    if console.width < NARROW:
        columns = text("{task.description} {task.fields[text]}", 1), counts, left
    else:
        elapsed, said = progress.TimeElapsedColumn(table_column=whole), progress.TextColumn("left")
        shown_last = text("{task.fields[text]}", 2)
        bar_column = progress.BarColumn(bar_width=10)
        columns = text("{task.description}", 3), bar_column, counts, elapsed, said, left, shown_last
        room = (room - 26) * 3 // 5
    label = _fitting(place, room - len(label)) + label
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


def _fitting(place: str, room: int) -> str:
    """Return where a bar is, cut in the middle where there is little room, or nothing where there is none."""
    kept = place.removesuffix(": ")
    return place if len(place) <= room else f"{shortened(kept, room - 2)}: " if room >= 10 else ""


class _Line:
    """Progress where no bar can move: a line now and then, in a notebook over the one before."""

    def __init__(self, label: str, total: int | None, done: int, in_notebook: bool) -> None:
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
        count, left = f"{self.done:,}", ""
        if self.total is not None:
            rest = seconds / (self.done - self.skipped) * max(0, self.total - self.done)
            count, left = f"{self.done}/{self.total}", f"{_clock(rest)} left"
        parts = (f"{self.label} {count}", _clock(seconds), left, self.text)
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

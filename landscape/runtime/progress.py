"""Progress bars: on a terminal, on standard error, of the first rank, and nowhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from landscape.errors import printable
from landscape.runtime.ranks import ranks


@contextmanager
def bar(label: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar of `total` steps while the block runs; call what is given once a step.

    It may be given a short text, which stays beside the bar until the next: `advance("loss 0.31")`.
    """
    if not (sys.stderr.isatty() and ranks().first):
        yield lambda text="": None
        return

    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[text]}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(printable(label), total=total, completed=done, text="")

        def advance(text: str = "") -> None:
            shown.update(task, advance=1)
            if text:
                shown.update(task, text=printable(text))

        yield advance

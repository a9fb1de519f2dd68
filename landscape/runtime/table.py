"""A titled table of text: as a terminal, a notebook and a `repr` show it."""

import html
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from landscape.errors import printable

FRAME = 3
"""Characters that a column takes beside its text: a space on either side, and what divides columns."""


def metric_name(metric: str) -> str:
    """Return a metric's name as people read it: MRR for mrr, P@5 for p@5, valid loss for valid-loss."""
    words = metric.replace("-", " ").split(" ")
    return " ".join(word.upper() if "@" in word or word == "mrr" else word for word in words)


class Table:
    """A titled table of text; without columns, its title alone.

    Args:
        title: a line or more above the table.
        columns: their heads.
        rows: one text per column.
        labels: the number of columns, from the left, that together name a row.
    """

    def __init__(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], labels: int = 1
    ) -> None:
        self.title, self.columns, self.rows, self.labels = title, columns, rows, labels

    def rich(self, width: int) -> Iterator[Any]:
        """Yield what rich prints in a terminal of `width` characters.

        What is too wide becomes several tables, one below the other, which all have the labels: no
        cell is broken, unless a single column does not fit.
        """
        from rich import box
        from rich.table import Table as RichTable

        if self.title:
            yield text(self.title)
        for chosen in self._parts(width):
            table = RichTable(box=box.SIMPLE_HEAD, show_header=any(self.columns))
            for index in chosen:
                table.add_column(text(self.columns[index]), justify=self._side(index), overflow="fold")
            for row in self.rows:
                table.add_row(*(text(row[index]) for index in chosen))
            yield table

    def html(self) -> str:
        """Return the table as HTML, every character of its text escaped."""
        title = f"<p>{_escaped(self.title)}</p>" if self.title else ""
        if not self.columns:
            return title
        head = f"<thead>{self._row('th', self.columns)}</thead>" if any(self.columns) else ""
        body = "".join(self._row("td", row) for row in self.rows)
        return f"{title}<table>{head}<tbody>{body}</tbody></table>"

    def phrases(self) -> Iterator[str]:
        """Yield what the table says, a phrase per number, or per row where a row has several."""
        if len(self.rows) == 1:
            (row,) = self.rows
            yield from (
                f"{name} {cell}".strip() for name, cell in zip(self.columns, row, strict=True) if cell
            )
            return
        for row in self.rows:
            label = " ".join(cell.strip() for cell in row[: self.labels])
            cells = row[self.labels :]
            if len(cells) == 1:
                yield f"{label} {cells[0]}"
            else:
                said = zip(self.columns[self.labels :], cells, strict=True)
                yield f"{label}: {', '.join(f'{name} {cell}' for name, cell in said if cell)}"

    def _side(self, index: int) -> Literal["left", "right"]:
        return "left" if index < self.labels else "right"

    def _row(self, tag: str, cells: Sequence[str]) -> str:
        """Return a row of HTML: labels stand to the left and numbers to the right, whatever the page says."""
        parts = (
            f'<{tag} style="text-align: {self._side(index)}">{_escaped(cell)}</{tag}>'
            for index, cell in enumerate(cells)
        )
        return f"<tr>{''.join(parts)}</tr>"

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Yield the columns that stand side by side: the labels, and as many as there is room for."""
        from rich.cells import cell_len

        sizes = [
            FRAME + max(cell_len(line) for cell in column for line in cell.split("\n") or [""])
            for column in zip(self.columns, *self.rows, strict=True)
        ]
        labels = list(range(min(self.labels, len(sizes))))
        chosen = labels
        for index, size in enumerate(sizes[self.labels :], start=self.labels):
            if len(chosen) > self.labels and 1 + sum(sizes[i] for i in chosen) + size > width:
                yield chosen
                chosen = labels
            chosen = [*chosen, index]
        if chosen:
            yield chosen


def text(plain: str) -> Any:
    """Return text that rich prints literally: no markup, no emoji names, no control characters."""
    from rich.text import Text

    return Text("\n".join(map(printable, plain.split("\n"))))


def _escaped(plain: str) -> str:
    return "<br>".join(html.escape(printable(line)) for line in plain.split("\n"))

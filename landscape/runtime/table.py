"""A titled table of text: as a terminal, a notebook and a `repr` show it."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

from landscape.errors import printable

FRAME = 3
"""Characters that a column takes beside its text: a space on either side, and what divides columns."""


class Table:
    """A titled table of text; without columns, its title alone.

    Args:
        title: a line or more above the table.
        columns: their heads; the first column holds the labels of the rows.
        rows: one text per column.
    """

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title, self.columns, self.rows = title, columns, rows

    def rich(self, width: int) -> Iterator[Any]:
        """Yield what rich prints in a terminal of `width` characters.

        What is too wide becomes several tables, one below the other, which all have the first column: no
        cell is broken, unless a single column does not fit.
        """
        from rich import box
        from rich.table import Table as RichTable

        if self.title:
            yield text(self.title)
        for chosen in self._parts(width):
            table = RichTable(box=box.SIMPLE_HEAD, show_header=any(self.columns))
            for index in chosen:
                table.add_column(
                    text(self.columns[index]), justify="right" if index else "left", overflow="fold"
                )
            for row in self.rows:
                table.add_row(*(text(row[index]) for index in chosen))
            yield table

    def html(self) -> str:
        """Return the table as HTML, every character of its text escaped."""
        title = f"<p>{_escaped(self.title)}</p>" if self.title else ""
        if not self.columns:
            return title
        head = f"<thead>{_row('th', self.columns)}</thead>" if any(self.columns) else ""
        return f"{title}<table>{head}<tbody>{''.join(_row('td', row) for row in self.rows)}</tbody></table>"

    def phrases(self) -> Iterator[str]:
        """Yield what the table says, a phrase per number, or per row where a row has several."""
        if len(self.rows) == 1:
            (row,) = self.rows
            yield from (
                f"{name} {cell}".strip() for name, cell in zip(self.columns, row, strict=True) if cell
            )
            return
        for label, *cells in self.rows:
            if len(cells) == 1:
                yield f"{label.strip()} {cells[0]}"
            else:
                said = zip(self.columns[1:], cells, strict=True)
                yield f"{label.strip()}: {', '.join(f'{name} {cell}' for name, cell in said if cell)}"

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Yield the columns that stand side by side: the first, and as many as there is room for."""
        from rich.cells import cell_len

        sizes = [
            FRAME + max(cell_len(line) for cell in column for line in cell.split("\n") or [""])
            for column in zip(self.columns, *self.rows, strict=True)
        ]
        chosen = [0] if sizes else []
        for index, size in enumerate(sizes[1:], start=1):
            if len(chosen) > 1 and 1 + sum(sizes[i] for i in chosen) + size > width:
                yield chosen
                chosen = [0]
            chosen.append(index)
        if chosen:
            yield chosen


def text(plain: str) -> Any:
    """Return text that rich prints literally: no markup, no emoji names, no control characters."""
    from rich.text import Text

    return Text("\n".join(map(printable, plain.split("\n"))))


def _row(tag: str, cells: Sequence[str]) -> str:
    """Return a row of HTML: labels stand to the left and numbers to the right, whatever the page says."""
    styles = (f' style="text-align: {side}"' for side in ("left", *["right"] * (len(cells) - 1)))
    parts = (f"<{tag}{style}>{_escaped(cell)}</{tag}>" for style, cell in zip(styles, cells, strict=True))
    return f"<tr>{''.join(parts)}</tr>"


def _escaped(plain: str) -> str:
    return "<br>".join(html.escape(printable(line)) for line in plain.split("\n"))

"""Sums over rows of a table, in the same order in every run."""

from torch import Tensor


def add_rows(table: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """Add `values`, shape (K, d), to these rows of a table, in place, and return it; a row may come again.

    On a GPU `index_add_` adds in any order, so that equal runs would differ; `index_put_` sorts first.
    """
    if table.device.type == "cpu":
        return table.index_add_(0, rows, values)
    return table.index_put_((rows,), values, accumulate=True)

"""What a data set looks like, in a dozen numbers."""

from typing import Any

import numpy as np

from samrec.data.interactions import Interactions

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


def describe(interactions: Interactions) -> dict[str, Any]:
    """Return counts, density (the share of all user–item pairs that occur), lengths, repeats and ties.

    `repeats` is the share of interactions with an item that the user has had; `time_ties` that of
    interactions at the same time as the user's one before, whose order is an accident of the file, or
    None where the file has no times. What the reader understood comes first: the columns, what orders the
    interactions, how many rows the file has, which were left out and why, and the first rows of a table.
    """
    total = len(interactions.items)
    pairs = len(np.unique(interactions.users * interactions.num_items + interactions.items))
    lengths = interactions.lengths
    return _understood(interactions) | {
        "users": interactions.num_users,
        "items": interactions.num_items,
        "interactions": total,
        "density": pairs / (interactions.num_users * interactions.num_items),
        "repeats": 1 - pairs / total,
        "time_ties": None if interactions.ties is None else interactions.ties / total,
        "users_with_fewer_than_three": int((lengths < 3).sum()),
        "lengths": {name: float(np.quantile(lengths, q)) for name, q in QUANTILES.items()},
        "sha256": interactions.digest,
    }


def _understood(interactions: Interactions) -> dict[str, Any]:
    if (understood := interactions.understood) is None:
        return {}
    found = {
        "format": understood.format,
        "columns": dict(understood.columns),
        "order": understood.order,
        "rows": understood.rows,
        "left_out": dict(understood.left_out),
        "first_rows": [list(row) for row in understood.first_rows],
    }
    return {name: value for name, value in found.items() if value or name not in ("columns", "first_rows")}

"""Ids of users and items beside the rows that stand for them: to be looked up, and kept with a model."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.errors import InputError
from samrec.data.interactions import Ints

Ids = NDArray[Any]
"""Whole numbers, or text."""


def rows_of(ids: Ids, wanted: Iterable[object], what: str) -> Ints:
    """Return the rows of these ids, given as numbers or as text. Shape (wanted,).

    Args:
        ids: of each row, all different.
        wanted: what to look for.
        what: the ids are of, such as `item`, for the error.

    Raises:
        InputError: one is not among them.
    """
    row_of = {str(known): row for row, known in enumerate(ids.tolist())}
    found = []
    for one in wanted:
        if (row := row_of.get(str(one))) is None:
            raise InputError(f"no {what} has the id {str(one)!r} in the data; write ids as in the data")
        found.append(row)
    return np.array(found, np.int64)


def to_tensor(ids: Ids) -> Tensor:
    """Return ids as a checkpoint keeps them: whole numbers as int64, text as the bytes of a JSON array."""
    if ids.dtype.kind == "i":
        return torch.from_numpy(ids.astype(np.int64))
    return torch.from_numpy(np.frombuffer(json.dumps(ids.tolist()).encode(), np.uint8).copy())


def from_tensor(kept: Tensor, count: int) -> Ids:
    """Return the ids that `to_tensor` made a tensor of.

    Raises:
        InputError: they are not `count` different numbers or texts.
    """
    ids: Ids = kept.numpy()
    try:
        if kept.dtype == torch.uint8:
            texts = json.loads(ids.tobytes())
            ids = np.array(texts, str) if all(isinstance(text, str) for text in texts) else ids
    except (TypeError, ValueError, RecursionError):
        raise InputError("the checkpoint's item ids are damaged") from None
    if ids.dtype.kind not in "iU" or ids.shape != (count,) or len(np.unique(ids)) != count:
        raise InputError(f"the checkpoint's item ids are damaged: expected {count} different ones")
    return ids

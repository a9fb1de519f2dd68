"""A symmetric matrix as the solvers know it: by its products with vectors."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class LinearOperator(Protocol):
    """A symmetric matrix A, known by its products. The solvers need nothing else."""

    @property
    def shape(self) -> Sequence[int]:
        """(n, n)."""

    @property
    def dtype(self) -> Any:
        """The type of the vectors, torch's or NumPy's."""

    @property
    def device(self) -> torch.device:
        """The device of the vectors."""

    def __call__(self, vector: Tensor, /) -> Tensor:
        """Return A v, shape (n,)."""


def vector_of(operator: LinearOperator) -> Tensor:
    """Return a vector of the kind that the operator takes, shape (n,): one number, n times."""
    like: Tensor | None = getattr(operator, "like", None)
    if like is not None:
        return like
    dtype = operator.dtype
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(torch, np.dtype(dtype).name)
    return torch.zeros(1, dtype=dtype, device=operator.device).expand(operator.shape[0])

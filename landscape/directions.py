"""Where to look from a minimum."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.params import ParamSpace

Normalization = Literal["filter", "layer", "none"]


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in parameter space, and how it came about.

    Attributes:
        vector: shape (numel,); a step of 1 along the axis adds it once.
        kind: `random`, or the name of what it was taken from.
        seed, normalization: of a random direction; None elsewhere.
    """

    vector: Tensor
    kind: str
    seed: int | None = None
    normalization: Normalization | None = None

    def provenance(self) -> dict[str, Any]:
        """Return everything but the vector, and its Euclidean norm."""
        kept = {**asdict(self), "vector": None}
        del kept["vector"]
        return {**kept, "norm": float(self.vector.double().norm())}


def random_direction(
    params: ParamSpace, seed: int = 0, normalization: Normalization = "filter", index: int = 0
) -> Direction:
    """Draw a Gaussian direction and scale it as the weights are scaled.

    `filter` gives every filter of the direction the norm of the same filter of θ (Li et al., "Visualizing
    the Loss Landscape of Neural Nets", NeurIPS 2018, section 4); `layer` does so tensor by tensor; `none`
    leaves the draw. With `filter` and `layer`, what has no filters (biases, norms) stands still, as there.

    The draw is made on the CPU, so a seed means the same direction on every device. `index` numbers
    independent directions of one seed.

    Raises:
        InputError: nothing would move.
    """
    drawn = np.random.default_rng((seed, index)).standard_normal(params.numel)
    direction = torch.from_numpy(drawn).to(params.theta)
    if normalization != "none":
        theta = params.split(params.theta)
        parts = params.split(direction)
        scaled = {}
        for entry in params.entries:
            d, w = parts[entry.name], theta[entry.name]
            if entry.filter_axis is None:
                scaled[entry.name] = torch.zeros_like(d)
                continue
            kept = (entry.filter_axis,) if normalization == "filter" else ()
            over = tuple(axis for axis in range(d.dim()) if axis not in kept)
            scaled[entry.name] = d * (_norm(w, over) / _norm(d, over))
        direction = params.join(scaled)
        if not direction.any():
            raise InputError("no filter moves: all that takes part are biases, norms or zeros")
    return Direction(direction, "random", seed, normalization)


def cosine(a: Direction, b: Direction) -> float:
    """Return the cosine between two directions; of two random ones it is reported, never forced to 0.

    Making them orthogonal after normalizing would undo the normalization.
    """
    u, v = a.vector.double(), b.vector.double()
    return float(u @ v / (u.norm() * v.norm()))


def _norm(tensor: Tensor, over: tuple[int, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=over, keepdim=True)
    return norm

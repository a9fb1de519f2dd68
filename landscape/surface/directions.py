"""Directions in parameter space: random, between points, principal components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.params import ParamSpace
from landscape.objective.shards import share_of, whole
from landscape.runtime.arguments import CountOrZero, Seed, checks_arguments
from landscape.storage.display import Brief

Normalization = Literal["filter", "layer", "none"]
PIECE = 2**20  # coordinates of points that are taken in float64 at once


@dataclass(frozen=True, eq=False, repr=False)
class Direction(Brief):
    """A direction in parameter space, and where it came from.

    Attributes:
        vector: shape (numel,); a step of 1 along the axis adds it once.
        kind: `random`, or the name of its source.
        seed, normalization: how a random direction was drawn; None for others.
        details: further facts for results (an eigenvalue, a share of variance), in types of JSON.
    """

    vector: Tensor
    kind: str
    seed: int | None = None
    normalization: Normalization | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.vector, Tensor):  # of a model's parameters, it may have a graph
            object.__setattr__(self, "vector", self.vector.detach())

    def provenance(self) -> dict[str, Any]:
        """Return everything but the vector, and its Euclidean norm."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "normalization": self.normalization,
            **self.details,
            "norm": float(self.vector.double().norm()),
        }


@checks_arguments
def random_direction(
    params: ParamSpace,
    seed: Seed = 0,
    normalization: Normalization = "filter",
    index: CountOrZero = 0,
    biases: bool = False,
) -> Direction:
    """Draw a Gaussian direction and scale it as the weights are scaled.

    `filter` gives every filter of the direction the norm of the same filter of θ (Li et al., "Visualizing
    the Loss Landscape of Neural Nets", NeurIPS 2018, section 4); `layer` does so tensor by tensor; `none`
    leaves the draw as it is. Tensors without filters (biases, norms) are fixed, as in that paper, unless
    `biases`; then each such tensor counts as one filter.

    The draw is made on the CPU, so a seed means the same direction on every device. `index` numbers
    independent directions of one seed.

    Args:
        params: the parameters that move, with their weights.
        seed, index: which draw.
        normalization: scale each `filter` or each `layer` to the norm of the weights, or `none`.
        biases: also move biases and the weights of norms.

    Returns:
        The direction, its vector of shape (numel,) and in units of the weights.

    Raises:
        InputError: nothing would move, or `params` is not a `ParamSpace`.
    """
    if not isinstance(params, ParamSpace):
        raise InputError(
            f"expected the params of an objective, not {type(params).__name__}: objective.params"
        )
    rng, theta = np.random.default_rng((seed, index)), params.split(params.theta)
    scaled = {}
    for entry in params.entries:
        part = theta[entry.name]
        w = whole(part)  # one tensor after another, also of a sharded model
        d = torch.from_numpy(rng.standard_normal(entry.shape.numel())).to(w).view(entry.shape)
        if entry.filter_axis is None and not biases:
            scaled[entry.name] = torch.zeros_like(d)
        elif normalization == "none":
            scaled[entry.name] = d
        else:
            d, w = entry.blocked(d), entry.blocked(w)
            counting = entry.counting if normalization == "filter" else ()
            over = tuple(axis for axis in range(d.dim()) if axis not in counting)
            scaled[entry.name] = d * (_norm(w, over) / _norm(d, over)).to(d)
        scaled[entry.name] = share_of(scaled[entry.name], part)
    direction = params.join(scaled)
    if not direction.any():
        more = "" if biases else "; biases=True (landscape surface --biases) moves biases and norms"
        raise InputError(f"no filter moves: only biases, norms or zeros take part{more}")
    return Direction(direction, "random", seed, normalization, {"biases": biases})


def need_directions(directions: Sequence[Direction], theta: Tensor) -> None:
    """Refuse what is not a list of directions to go from θ.

    Raises:
        InputError: something in it is no `Direction`; a vector is not of θ's shape, of real numbers and on
            its device; or it is zero or not finite.
    """
    for vector in (direction.vector for direction in directions):
        if not isinstance(vector, Tensor) or (vector.shape, vector.device) != (theta.shape, theta.device):
            found = f"of {tuple(vector.shape)} on {vector.device}" if isinstance(vector, Tensor) else "none"
            raise InputError(
                f"the vector of a direction is {found}; it must be a tensor like objective.theta, of "
                f"{tuple(theta.shape)} on {theta.device}"
            )
        if vector.dtype.is_complex or not 0 < float(vector.detach().double().norm()) < torch.inf:
            raise InputError("the vector of a direction is zero, not finite or complex")


def difference(a: Tensor, b: Tensor) -> Direction:
    """Return the direction from one point to another, both of shape (numel,); a step of 1 reaches it.

    Raises:
        InputError: both are the same point, or their sizes differ.
    """
    if a.shape != b.shape:
        raise InputError(f"points of {a.numel()} and {b.numel()} parameters cannot be subtracted")
    if torch.equal(a, b):
        raise InputError("both checkpoints are the same point; there is no direction between them")
    return Direction(b - a, "difference")


def perpendicular(towards: Direction, given: Direction) -> Direction:
    """Return the part of `towards` that is perpendicular to `given`, scaled to the length of `given`.

    With the two as axes, their plane is drawn without distortion.

    Raises:
        InputError: they are parallel.
    """
    u, v = towards.vector.double(), given.vector.double()
    rest = u - (u @ v) / (v @ v) * v
    if rest.norm() <= 1e-6 * u.norm():
        raise InputError("the points lie on one line, so they do not span a plane")
    return Direction((rest * (v.norm() / rest.norm())).to(given.vector), towards.kind)


def coordinates(step: Tensor, directions: Sequence[Direction]) -> list[float]:
    """Return the steps along the directions that come nearest to a step in θ, by least squares.

    Args:
        step: shape (numel,).
        directions: one or more, linearly independent.

    Raises:
        InputError: there are none, they are not, or are not of the step's size.
    """
    if not directions:
        raise InputError("a step has coordinates along one direction or more; none are given")
    need_directions(directions, step)
    basis = torch.stack([d.vector.double() for d in directions])
    try:
        found: list[float] = torch.linalg.solve(basis @ basis.T, basis @ step.double()).tolist()
    except RuntimeError:  # of a matrix without an inverse
        raise InputError("the directions depend on each other, so a step has many coordinates") from None
    return found


def principal(points: Tensor) -> list[Direction]:
    """Return the first two principal components of points of shape (n, numel), each of unit norm.

    They are taken about the mean (Li et al. 2018, section 7, and the code of that paper). Each holds its
    share of the variance; the sign makes the largest entry positive, so two runs never mirror each other.

    Raises:
        InputError: the points span fewer than two dimensions, but for what they are rounded.
    """
    gram = points.new_zeros(len(points), len(points), dtype=torch.float64)
    size = 0.0  # of the largest point, squared
    for piece in torch.split(points, PIECE, 1):
        apart = piece.double()
        size += float(apart.square().sum(1).max())
        apart = apart - apart.mean(0)
        gram += apart @ apart.T  # n × n: far smaller than a covariance of parameters
    values, vectors = torch.linalg.eigh(gram)
    rounding = torch.finfo(points.dtype).eps ** 2 * size
    if len(values) <= 2 or values[-2] <= max(1e-10 * float(values[-1]), rounding):
        raise InputError(f"{len(points)} points of the trajectory span fewer than 2 dimensions")
    found = []
    for index in (1, 2):
        shares = vectors[:, -index] - vectors[:, -index].mean()  # of points about their mean
        vector = torch.cat([shares @ piece.double() for piece in torch.split(points, PIECE, 1)])
        vector = vector / vector.norm()
        vector = (vector * vector[vector.abs().argmax()].sign()).to(points)
        share = float(values[-index] / values.sum())
        found.append(Direction(vector, "principal component", details={"explained_variance": share}))
    return found


def cosine(a: Direction, b: Direction) -> float:
    """Return the cosine between two directions.

    Random directions are not made orthogonal: after normalizing, that would undo the normalization.
    """
    u, v = a.vector.double(), b.vector.double()
    return float(u @ v / (u.norm() * v.norm()))


def _norm(tensor: Tensor, over: tuple[int, ...]) -> Tensor:
    """Return the norm over some axes, none of them among others, in float64: sums of float32 lose digits."""
    if not over:  # which torch takes for all axes
        return tensor.abs().double()
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=over, keepdim=True, dtype=torch.float64)
    return norm

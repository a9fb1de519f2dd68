"""Whether a Krylov space has missed copies of a multiple eigenvalue: a short one beside it tells."""

import math

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import AGAIN, Basis, fetched, grams, norms, project_out, random_unit
from landscape.curvature.solver import Counted
from landscape.storage.results import Array

LEAST, SHARE = 8, 0.25  # products: at least so many, and at most this share of those before
DOUBT = 0.05  # probability of a random vector with too little of a copy in it
_SMALL = DOUBT * math.sqrt(math.pi / 2)  # |z| of a standard normal z is less with that probability


def missed(
    operator: Counted,
    basis: Basis,
    most_steps: int,
    top: Array,
    low: Array,
    slack: float,
    rng: np.random.Generator,
) -> tuple[Tensor, bool]:
    """Look for eigenvectors orthogonal to a basis that belong among the found ones.

    A Krylov space of one vector holds one vector of each eigenspace; the others are orthogonal to all of it.
    Lanczos in the space orthogonal to the basis, from a random vector, therefore meets the missing copies
    alone. Only copies that would change the list are looked for: of values above the last of `top`, or below
    the last of `low`. That there are none is concluded when a copy would have shown: of m steps, the
    Chebyshev polynomial on the other values seen amplifies it by T_{m-1} (Saad 1980, "On the Rates of
    Convergence of the Lanczos and the Block-Lanczos Methods"), which must make up for the little of it in a
    random vector.

    Args:
        operator: A; products are counted.
        basis: orthonormal vectors.
        most_steps: number of further vectors that memory holds.
        top, low: the found eigenvalues at each end, the extreme ones first.
        slack: difference of eigenvalues that are taken for one.
        rng: generator of the random vector.

    Returns:
        Ritz vectors beyond the ends of the lists, orthonormal, shape (any, n); and, if there are none,
        whether a copy can be excluded with a confidence of 95%.
    """
    most = float(top[-1]) + slack if len(top) else math.inf
    least = float(low[-1]) - slack if len(low) else -math.inf
    above, below = top[top > most][-1:].tolist(), low[low < least][-1:].tolist()
    none = basis.like.new_empty(0, basis.like.shape[-1])
    room = basis.like.numel() - len(basis)
    if not (above or below) or not room:
        return none, True
    steps = min(room, max(LEAST, min(most_steps, int(SHARE * operator.products))))
    space = basis.another()
    newest = random_unit(basis.like, rng, basis.blocks)
    matrix = np.zeros((steps, steps))
    for m in range(1, steps + 1):
        space.append(newest[None])
        product = operator(newest)
        ahead = project_out(product, basis.blocks, times=1)
        size, rest = fetched(norms(product[None]), norms(ahead[None]))
        if rest < AGAIN * size:
            ahead = project_out(ahead, basis.blocks, times=1)
        along = torch.cat([grams(block, ahead[None])[:, 0] for block in space.blocks])
        left = project_out(ahead, space.blocks)
        column, (length,) = fetched(along, norms(left[None]))
        matrix[:m, m - 1] = matrix[m - 1, :m] = column
        values, coefficients = np.linalg.eigh(matrix[:m, :m])
        beyond = (values > most) | (values < least)
        if beyond.any():
            return project_out(space.combined(coefficients[:, beyond]), basis.blocks), False
        errors = length * np.abs(coefficients[-1])
        low_edge, high_edge = float(values[0] - errors[0]), float(values[-1] + errors[-1])
        excluded = [_shows(level, low_edge, high_edge, m, room) for level in above]
        excluded += [_shows(-level, -high_edge, -low_edge, m, room) for level in below]
        if all(excluded) or m == room or length <= 100 * torch.finfo(none.dtype).eps * np.abs(values).max():
            return none, True
        newest = left / float(length)
    return none, False


def _shows(level: float, low: float, high: float, steps: int, room: int) -> bool:
    """Tell whether an eigenvalue at a level above all others, in [low, high], shows after some steps."""
    if level <= high:
        return False
    if high == low:
        return steps > 1
    growth = (steps - 1) * math.acosh(1 + 2 * (level - high) / (high - low)) - math.log(2)
    return growth >= math.log(math.sqrt(room) / _SMALL) + 0.5 * math.log((high - low) / (level - high))

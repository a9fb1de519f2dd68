"""Whether a solve has missed copies of a multiple eigenvalue: a short one beside it tells."""

import math

import numpy as np
from torch import Tensor

from landscape.curvature.basis import AGAIN, Basis, fetched, grams, norms, project_out, random_unit
from landscape.curvature.solver import Counted, rounding
from landscape.storage.results import Array

LEAST, SHARE = 8, 0.25  # products of a search: the fewest, and the most as a share of those before
DOUBT = 0.02  # probability of a random vector with too little of a copy in it
_SMALL = DOUBT * math.sqrt(math.pi / 2)  # |z| of a standard normal z is less with that probability


def missed(
    operator: Counted,
    found: Tensor,
    space: Basis,
    most_steps: int,
    top: Array,
    low: Array,
    same: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Tensor, bool]:
    """Look for eigenvectors orthogonal to the found ones that belong among them.

    A Krylov space of one vector holds one vector of each eigenspace, and a part of those that it is about to
    find. Lanczos in the space orthogonal to all found vectors, from a random one, therefore meets what is
    missing alone. The rest of the basis is left in that space: it holds parts of what is missing, and what is
    then outside of it would be too small to show.

    Only copies that would change the list are looked for: of values above the last of `top`, or below the
    last of `low`. That there are none is concluded when a copy would have shown. With θ the m Ritz values and
    β the lengths of what was left of each product, Π (A - θ) turns the random vector v into one of length Π β
    (Paige 1971). A copy at λ with a share c in v would alone give that a length of c Π |λ - θ|.

    Args:
        operator: A; products are counted.
        found: the vectors of `top` and of `low`, orthonormal, as rows.
        space: an empty basis, for the search.
        most_steps: number of further vectors that memory holds.
        top, low: the found eigenvalues at each end, the extreme ones first.
        same: differences of eigenvalues that are taken for one, at the end of `top` and of `low`.
        rng: generator of the random vector.

    Returns:
        Ritz vectors beyond the ends of the lists, orthonormal, shape (any, n); and, if there are none,
        whether a copy can be excluded with a confidence of 98%.
    """
    most = float(top[-1]) + same[0] if len(top) else math.inf
    least = float(low[-1]) - same[1] if len(low) else -math.inf
    levels = np.concatenate([top[top > most][-1:], low[low < least][-1:]])
    none = found[:0]
    room = space.like.numel() - len(found)
    if not len(levels) or not room:
        return none, True
    steps = min(room, max(LEAST, min(most_steps, int(SHARE * operator.products))))
    newest = random_unit(space.like, rng, [found])
    matrix = np.zeros((steps + 1, steps + 1))
    smallest = math.log(_SMALL / math.sqrt(room))  # the logarithm of c
    shrunk, norm = 0.0, 0.0  # the logarithm of Π β, and the longest product so far
    for m in range(1, steps + 1):
        space.append(newest[None])
        product = operator(newest)[None]
        along = grams(newest[None], product)[0]
        ahead = product - along[0].to(product) * newest
        if m > 1:
            ahead -= float(matrix[m - 1, m - 2]) * space.rows(m - 2)[:1]
        blocks = [found, *space.blocks]
        left = project_out(ahead, blocks, times=1)
        (value,), (size,), (before,), (length,) = fetched(along, norms(product), norms(ahead), norms(left))
        if length < AGAIN * before:
            left = project_out(left, blocks, times=1)
            ((length,),) = fetched(norms(left))
        matrix[m - 1, m - 1] = value
        matrix[m, m - 1] = matrix[m - 1, m] = length
        values, coefficients = np.linalg.eigh(matrix[:m, :m])
        beyond = (values > most) | (values < least)
        if beyond.any():
            return project_out(space.combined(coefficients[:, beyond]), [found]), False
        norm = max(norm, float(size))
        rest = 2 * rounding(norm, none.dtype)
        shrunk += math.log(max(length, rest, 1e-300))
        grown = np.log(np.abs(levels[:, None] - values) + 1e-300).sum(1)
        if m == room or (smallest + grown > shrunk).all():
            return none, True
        if length <= rest:
            break
        newest = left[0] / float(length)
    return none, False

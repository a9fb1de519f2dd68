"""Power iteration with deflation, and with a shift for the other end of the spectrum."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import (
    Basis,
    fetched,
    gram,
    grams,
    mix,
    norm,
    norms,
    project_out,
    random_unit,
    residuals,
)
from landscape.curvature.matrix import Operator
from landscape.curvature.solver import Counted, Found, Matvec, oriented, rayleigh, scales
from landscape.storage.results import Array

Scale = Callable[[Array, float], Array]


def power_iteration(
    matvec: Matvec,
    like: Tensor,
    k: int,
    smallest: int,
    tol: float,
    max_products: int,
    seed: int,
    advance: Callable[..., None] = lambda **_: None,
    *,
    start: Iterator[Tensor] | None = None,
) -> Found:
    """Find the k eigenpairs largest in magnitude, with their sign, and the `smallest` smallest, ascending.

    v <- Av / ‖Av‖, kept orthogonal to the pairs found before, until ‖Av - λv‖ <= tol |λ| / 2. A small
    change of λ between steps does not mean convergence, so it is not used. The largest in magnitude may lie
    at either end; with m that magnitude, m - A has the smallest λ of A as its largest, m - λ.
    No basis is kept except the vectors found so far: for one pair, there are v and Av, which becomes v.

    Args: as `lanczos`. Both ends get a share of `max_products`, and at least one product per pair.
    """
    ours = isinstance(matvec, Operator)  # others may return one tensor again and again
    operator = Counted(matvec if ours else lambda v: matvec(v).clone(), advance, check=False)
    k, smallest = (min(count, like.numel()) for count in (k, smallest))
    rng = np.random.default_rng(seed)

    def own(values: Array, norm: float) -> Array:
        return scales(values, norm, like.dtype)

    values, vectors, absolute = _dominant(
        operator, like, k, tol, max_products * k // (k + smallest), rng, own, start
    )
    largest = float(np.abs(values).max())
    relative = absolute / own(values, largest)
    if smallest:
        whole = largest or 1.0
        shifted, lowest, absolute = _dominant(
            Counted(lambda v: operator(v).neg_().add_(v, alpha=largest), check=False),
            like,
            smallest,
            tol,
            max_products - operator.products,
            rng,
            lambda values, _: np.full_like(values, whole),
        )
        values, vectors = np.concatenate([values, largest - shifted]), torch.cat([vectors, lowest])
        relative = np.concatenate([relative, absolute / whole])
    return Found(values, vectors, relative, k, operator.products)


def _dominant(
    operator: Counted,
    like: Tensor,
    k: int,
    tol: float,
    limit: int,
    rng: np.random.Generator,
    scale: Scale,
    start: Iterator[Tensor] | None = None,
) -> tuple[Array, Tensor, Array]:
    """Return the k pairs of the operator largest in magnitude, and the length of each one's residual.

    Vectors that are accurate only to the tolerance leak into later ones; a Rayleigh–Ritz step over all of
    them undoes that, and its residuals are measured.
    """
    found, products = Basis(like), Basis(like)
    largest = 0.0
    for _ in range(k):
        v = random_unit(like, rng, found.blocks)
        for near in start or ():
            mix(v, near)
            del near
        while True:
            hv = operator(v)
            ahead = project_out(hv, found.blocks)
            along = grams(v[None], ahead[None])[0]
            value, (length,), left = fetched(along, norms(ahead[None]), residuals(ahead, v, along))
            largest = max(largest, float(length))
            allowed = tol / 2 * float(scale(value, largest)[0])
            if operator.products + k >= limit or left <= allowed:
                break
            v = project_out(ahead.div_(float(length)), found.blocks)
            if len(found):
                v.div_(norm(v))
            del hv, ahead  # before the next product, which needs the room
        found.append(v[None], adopt=True)
        products.append(hv[None], adopt=True)
        del v, hv, ahead

    projected = np.block([[gram(rows, images) for images in products.blocks] for rows in found.blocks])
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    del products
    found.mix(rotation[:, order])
    vectors = oriented(found.rows(0))
    del found
    values, lengths = rayleigh(operator, vectors)
    return values, vectors, lengths

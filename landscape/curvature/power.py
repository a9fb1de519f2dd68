"""Power iteration with deflation, and with a shift for the other end of the spectrum."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import (
    Basis,
    fetched,
    gram,
    grams,
    norms,
    project_out,
    random_unit,
    residuals,
    unit,
)
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
) -> Found:
    """Find the k eigenpairs largest in magnitude, with their sign, and the `smallest` smallest, ascending.

    v <- Av / ‖Av‖, kept orthogonal to the pairs found before, until ‖Av - λv‖ <= tol |λ| / 2. A small
    change of λ between steps does not mean convergence, so it is not used. The largest in magnitude may lie
    at either end; with m that magnitude, m - A has the smallest λ of A as its largest, m - λ.
    No basis is kept except the vectors found so far.

    Args: as `lanczos`. Both ends get a share of `max_products`, and at least one product per pair.
    """
    operator = Counted(matvec, advance, check=False)
    k, smallest = (min(count, like.numel()) for count in (k, smallest))
    rng = np.random.default_rng(seed)

    def own(values: Array, norm: float) -> Array:
        return scales(values, norm, like.dtype)

    values, vectors, absolute = _dominant(
        operator, like, k, tol, max_products * k // (k + smallest), rng, own
    )
    largest = float(np.abs(values).max())
    relative = absolute / own(values, largest)
    if smallest:
        whole = largest or 1.0
        shifted, lowest, absolute = _dominant(
            Counted(lambda v: largest * v - operator(v), check=False),
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
) -> tuple[Array, Tensor, Array]:
    """Return the k pairs of the operator largest in magnitude, and the length of each one's residual.

    Vectors that are accurate only to the tolerance leak into later ones; a Rayleigh–Ritz step over all of
    them undoes that, and its residuals are measured.
    """
    found, products = Basis(like), Basis(like)
    largest = 0.0
    for _ in range(k):
        v = random_unit(like, rng, found.blocks)
        while True:
            hv = operator(v)
            ahead = project_out(hv, found.blocks)
            along = grams(v[None], ahead[None])[0]
            value, (length,), left = fetched(along, norms(ahead[None]), residuals(ahead, v, along))
            largest = max(largest, float(length))
            allowed = tol / 2 * float(scale(value, largest)[0])
            if operator.products + k >= limit or left <= allowed:
                break
            v = ahead / float(length)
            if len(found):
                v = unit(project_out(v, found.blocks))
        found.append(v[None])
        products.append(hv[None])

    projected = np.block([[gram(rows, images) for images in products.blocks] for rows in found.blocks])
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    del products
    vectors = oriented(found.combined(rotation[:, order]))
    values, lengths = rayleigh(operator, vectors)
    return values, vectors, lengths

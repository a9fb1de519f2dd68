"""Power iteration with deflation."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.solver import (
    Counted,
    Found,
    Matvec,
    dot,
    oriented,
    project_out,
    random_unit,
    residual,
    scales,
    unit,
)


def power_iteration(
    matvec: Matvec,
    like: Tensor,
    k: int,
    tol: float,
    max_products: int,
    seed: int,
    advance: Callable[..., None] = lambda: None,
) -> Found:
    """Find the k eigenpairs largest in magnitude, with their sign, one after another.

    v <- Hv / ‖Hv‖, kept orthogonal to the pairs found before, until ‖Hv - λv‖ <= tol |λ| / 2. A small
    change of λ between steps is no sign of convergence and is not looked at. Found vectors that are
    right to the tolerance alone leak into the later ones; a Rayleigh–Ritz step over all of them undoes
    that, and its residuals are measured.

    Args: as `lanczos`. At the limit, at least one product is spent on each pair.
    """
    operator = Counted(matvec, advance)
    k = min(k, like.numel())
    rng = np.random.default_rng(seed)
    found = like.new_empty(0, like.numel())
    products = like.new_empty(0, like.numel())
    norm = 0.0
    for _ in range(k):
        v = random_unit(like, rng, found)
        while True:
            hv = operator(v)
            ahead = project_out(hv, found)
            value = dot(v, ahead)
            norm = max(norm, float(ahead.double().norm()))
            scale = float(scales(np.array([value]), norm, like.dtype)[0])
            exhausted = operator.products + k >= max_products
            if exhausted or residual(ahead, v, value) <= tol / 2 * scale:
                break
            v = unit(project_out(unit(ahead), found))
        found, products = torch.cat([found, v[None]]), torch.cat([products, hv[None]])

    projected = (found.double() @ products.double().T).cpu().numpy()
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    values = values[order]
    vectors = oriented(torch.from_numpy(rotation[:, order].T.copy()).to(like) @ found)
    absolute = [residual(operator(v), v, value) for v, value in zip(vectors, values.tolist(), strict=True)]
    relative = np.array(absolute) / scales(values, float(np.abs(values).max()), like.dtype)
    return Found(values, vectors, relative, k, operator.products)

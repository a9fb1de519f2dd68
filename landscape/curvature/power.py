"""Power iteration with deflation, and with a shift for the other end of the spectrum."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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

Scale = Callable[[Array, Array, float], Array]


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
    change of λ between steps does not mean convergence, so it is not used. Where λ and about -λ are the
    largest, v turns between their vectors for very long: `_between` finds them from two steps. The largest
    in magnitude may lie at either end; with m that magnitude, m - A has the smallest λ of A as its largest,
    m - λ. No basis is kept except the vectors found so far: for one pair, there are v and Av, which becomes
    v.

    Args: as `lanczos`. Both ends get a share of `max_products`, and at least one product per pair.
    """
    ours = isinstance(matvec, Operator)  # others may return one tensor again and again
    operator = Counted(matvec if ours else lambda v: matvec(v).clone(), advance, check=False)
    k, smallest = (min(count, like.numel()) for count in (k, smallest))
    rng = np.random.default_rng(seed)

    def own(values: Array, lengths: Array, norm: float) -> Array:
        return scales(values, lengths, norm, like.dtype)

    values, vectors, absolute = _dominant(
        operator, like, k, tol, max_products * k // (k + smallest), rng, own, start
    )
    largest = float(np.abs(values).max())
    relative = absolute / own(values, absolute, largest)
    if smallest:
        whole = largest or 1.0
        shifted, lowest, absolute = _dominant(
            Counted(lambda v: operator(v).neg_().add_(v, alpha=largest), check=False),
            like,
            smallest,
            tol,
            max_products - operator.products,
            rng,
            lambda values, *_: np.full_like(values, whole),
        )
        values, vectors = np.concatenate([values, largest - shifted]), torch.cat([vectors, lowest])
        relative = np.concatenate([relative, absolute / whole])
    return Found(values, vectors, relative, k, operator.products, norm=largest)


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
    them undoes that. Residuals are those of their products.
    """
    found, products = Basis(like), Basis(like)
    largest = 0.0

    def within(pair: "_Step | _Ritz") -> bool:
        return pair.left <= tol / 2 * float(scale(np.array(pair.value), np.array(pair.left), largest))

    for to_come in reversed(range(k)):
        v = random_unit(like, rng, found.blocks)
        for near in start or ():
            mix(v, near)
            del near
        step: _Step | None = None
        while True:
            hv = operator(v)
            ahead = project_out(hv, found.blocks)
            along = grams(v[None], ahead[None])[0]
            numbers = fetched(along, norms(ahead[None]), residuals(ahead, v, along))
            before, step = step, _Step(*(float(x.item()) for x in numbers))
            largest = max(largest, step.length)
            remaining = limit - operator.products - to_come
            if remaining <= 0 or within(step):
                break
            length = step.length
            ritz = before and _between(before, step, torch.finfo(like.dtype).eps)
            if ritz and (remaining == 1 or within(ritz)):
                ahead.mul_(ritz.shares[1]).add_(v, alpha=ritz.shares[0])
                length = norm(ahead)
                step = _Step(ritz.value, length, ritz.left)
            v = project_out(ahead.div_(length), found.blocks)
            if len(found):
                v.div_(norm(v))
            del hv, ahead  # before the next product, which needs the room
        found.append(v[None], adopt=True)
        products.append(hv[None], adopt=True)
        del v, hv, ahead

    projected = np.block([[gram(rows, images) for images in products.blocks] for rows in found.blocks])
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    if k > 1:
        found.mix(rotation[:, order])
        products.mix(rotation[:, order])
    vectors, images = found.rows(0), products.rows(0)
    del found, products
    values, lengths = rayleigh(zip(vectors, images, strict=True))
    return values, oriented(vectors), lengths


class _Step(NamedTuple):
    """What a product tells of a unit vector y: θ = yᵀAy, ‖Ay‖ and ‖Ay - θy‖."""

    value: float
    length: float
    left: float


class _Ritz(NamedTuple):
    """A pair of A on the span of y and v = Ay / m: λ, then m a and b of a y + b v, then ‖A(…) - λ(…)‖."""

    value: float
    shares: tuple[float, float]
    left: float


def _between(y: _Step, v: _Step, eps: float) -> _Ritz | None:
    """Return the pair of largest magnitude on the span of y and v = Ay / ‖Ay‖, from the numbers of both.

    Neither vector is needed: with m = ‖Ay‖, yᵀv = θ/m and yᵀAv = m. The image of a y + b v is m a v + b Av,
    and the next step.

    Args:
        eps: the relative rounding of a product. What it may add to a residual is taken off.

    Returns:
        None where y and v are so much the same that rounding decides which of the two is larger.
    """
    cosine, sine = y.value / y.length, y.left / y.length
    if not sine:
        return None
    # in the orthonormal basis of y and q = (v - y cosine) / sine, where yᵀAq is what is left of y
    other = (v.value - y.value) / sine**2 - y.value
    values, vectors = np.linalg.eigh([[y.value, y.left], [y.left, other]])
    if (values[1] - values[0]) * sine**2 <= 10 * eps * y.length:
        return None
    largest = int(np.abs(values).argmax())
    first, second = (float(x) for x in vectors[:, largest])
    b = second / sine
    a = first - b * cosine
    beside = v.left**2 - ((y.length - cosine * v.value) / sine) ** 2 - eps * v.length**2
    return _Ritz(float(values[largest]), (y.length * a, b), abs(b) * math.sqrt(max(0.0, beside)))

"""What the eigenvalue solvers share: counted products, residuals, a forecast, and their result."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.basis import fetched, grams, norms, pieces, residuals
from landscape.objective.shards import alike, joint_norm, local, over_ranks, peak
from landscape.storage.results import Array

Matvec = Callable[[Tensor], Tensor]
SHARE = 0.05  # of a residual, by which it may be wrong
LARGEST = 8  # vectors at once, where an operator does not say


@dataclass(frozen=True, eq=False)
class Found:
    """Eigenpairs of a symmetric operator.

    Attributes:
        values: shape (pairs,). The first `k` are the largest, then come the smallest.
        vectors: vectors of unit norm, one per row, shape (pairs, n).
        residuals: ‖Hv - λv‖ relative to `scales`; of the smallest, to the operator's norm.
        k: number of the largest that were asked for, or n where that is less.
        products: number of times the operator was applied.
        copies: whether further copies of these eigenvalues, which would be among them, can be excluded.
        norm: ‖H‖, as far as the products tell: the largest magnitude of a Ritz value at either end.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    k: int
    products: int
    copies: bool = True
    norm: float = 0.0


class Fall:
    """A forecast of the number of products: the logarithm of a residual falls about linearly."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def forecast(self, products: int, excess: Array) -> int | None:
        """Return the number of products at which the last residual is within its tolerance.

        Args:
            products: number of products so far.
            excess: each residual, divided by its tolerance.

        Returns:
            That number; None as long as nothing falls.
        """
        above = math.log(max(float(excess.max()), 1.0))
        # a shorter stretch says little: residuals stand still where a new pair comes up
        before, was = self._first = self._first or (products, above)
        return products + math.ceil(above * (products - before) / (was - above)) if was > above else None


class Counted:
    """A symmetric operator that counts its products and checks that they are finite.

    Args:
        matvec: v -> Av.
        advance: is called after each product.
        check: if False, the caller brings numbers from the device that are not finite where a product is not
            (`fetched`), and need not wait for it once more.
    """

    def __init__(
        self, matvec: Matvec, advance: Callable[..., None] = lambda: None, check: bool = True
    ) -> None:
        self._matvec = matvec
        self._advance = advance
        self._check = check
        self.products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        return self._checked(self._matvec(vector), 1)

    def many(self, vectors: Tensor) -> Tensor:
        """Return the product with each row, at once if the operator has `many`."""
        at_once = getattr(self._matvec, "many", None)
        if at_once and len(vectors) > 1:
            return self._checked(at_once(vectors), len(vectors))
        return torch.stack([self(v) for v in vectors]) if len(vectors) > 1 else self(vectors[0])[None]

    @property
    def at_once(self) -> int:
        """The most vectors that are multiplied at once, as far as the operator knows; without `many`, 1."""
        unknown = LARGEST if hasattr(self._matvec, "many") else 1
        return int(getattr(self._matvec, "at_once", unknown))

    def each(self, vectors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each row and its product, of which no more are held than are multiplied at once."""
        for some in torch.split(vectors, self.at_once):
            yield from zip(some, self.many(some), strict=True)

    def _checked(self, result: Tensor, products: int) -> Tensor:
        self.products += products
        if self._check:
            fetched(over_ranks(torch.stack(torch.aminmax(local(result))).double(), result))
        for _ in range(products):
            self._advance()
        return result


def rayleigh(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Array, Array]:
    """Return vᵀAv and ‖Av - λv‖ of each unit vector v, in float64, from v and Av."""
    values, lengths = [], []
    for vector, product in pairs:
        along, square = (grams(vector[None], other[None])[0, 0] for other in (product, vector))
        values.append(along / square)
        lengths.append(residuals(product, vector, values[-1]))
    found = fetched(torch.stack(values), torch.stack(lengths))
    return found[0], found[1]


def measured(
    operator: Counted, values: Array, vectors: Tensor, ahead: tuple[Array, Tensor] | None, allowed: Array
) -> tuple[Array, Array]:
    """Return λ and ‖Av - λv‖ of each vector, by one product of all together where that is enough.

    The residual vectors that Lanczos knows come from its own products. One product more, of Σ ± v / √m,
    confirms all: where it is not the sum of λ v and of these residuals, the difference is at least about the
    longest error of theirs. A twentieth of what is allowed, or of the residual, is added to it; beyond that,
    each pair is measured by one product of its own (`rayleigh`).

    Args:
        values: λ, shape (m,).
        vectors: of unit norm, shape (m, n). They are `oriented` here.
        ahead: the residuals as C X, shapes (m, b) and (b, n); None where they are not known.
        allowed: the length that each residual may have, shape (m,).
    """
    if ahead is not None:
        lengths = np.linalg.norm(ahead[0], axis=1)
        signs = (2 * np.random.default_rng(0).integers(0, 2, len(values)) - 1) / math.sqrt(len(values))

        def along(coefficients: Array, rows: Tensor, piece: slice) -> Tensor:
            return torch.from_numpy(coefficients).to(rows.device) @ local(rows)[:, piece].double()

        mixture = torch.empty_like(local(vectors)[0])
        for piece in pieces(mixture):
            mixture[piece] = along(signs, vectors, piece)
        image = local(operator(alike(mixture, vectors)))
        del mixture
        gaps = [
            (
                image[piece].double()
                - along(signs * values, vectors, piece)
                - along(signs @ ahead[0], ahead[1], piece)
            ).norm()
            for piece in pieces(image)
        ]
        (gap,) = fetched(joint_norm(torch.stack(gaps).norm(), vectors))
        error = math.sqrt(len(values)) * float(gap)
        if (error <= SHARE * np.maximum(lengths, allowed)).all():
            oriented(vectors)
            return values, np.hypot(lengths, error)
    return rayleigh(operator.each(oriented(vectors)))


def scales(values: Array, lengths: Array, norm: float, dtype: torch.dtype) -> Array:
    """Return what the residual of each eigenvalue is relative to: |λ|.

    An eigenvalue that is zero to the rounding of a product, as its residual is, is exceeded by any residual,
    which is then relative to ‖H‖ instead. A small λ alone does not do: a random
    vector's may be small by chance, and a far larger eigenvalue in its residual.

    Args:
        values: λ of each.
        lengths: ‖Hv - λv‖ of each.
    """
    magnitude = np.maximum(np.abs(values), np.finfo(np.float64).tiny)
    return np.where(np.maximum(magnitude, lengths) > rounding(norm, dtype), magnitude, norm or 1.0)


def rounding(norm: float, dtype: torch.dtype) -> float:
    """Return the length up to which a vector may be the rounding of a product: 50 ε ‖H‖.

    For an MLP, a CNN and a transformer of 2,000 to 5,800 parameters it was up to 3 ε ‖H‖. Longer sums round
    more. What is left of a product without its parts along a basis, which are rounded too, may be twice as
    long.
    """
    return 50 * float(torch.finfo(dtype).eps) * norm


def oriented(vectors: Tensor) -> Tensor:
    """Scale each row to norm 1, in place, and fix its sign: the entry of largest magnitude is positive."""
    for vector in vectors:
        vector.div_(norms(vector[None])[0] * peak(vector).sign())
    return vectors

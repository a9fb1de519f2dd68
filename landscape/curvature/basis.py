"""Vectors that may be as long as memory allows: taken piece by piece, and kept so that none is copied."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.shards import alike, fill, joint_norm, local, over_ranks
from landscape.runtime.precision import full_precision
from landscape.storage.results import Array

COLUMNS = 2**16  # numbers of a vector that are taken at once: in float64 they stay in a CPU's cache
LAUNCHED = 2**22  # the same on other devices, where each operation has to be launched
BLOCK = 2**20  # numbers in a block of several vectors
ROWS = 16  # the most vectors in a block
MIXED = 2**18  # numbers of all vectors that are mixed at once
SLIGHT = 10  # roundings of a vector's length: a part along a block that is left in it
AGAIN = 0.3  # share of a vector that is left of it, below which what rounding left along a basis counts
Place = Literal["device", "host", "file"]


class Basis:
    """Vectors, one per row, in blocks: one more moves none of those before.

    Attributes:
        like: any vector of their kind.
        place: where they lie: on the device of `like`, in the host's memory, or in temporary files that are
            mapped into memory, from where the system drops and reads them again as it needs.
    """

    def __init__(self, like: Tensor, place: Place = "device") -> None:
        self.like, self.place = like, place
        self._blocks: list[Tensor] = []
        self._rows = rows_at_once(like)
        self._size = 0

    def another(self) -> "Basis":
        """Return an empty basis in the same place."""
        return Basis(self.like, self.place)

    def _block(self) -> Tensor:
        """Return room for some rows more."""
        shape = self._rows, self.like.shape[-1]
        if self.place == "device":
            return local(self.like).new_empty(shape)
        if self.place == "host":
            pinned = self.like.device.type == "cuda"
            return torch.empty(shape, dtype=self.like.dtype, device="cpu", pin_memory=pinned)
        with tempfile.TemporaryFile() as file:  # it has no name, and goes with the last tensor
            numbers = np.memmap(file, str(self.like.dtype).removeprefix("torch."), shape=shape)
        return torch.from_numpy(numbers)

    def __len__(self) -> int:
        return self._size

    @property
    def blocks(self) -> list[Tensor]:
        """All vectors, in order: tensors of shape (some, n)."""
        return [alike(b[: self._size - i * self._rows], self.like) for i, b in enumerate(self._blocks)]

    def append(self, vectors: Tensor, adopt: bool = False) -> None:
        """Add rows, which are copied; to `adopt` them saves that where each vector is a block of its own."""
        for vector in vectors:
            if adopt and self._rows == 1 and self.place == "device" and local(vector).is_contiguous():
                self._blocks.append(local(vector)[None])
                self._size += 1
                continue
            block, row = divmod(self._size, self._rows)
            if block == len(self._blocks):
                self._blocks.append(self._block())
            self._blocks[block][row] = local(vector)
            self._size += 1

    def rows(self, first: int) -> Tensor:
        """Return the vectors from the `first` on, without a copy where they lie in one block."""
        block = first // self._rows
        found = self.blocks[block:]
        found[0] = found[0][first - block * self._rows :]
        return (found[0] if len(found) == 1 else torch.cat(found)).to(self.like.device)

    @full_precision
    def combined(self, coefficients: Array) -> Tensor:
        """Return Cᵀ Q for coefficients C, shape (size, K); as rows, shape (K, n)."""
        found = local(self.like).new_empty(coefficients.shape[1], self.like.shape[-1])
        for piece, mixed in self._mixed(coefficients):
            found[:, piece] = mixed
        return alike(found, self.like)

    @full_precision
    def mix(self, coefficients: Array) -> None:
        """Put Cᵀ Q in place of Q, shape (K, n): no second basis is held."""
        size = coefficients.shape[1]
        for piece, mixed in self._mixed(coefficients):
            for i, block in enumerate(self._blocks):
                some = mixed[i * self._rows : (i + 1) * self._rows]
                block[: len(some), piece] = some
        self._size = size
        del self._blocks[-(-size // self._rows) :]

    def _mixed(self, coefficients: Array) -> Iterator[tuple[slice, Tensor]]:
        change = torch.from_numpy(coefficients.T.copy()).to(self.like, copy=True)
        for piece in pieces(self.like, max(1, MIXED // self._size)):
            yield piece, change @ torch.cat([local(b)[:, piece].to(change.device) for b in self.blocks])


def rows_at_once(like: Tensor) -> int:
    """Return how many vectors lie in a block."""
    return max(1, min(ROWS, BLOCK // like.shape[-1]))


def pieces(vectors: Tensor, most: int | None = None) -> Iterator[slice]:
    """Yield the parts of the last axis that are taken at once; `most` is their greatest length."""
    length = vectors.shape[-1]
    step = most or (COLUMNS if vectors.device.type == "cpu" else LAUNCHED)
    return (slice(first, min(first + step, length)) for first in range(0, length, step))


@full_precision
def project_out(
    vectors: Tensor, blocks: Sequence[Tensor], times: int = 2, first: Sequence[tuple[Tensor, Tensor]] = ()
) -> Tensor:
    """Remove from vectors, shape (n,) or (K, n), their parts along the orthonormal rows of all `blocks`.

    This is done twice, for rounding, and piece by piece, since long float32 products lose two digits. Vectors
    are returned as they are if there is nothing to remove, and are never written to.

    Args:
        times: how often the parts are measured and removed.
        first: parts that are known, shape (K, rows), with their rows, which are removed before that.
    """
    kind, vectors = vectors, local(vectors)
    blocks = [local(block) for block in blocks if len(block)]
    if not blocks:
        return kind
    if vectors.dim() == 2 and len(vectors) == 1:
        return project_out(kind[0], blocks, times, [(part[0], rows) for part, rows in first])[None]
    left = torch.empty_like(vectors)
    source = vectors
    if first:
        _subtract([(part, local(rows)) for part, rows in first], source, left)
        source = left
    for _ in range(times):
        _subtract(_parts(source, blocks, kind), source, left)
        source = left
    return alike(left, kind)


def _parts(vectors: Tensor, blocks: Sequence[Tensor], kind: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Measure the parts of vectors along the rows of blocks; `kind` tells whether they are shards.

    To read a long vector takes a CPU longer than to compute with it, and most have parts along few rows.
    Where a block is one long vector, a part of less than `SLIGHT` is therefore left out, and the block not
    read again. For Ritz values as good as those of orthonormal vectors, parts below the root of a rounding
    would do (Simon 1984, "The Lanczos algorithm with partial reorthogonalization").
    """
    lengths = [len(block) for block in blocks]
    along = vectors.new_zeros(*vectors.shape[:-1], sum(lengths), dtype=torch.float64)
    for piece in pieces(vectors):
        some = vectors[..., piece]
        rows = (block[:, piece].to(some.device) for block in blocks)
        along += torch.cat([r @ some if some.dim() == 1 else some @ r.T for r in rows], -1)
    parts = torch.split(over_ranks(along, kind).to(vectors), lengths, -1)
    found = list(zip(parts, blocks, strict=True))
    if vectors.device.type != "cpu" or rows_at_once(vectors) > 1:
        return found
    longest = norms(alike(vectors.view(-1, vectors.shape[-1]), kind)).max()
    least = SLIGHT * torch.finfo(vectors.dtype).eps * longest
    return [(part, block) for part, block in found if part.abs().max() > least]


def _subtract(parts: Sequence[tuple[Tensor, Tensor]], source: Tensor, left: Tensor) -> None:
    """Write to `left` what is left of `source`, which may be the same, without parts along rows."""
    for piece in pieces(left):
        rest = left[..., piece]
        if source is not left:
            rest.copy_(source[..., piece])
        for part, block in parts:
            rows = block[:, piece].to(rest.device)
            if rest.dim() == 1:
                rest.addmv_(rows.T, part, alpha=-1)
            else:
                rest.addmm_(part, rows, alpha=-1)


def grams(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of rows, shape (len(a), len(b)), summed in float64, on the device of `b`."""
    kind, a, b = b, local(a), local(b)
    found = torch.zeros(len(a), len(b), dtype=torch.float64, device=b.device)
    for piece in pieces(b):
        found += a[:, piece].to(b.device).double() @ b[:, piece].double().T
    return over_ranks(found, kind)


def norms(vectors: Tensor) -> Tensor:
    """Return the lengths of rows, shape (len(vectors),), squares summed in float64, on their device."""
    kind, vectors = vectors, local(vectors)
    lengths = [
        torch.linalg.vector_norm(vectors[:, piece], dim=1, dtype=torch.float64) for piece in pieces(vectors)
    ]
    none = vectors.new_zeros(len(vectors), dtype=torch.float64)
    return joint_norm(torch.stack(lengths).norm(dim=0) if lengths else none, kind)


def residuals(product: Tensor, vector: Tensor, value: Tensor) -> Tensor:
    """Return ‖Hv - λv‖ from the product Hv and λ, shape (), on their device."""
    kind, product, vector = vector, local(product), local(vector)
    lengths = [(product[p].double() - value * vector[p].double()).norm() for p in pieces(vector)]
    return joint_norm(torch.stack(lengths).norm(), kind)


def fetched(*numbers: Tensor) -> list[Array]:
    """Bring numbers from the device, in float64 and of their shapes: all in one copy, which waits for it.

    Raises:
        InputError: one is not finite.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in numbers]).cpu().numpy()
    if not np.isfinite(flat).all():
        raise InputError("a product with the operator is not finite; its curvature cannot be measured")
    ends = np.cumsum([tensor.numel() for tensor in numbers])[:-1]
    parts = zip(np.split(flat, ends), numbers, strict=True)
    return [part.reshape(tensor.shape) for part, tensor in parts]


def gram(a: Tensor, b: Tensor) -> Array:
    """Return the inner products of rows, shape (len(a), len(b)), summed in float64."""
    return np.asarray(grams(a, b).cpu().numpy())


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product, summed in float64."""
    return float(gram(a[None], b[None])[0, 0])


def norm(vector: Tensor) -> float:
    """Length, with squares summed in float64."""
    return float(norms(vector[None]))


def residual(product: Tensor, vector: Tensor, value: float) -> float:
    """Return ‖Hv - λv‖ from the product Hv."""
    return float(residuals(product, vector, torch.tensor(value, dtype=torch.float64, device="cpu")))


def unit(vector: Tensor) -> Tensor:
    """Scale to norm 1."""
    return vector / norm(vector)


def mix(vector: Tensor, near: Tensor) -> None:
    """Turn a random unit vector, in place, to one that is near the wanted ones; it stays a unit vector."""
    if length := norm(near):
        vector.add_(near, alpha=2 / length)  # twice, so that the two never cancel
        vector.div_(norm(vector))


def random_unit(like: Tensor, rng: np.random.Generator, orthogonal_to: Sequence[Tensor] = ()) -> Tensor:
    """Draw a unit vector, of the kind of `like`, orthogonal to the rows of all blocks in `orthogonal_to`."""
    room = torch.empty_like(like, memory_format=torch.contiguous_format)
    found = project_out(fill(room, rng.standard_normal, COLUMNS), orthogonal_to)
    return found.div_(norm(found))

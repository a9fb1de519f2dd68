"""The basins of a slice, and the passes between them: the merge tree of its sublevel sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.surface.slice import Slice, need_slice


@dataclass(frozen=True)
class Basin:
    """A valley of the loss: it appears at its minimum, and ends where it flows over into an older one.

    Attributes:
        birth: the loss at its minimum.
        at: the coordinates of the minimum.
        death: the loss at the saddle where it merges into a basin that goes deeper; inf where there is none.
        saddle: the coordinates of that saddle; None where there is none.
        parent: which basin of the list it merges into; None where there is none.
    """

    birth: float
    at: tuple[float, ...]
    death: float
    saddle: tuple[float, ...] | None
    parent: int | None

    @property
    def persistence(self) -> float:
        """How far the loss must rise to leave the basin for a deeper one."""
        return self.death - self.birth


def basins(slice: Slice) -> list[Basin]:
    """Return the merge tree of {L ≤ t} as t rises: its basins, the most persistent first.

    The surface is taken as the triangles between its points, each cell cut along one diagonal, so a point
    has two neighbours on a line and six on a plane; one whose loss is not finite is in no sublevel set.
    Where basins meet, the one whose minimum is lowest goes on and the others end (the elder rule; of equal
    minima, the first in the grid). These are the persistence pairs of dimension 0 of Edelsbrunner, Letscher
    & Zomorodian, "Topological Persistence and Simplification" (2002). Basins of no persistence, such as the
    points of a plateau, are left out.

    Triangles are not the surface: a valley that runs against the diagonal and is no wider than a step
    breaks into basins, whose persistence falls with the square of the step. See `certified`.

    `parent` is an index into the list, and a parent stands before its children: it was born no later and
    dies no earlier. If persistences are equal, the lower birth comes first.

    Args:
        slice: a line or a plane; what is looked at are its `losses`, shape (n,) or (n, m).

    Raises:
        InputError: it is something else.
    """
    need_slice(slice, "basins takes")
    inside = np.flatnonzero(np.isfinite(slice.losses))
    order = inside[np.argsort(slice.losses.ravel()[inside], kind="stable")]
    places = np.unravel_index(order, slice.losses.shape)
    losses: list[float] = slice.losses.ravel()[order].tolist()

    def persistence(minimum: int) -> float:
        merge = merges[minimum]
        return np.inf if merge is None else losses[merge[0]] - losses[minimum]

    def coordinates(point: int) -> tuple[float, ...]:
        return tuple(float(axis[at[point]]) for axis, at in zip(slice.coordinates, places, strict=True))

    merges = _merges(_neighbours(places, slice.losses.shape))
    kept = sorted(
        (minimum for minimum in merges if persistence(minimum) > 0),
        key=lambda minimum: (-persistence(minimum), losses[minimum]),
    )
    index = {minimum: number for number, minimum in enumerate(kept)}
    found = []
    for minimum in kept:
        merge = merges[minimum]
        found.append(
            Basin(
                birth=losses[minimum],
                at=coordinates(minimum),
                death=np.inf if merge is None else losses[merge[0]],
                saddle=None if merge is None else coordinates(merge[0]),
                parent=None if merge is None else index[merge[1]],
            )
        )
    return found


def certified(basins: Sequence[Basin], error: float) -> list[Basin]:
    """Return the basins that no error of at most `error` in the losses could have made.

    Those are the ones whose persistence exceeds 2 `error`: a surface that moves by at most ε moves every
    pair by at most ε (Cohen-Steiner, Edelsbrunner & Harer, "Stability of Persistence Diagrams", 2007), so
    such a pair has a partner that is not a plateau. A basin that merges into no other always stays. For the
    true loss, between the points too, `error` is `Slice.error` + `triangle_error`, and the theorem holds
    as far as the first of them does: it is measured at random points, not known everywhere.

    `basins` is a list that `basins` returned; what stays is its beginning, so parents keep their indices.
    """
    return [basin for basin in basins if basin.parent is None or basin.persistence > 2 * error]


def certified_basins(slice: Slice) -> list[Basin] | None:
    """Return the basins that the certified error could not have made; None on a plain grid."""
    if slice.error is None:
        return None
    return certified(basins(slice), slice.error + triangle_error(slice))


def triangle_error(slice: Slice) -> float:
    """Return how far the triangles between the points of a slice are from the polynomial through its samples.

    Measured in the middle of every edge, where a parabola is farthest from its chord; within a triangle it
    may be farther by a third.

    Raises:
        InputError: the slice is a plain grid.
    """
    axes = [np.sort(np.concatenate([axis, (axis[1:] + axis[:-1]) / 2])) for axis in slice.coordinates]
    finer, f = slice.at(axes), slice.losses
    middles = [(finer[1::2, ...][:, ::2] if f.ndim == 2 else finer[1::2], (f[1:] + f[:-1]) / 2)]
    if f.ndim == 2:
        middles.append((finer[::2, 1::2], (f[:, 1:] + f[:, :-1]) / 2))
        middles.append((finer[1::2, 1::2], (f[1:, 1:] + f[:-1, :-1]) / 2))
    return 4 / 3 * max(float(np.abs(middle - chord).max()) for middle, chord in middles)


def _neighbours(places: Sequence[NDArray[np.intp]], shape: Sequence[int]) -> list[list[int]]:
    """Return the neighbours of each point, all by their place in the order of losses; -1 is none."""
    inner = [place + 1 for place in places]  # a rim of -1 around the grid spares every question of borders
    rank = np.full([length + 2 for length in shape], -1)
    rank[tuple(inner)] = np.arange(len(inner[0]))
    edges = np.unique([*np.eye(len(shape), dtype=int), np.ones(len(shape), dtype=int)], axis=0)
    steps = [sign * edge for edge in edges for sign in (-1, 1)]
    around = [rank[tuple(at + by for at, by in zip(inner, step, strict=True))] for step in steps]
    neighbours: list[list[int]] = np.stack(around, axis=1).tolist()
    return neighbours


def _merges(neighbours: list[list[int]]) -> dict[int, tuple[int, int] | None]:
    """Return of each minimum where it ends (the saddle, the older minimum), or None; points enter in order.

    Union-find: as points are numbered in the order of their entry, the root of a component is its smallest
    number, which is its minimum.
    """
    up: list[int] = []
    merges: dict[int, tuple[int, int] | None] = {}
    for point, around in enumerate(neighbours):
        met = {_root(up, neighbour) for neighbour in around if 0 <= neighbour < point}
        eldest = min(met, default=point)
        up.append(eldest)
        if not met:
            merges[point] = None
        for minimum in met - {eldest}:
            up[minimum] = eldest
            merges[minimum] = (point, eldest)
    return merges


def _root(up: list[int], point: int) -> int:
    while up[point] != point:
        up[point] = up[up[point]]  # halves the way for the next one who asks
        point = up[point]
    return point

"""Rank correlation within strata: what goes with what, where nothing else differs."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

PERMUTATIONS = 10_000


class Granulated(NamedTuple):
    """Kendall's τ within strata.

    Attributes:
        tau: mean over pairs of runs of one stratum: of concordant pairs 1, of discordant -1.
        p: two-sided, by permutations within strata.
        pairs: how many there are.
        by_stratum: τ-a of each stratum that has a pair.
    """

    tau: float
    p: float
    pairs: int
    by_stratum: dict[Hashable, float]


def granulated(x: ArrayLike, y: ArrayLike, strata: Sequence[Hashable], seed: int = 0) -> Granulated | None:
    """Correlate two quantities of runs within strata, in which runs differ in one thing only.

    Pooled over strata, a rank correlation is moved by whatever distinguishes those (Simpson's paradox).
    Here only pairs of one stratum count: Σ sign(x_i - x_j) sign(y_i - y_j) over their number. This is
    Kendall's τ granulated as in Jiang et al. 2020, arXiv 1912.02178, eq. 6; Dziugaite et al. 2020, arXiv
    2010.11924, say why each environment is to be looked at by itself. Each pair counts the same.

    p is the share of 10,000 permutations of y within the strata whose |τ| is at least as large, with 1
    added to both counts (Davison & Hinkley 1997, 4.11): exact, whatever the sizes of the strata.

    Args:
        x, y: of each run.
        strata: what each run belongs to.

    Returns:
        None where no stratum has two runs, or x or y is the same within each.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    groups = [np.array([i for i, own in enumerate(strata) if own == name]) for name in dict.fromkeys(strata)]
    groups = [group for group in groups if len(group) > 1]
    signs = [(_signs(x[group]), _signs(y[group])) for group in groups]
    if not any(s.any() for s, _ in signs) or not any(s.any() for _, s in signs):
        return None
    count = sum(len(group) * (len(group) - 1) for group in groups)
    rng = np.random.default_rng(seed)
    found, drawn, each = 0.0, np.zeros(PERMUTATIONS), {}
    for group, (of_x, of_y) in zip(groups, signs, strict=True):
        size = len(group)
        orders = rng.permuted(np.tile(np.arange(size), (PERMUTATIONS, 1)), axis=1)
        drawn += np.einsum("ij,pij->p", of_x, of_y[orders[:, :, None], orders[:, None, :]])
        total = float((of_x * of_y).sum())
        each[strata[group[0]]] = total / (size * (size - 1))
        found += total
    beyond = 1 + np.count_nonzero(np.abs(drawn) >= abs(found) - 1e-9)
    return Granulated(found / count, float(beyond / (PERMUTATIONS + 1)), count // 2, each)


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values[:, None] - values)

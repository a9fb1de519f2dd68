"""The sharpness of several checkpoints side by side, with intervals from what they share."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from landscape.errors import InputError
from landscape.flatness.measures import MEASURES, Sharpness
from landscape.objective.identity import BATCHES, need_one_loss
from landscape.statistics import SAMPLE, fieller, half_width, mean, standard_error
from landscape.storage.display import Drawn
from landscape.storage.results import Array

FROZEN = (*SAMPLE, "metric", "include", "exclude", "group", "statistics")
"""What the objectives of checkpoints share that compare."""
LOSS, NORM = "loss", "weight_norm"
ROUNDING = 1e-4
"""How far from 1 a ratio may be by rounding alone: a rise in float32 has lost most of the loss's digits."""


@dataclass(frozen=True)
class Contrast:
    """A value y compared with the first checkpoint's value x.

    Attributes:
        difference: y - x.
        standard_error: standard error of the difference over the draws and units that both share; None
            without any.
        ratio: y / x. None unless x is above 0 by more than two standard errors and y is not negative, or
            where its interval has no ends.
        low, high: its 95% interval; None where nothing is shared, and without a ratio.
        reach: half the width of the difference's 95% interval, by Student's t; None without any.
    """

    difference: float
    standard_error: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    reach: float | None = None

    @property
    def entry(self) -> dict[str, float | None]:
        """What JSON and CSV hold."""
        own = {"difference": self.difference, "difference_se": self.standard_error}
        return own | {"ratio": self.ratio, "low": self.low, "high": self.high}

    @property
    def differs(self) -> bool | None:
        """Whether the interval leaves out 1, by more than `ROUNDING`; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return not self.low - ROUNDING <= 1 <= self.high + ROUNDING

    @property
    def apart(self) -> bool | None:
        """Whether the difference is not 0, by its own 95% interval; None without one."""
        return None if self.reach is None else abs(self.difference) > self.reach


@dataclass(frozen=True)
class Row:
    """One measure at every checkpoint.

    Attributes:
        measure: its name; `loss` and `weight_norm` are L(θ) and ‖θ‖.
        group: the group of parameters that move; None for all that take part.
        invariant: whether a rescaling of the weights that keeps the function keeps the measure.
        values, errors: value and standard error for each checkpoint; None where the measure does not apply.
        reaches: half the width of the 95% interval of each value, by Student's t; None where errors are.
        contrasts: an entry for each checkpoint but the first.
        converged: whether each value is what its method was to find.
        resolved: whether each value is more than what the loss rounds off; a smaller one has no interval.
    """

    measure: str
    group: str | None
    invariant: bool
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    contrasts: tuple[Contrast | None, ...]
    converged: tuple[bool, ...]
    reaches: tuple[float | None, ...]
    resolved: tuple[bool, ...]

    @property
    def cells(self) -> Iterator[tuple[float | None, float | None, bool, bool]]:
        """Value, error, and whether it has converged and is resolved, of each checkpoint."""
        return zip(self.values, self.errors, self.converged, self.resolved, strict=True)


@dataclass(frozen=True, repr=False)
class Contrasts(Drawn):
    """Checkpoints compared with the first of them.

    Attributes:
        names: names of the checkpoints.
        rows: L(θ), ‖θ‖ and the measures, each followed by its groups.
        settings: those that the measures depend on, the same for all checkpoints.
        frozen: what is known of the frozen loss, the same for all checkpoints.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    frozen: Mapping[str, Any]


def compare(
    results: Mapping[str, Sharpness],
    by_group: Mapping[str, Mapping[str, Sharpness]] | None = None,
) -> Contrasts:
    """Compare each checkpoint with the first.

    With equal seeds and units the draws are paired, so what a user or a perturbation adds to both
    cancels. The interval of a ratio r = y / x is Fieller's (1954, "Some Problems in Interval Estimation"):
    all r for which y - r x is within t of its standard errors of 0. It is right for small x as well, where
    the delta method is not, and the interval of x / y is that of y / x inverted. The variance of y - r x
    is that over draws by their number, plus that over units by theirs; t is Student's, with Satterthwaite's
    degrees of freedom (1946).

    Args:
        results: by name of the checkpoint. If the provenance does not identify the units, the caller must
            make sure that all have the same units in the same order.
        by_group: by name and then by group of parameters, as `sharpness_by_group` returns it.

    Returns:
        For each measure and checkpoint the value, its difference from the first's in its own unit, and its
        ratio to it, with 95% intervals.

    Raises:
        InputError: no results, something else, or two that were measured with different settings or on
            different units.
    """
    if not results:
        raise InputError("nothing to compare; give the sharpness of at least one checkpoint")
    for some in (results, *_mapping(by_group or {}).values()):
        if wrong := [each for each in _mapping(some).values() if not isinstance(each, Sharpness)]:
            raise InputError(f"compare takes what landscape.sharpness returns, not {type(wrong[0]).__name__}")
    _check_alike(results)
    names = tuple(results)
    of_groups: dict[str | None, Mapping[str, Sharpness]] = {None: results}
    grouped = by_group or {}
    for key in _union(grouped.values()):
        of_groups[key] = {name: found[key] for name, found in grouped.items() if key in found}
        _check_alike(of_groups[key])
    rows = []
    for measure in (LOSS, NORM, *_union(result.measures for result in results.values())):
        for group, found in of_groups.items():
            if measure == LOSS and group is not None:
                continue  # whatever moves, it is of all parameters
            samples = [_sample(found.get(name), measure) for name in names]
            if any(samples):
                rows.append(_row(measure, group, samples))
    first = results[names[0]]
    known = {name: row for name, row in first.measures.items() if name in MEASURES}
    used = {
        key: row.settings[key]
        for name, row in known.items()
        for key in MEASURES[name].uses
        if key in row.settings
    }
    idle = {key for measure in MEASURES.values() for key in measure.uses} - set(used)
    return Contrasts(
        names,
        tuple(rows),
        settings={key: used.get(key, value) for key, value in first.settings.items() if key not in idle},
        frozen={key: first.provenance[key] for key in FROZEN if first.provenance.get(key)},
    )


class _Sample(NamedTuple):
    """A value with its standard error, and with its pseudo-values of each draw and each unit."""

    value: float
    error: float | None
    draws: Array
    units: Array
    converged: bool = True
    resolved: bool = True


def _sample(result: Sharpness | None, measure: str) -> _Sample | None:
    nothing = np.empty(0)
    if result is None:
        return None
    if measure == NORM:
        return _Sample(result.weight_norm, None, nothing, nothing)
    if measure == LOSS:
        units = result.loss_by_unit
        return _Sample(result.loss, mean(units)[1] if len(units) > 1 else None, nothing, units)
    if measure not in result.measures:
        return None
    row, at = result.measures[measure], list(result.measures).index(measure)
    draws, units = (kept[at] if kept else nothing for kept in (result.by_draw, result.by_unit))
    known = (row.settings.get(key, True) for key in ("converged", "resolved"))
    return _Sample(row.value, row.standard_error, draws, units, *known)


def _row(measure: str, group: str | None, samples: Sequence[_Sample | None]) -> Row:
    first, *others = samples
    return Row(
        measure,
        group,
        measure in MEASURES and MEASURES[measure].invariant,
        tuple(sample and sample.value for sample in samples),
        tuple(sample and sample.error for sample in samples),
        tuple(_contrast(first, other) if first and other else None for other in others),
        tuple(sample is None or sample.converged for sample in samples),
        tuple(sample and half_width(sample.draws, sample.units) for sample in samples),
        tuple(sample is None or sample.resolved for sample in samples),
    )


def _contrast(first: _Sample, other: _Sample) -> Contrast:
    x, y = first.value, other.value
    kinds = ((first.draws, other.draws), (first.units, other.units))
    pairs = [(a, b) for a, b in kinds if len(a) > 1]
    lost = not (first.resolved and other.resolved)
    if lost or any(len(a) != len(b) or not np.isfinite([a, b]).all() for a, b in kinds):
        pairs = []  # a part of the error is not known
    apart = [b - a for a, b in pairs]
    error, reach = standard_error(*apart), half_width(*apart)
    if not (math.isfinite(x) and x > 2 * (first.error or 0.0) and 0 <= y < math.inf):
        return Contrast(y - x, error, reach=reach)
    if not pairs:
        return Contrast(y - x, None, y / x)
    low, high = fieller(x, y, pairs) or (None, None)
    return Contrast(y - x, error, None if low is None else y / x, low, high, reach)


def _mapping(given: Any) -> Mapping[str, Any]:
    """Return what was given by name.

    Raises:
        InputError: it has no names.
    """
    if not isinstance(given, Mapping):
        said = 'compare takes results by name, {"a": …, "b": …}, and groups by name and group'
        raise InputError(f"{said}, not {type(given).__name__}")
    return given


def _check_alike(results: Mapping[str, Sharpness]) -> None:
    """Refuse what was not measured alike.

    Raises:
        InputError: the settings or the frozen losses differ.
    """
    first, *others = results
    for other in others:
        a, b = results[first], results[other]
        settings = [(key, a.settings.get(key), b.settings.get(key)) for key in {**a.settings, **b.settings}]
        frozen = [(key, a.provenance.get(key), b.provenance.get(key)) for key in FROZEN if key != BATCHES]
        for key, x, y in (*settings, *frozen):
            if x != y:
                raise InputError(
                    f"{first} was measured with {key} {x!r} and {other} with {y!r}; measure both alike"
                )
    need_one_loss({name: found.provenance for name, found in results.items()})


def _union(names: Iterable[Iterable[str]]) -> list[str]:
    """Return every name once, in the order of their first appearance."""
    return list(dict.fromkeys(name for some in names for name in some))

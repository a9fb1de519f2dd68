"""What the numbers of several checkpoints say in words, and what they do not."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.trace import Trace
from landscape.errors import InputError
from landscape.flatness.comparison import LOSS, NORM, Contrast, Contrasts, Row
from landscape.flatness.notation import NEGLIGIBLE, PLAIN
from landscape.runtime.rounding import at_most
from landscape.statistics import interval, mean

SUMMARY = {
    LOSS: "L(θ)",
    NORM: "‖θ‖",
    "trace": "trace",
    "sam": "one-step sharpness (SAM)",
    "asam": "scale-invariant one-step sharpness (ASAM)",
}
"""What `summary` reports for each checkpoint, besides λmax."""
RETRAINING = "None of these intervals covers retraining with another seed."
SCOPE = (
    'Differences smaller than their 95% interval are reported as "no clear difference". Intervals are by '
    "Student's t; that of λmax is its residuals, which do not include the choice of users or examples. "
    + RETRAINING
)
SCALE = "A measure that depends on the scale of the weights can change by their scale alone."
LEGEND = "Brackets: the 95% interval of a ratio. A number with a sign is a difference, ± its standard error."
SIDES = {
    "lower": "lower in",
    "higher": "higher in",
    "within": "no clear difference in",
    "bare": "no interval for",
    "no ratio": "no ratio for",
}
"""Where a quantity of a checkpoint lies compared with that of the first, and the words for it."""


class Finding(NamedTuple):
    """One quantity of a checkpoint compared with that of the first.

    Attributes:
        side: one of `SIDES`.
        said: the quantity, with its numbers.
    """

    side: str
    said: str


def notes(comparison: Contrasts) -> tuple[str, ...]:
    """Return the notes below a table: what its mark means, and the verdict."""
    mark = "* unchanged by a rescaling of the weights that keeps the function"
    found = (*lost(comparison), *verdict(comparison))
    return (mark, *found) if any(row.invariant for row in comparison.rows) else found


def lost(comparison: Contrasts) -> Iterator[str]:
    """Say of which checkpoint a rise is no larger than what its loss rounds off."""
    for index, name in enumerate(comparison.names):
        within = [
            row.measure if row.group is None else f"{row.measure} ({row.group})"
            for row in comparison.rows
            if not row.resolved[index]
        ]
        if within:
            yield (
                f"The {name} checkpoint: rounding of the loss alone can give {', '.join(within)}; "
                "a model and a loss in float64 show smaller rises."
            )


def legend(comparison: Contrasts) -> tuple[str, ...]:
    """Return what says what the columns of ratios hold; nothing where there are none."""
    return (LEGEND,) if len(comparison.names) > 1 else ()


def verdict(comparison: Contrasts) -> tuple[str, ...]:
    """Return a sentence for each checkpoint but the first, and one on what the intervals cover.

    Args:
        comparison: what `compare` returns.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(comparison, Contrasts):
        raise InputError(f"verdict takes what landscape.compare returns, not {type(comparison).__name__}")
    first, *others = comparison.names
    measured = [row for row in comparison.rows if row.group is None and row.measure not in (LOSS, NORM)]
    found = tuple(
        f"{name} against {first}: {'; '.join(_by_scale(measured, index))}."
        for index, name in enumerate(others)
        if any(row.contrasts[index] for row in measured)
    )
    count = sum(c is not None and c.differs is not None for row in measured for c in row.contrasts)
    if not count:
        return found
    each = (
        f"Each of the {count} intervals holds with 95% by itself" if count > 1 else "The interval is at 95%"
    )
    over = "over the draws and, where the measure allows it, over the users or examples"
    return (*found, f"{each}, {over}. {RETRAINING}")


def summary(
    spectra: Mapping[str, Eigenpairs], traces: Mapping[str, Trace], sharpness: Contrasts
) -> Iterator[str]:
    """Say how each checkpoint differs from the first, as far as the errors allow, and what to beware of.

    A single checkpoint is described instead.

    Args:
        spectra, traces: by name of the checkpoint, in the order of `sharpness`.
        sharpness: what `compare` returns.
    """
    first, *others = sharpness.names
    rows = {row.measure: row for row in sharpness.rows if row.group is None and row.measure in SUMMARY}
    if not others:
        yield _description(first, spectra[first], traces[first], rows)
    for index, name in enumerate(others):
        findings = [_of_measure(rows[key], index) for key in SUMMARY if key in rows]
        findings.append(_of_eigenvalue(spectra[first], spectra[name]))
        if "trace" not in rows:  # whose error is over users or examples too, and which the table below shows
            findings.append(_of_trace(traces[first], traces[name]))
        yield f"{name} against {first}: {'; '.join(_clauses(findings))}."
    if others:
        yield SCOPE
        yield SCALE
    for name, found in spectra.items():
        yield from cautions(name, found)


def cautions(name: str, pairs: Eigenpairs) -> Iterator[str]:
    """Say if a checkpoint is not a minimum, and if eigenvalues are not converged or may be missing."""
    if why := pairs.why_not_a_minimum:
        yield f"The {name} checkpoint is not a minimum: {why}."
    if not all(pairs.converged):
        failed = pairs.converged.count(False)
        yield f"The {name} checkpoint: {failed} of {len(pairs.converged)} eigenvalues have not converged."
    if any(pairs.zero):
        count = f"{pairs.zero.count(True)} of {len(pairs.zero)}"
        level = at_most(pairs.settings["rounding"])
        yield (
            f"The {name} checkpoint: {count} eigenvalues are zero to the rounding of products ({level}); "
            "their digits say nothing."
        )
    if pairs.copies_may_be_missing:
        yield (
            f"The {name} checkpoint: an eigenvalue may occur more often than it is listed; "
            "more products would tell."
        )


def _clauses(findings: Iterable[Finding]) -> Iterator[str]:
    """Say for each side which quantities lie there."""
    found = list(findings)
    for side, said in SIDES.items():
        *ahead, last = [finding.said for finding in found if finding.side == side] or [""]
        if last:
            yield f"{said} {', '.join(ahead)} and {last}" if ahead else f"{said} {last}"


def _by_scale(rows: Sequence[Row], index: int) -> Iterator[str]:
    """Say how the measures differ: first those that the scale of the weights cannot change."""
    found = [(row, contrast, _side(contrast)) for row in rows if (contrast := row.contrasts[index])]
    for invariant, what in (
        (True, "whatever the scale of the weights"),
        (False, "which the scale of the weights alone can change"),
    ):
        moved = [
            Finding(side, f"{row.measure} {PLAIN.contrast(contrast)}")
            for row, contrast, side in found
            if contrast.differs and row.invariant == invariant
        ]
        if moved:
            yield f"{', and '.join(_clauses(moved))}, {what}"
    yield from _clauses(Finding(side, row.measure) for row, contrast, side in found if not contrast.differs)


def _side(contrast: Contrast) -> str:
    if contrast.ratio is None:
        return "no ratio"
    return _side_of(contrast.difference, contrast.differs)


def _side_of(difference: float, beyond: bool | None) -> str:
    """Return the side of a difference that is beyond its error, or not, or has none."""
    if beyond is None or not math.isfinite(difference):
        return "bare"
    return ("higher" if difference > 0 else "lower") if beyond else "within"


def _description(name: str, spectrum: Eigenpairs, trace: Trace, rows: Mapping[str, Row]) -> str:
    values = {SUMMARY[key]: PLAIN.number(row.values[0], row.errors[0]) for key, row in rows.items()}
    values |= {"λmax": _largest(spectrum)}
    values.setdefault("trace", PLAIN.number(trace.value, trace.standard_error))
    return f"{name}: {'; '.join(f'{label} {value}' for label, value in values.items())}."


def _of_eigenvalue(a: Eigenpairs, b: Eigenpairs) -> Finding:
    """Within ‖Hv - λv‖ of λ there is an eigenvalue; that it is the largest is known once it has converged."""
    x, y = float(a.eigenvalues[0]), float(b.eigenvalues[0])
    error = abs(x) * float(a.residuals[0]) + abs(y) * float(b.residuals[0])
    beyond = a.converged[0] and b.converged[0] and abs(y - x) > error
    return Finding(_side_of(y - x, beyond), f"λmax ({_largest(b)} against {_largest(a)})")


def _largest(pairs: Eigenpairs) -> str:
    return pairs.written(PLAIN.number)[0][0]


def _of_trace(a: Trace, b: Trace) -> Finding:
    """Equal seeds draw equal probes, so that what a probe adds to both falls out of the difference."""
    difference = b.value - a.value
    if len(a.samples) == len(b.samples) > 1:
        error, count = mean(b.samples - a.samples)[1], len(a.samples)
    else:
        error, count = math.hypot(a.standard_error, b.standard_error), min(len(a.samples), len(b.samples))
    numbers = f"{PLAIN.number(b.value)} against {PLAIN.number(a.value)}"
    said = f"trace ({numbers}, {PLAIN.number(difference, error, '+')})"
    low, high = interval(difference, error, count)
    return Finding(_side_of(difference, not low <= 0 <= high), said)


def _of_measure(row: Row, index: int) -> Finding:
    x, y, contrast = row.values[0], row.values[index + 1], row.contrasts[index]
    written = f"{SUMMARY[row.measure]} ({PLAIN.number(y)} against {PLAIN.number(x)}"
    if x is None or y is None or contrast is None:
        return Finding(_side_of(0.0, None), f"{written})")
    beyond = contrast.differs
    if row.measure == NORM:  # it is computed, not estimated
        beyond = abs(y - x) > NEGLIGIBLE * abs(x)
    elif beyond is None or row.measure == LOSS:  # whose difference is shown, not its ratio
        beyond = contrast.apart
    said = f"{written}, {PLAIN.contrast(contrast, difference=row.measure == LOSS)})"
    return Finding(_side_of(y - x, beyond), said)

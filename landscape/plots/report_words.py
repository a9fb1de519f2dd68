"""What the numbers of a comparison say in words, and what they do not."""

import math
from collections.abc import Iterator, Mapping

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.probes import interval, mean
from landscape.curvature.trace import Trace
from landscape.flatness.comparison import LOSS, NORM, Comparison, Row
from landscape.flatness.tables import PLAIN

MEASURES = {
    LOSS: "L(θ)",
    NORM: "‖θ‖",
    "trace": "trace",
    "sam": "one-step sharpness (SAM)",
    "asam": "scale-invariant one-step sharpness (ASAM)",
}
SCOPE = (
    "Not distinguishable is what lies within its 95% interval, two standard errors or, for λmax, its "
    "residuals, which know nothing of another draw of users. Another training is in none of them."
)
SCALE = "A measure that depends on the scale of the weights can change by their scale alone."

Finding = tuple[str, str]
"""Where a value lies (`higher`, `lower`, `not distinguishable`), and the clause that says so."""


def sentences(
    spectra: Mapping[str, Eigenpairs], traces: Mapping[str, Trace], sharpness: Comparison
) -> Iterator[str]:
    """Say how each checkpoint differs from the first, as far as the errors allow, and what to beware of.

    A single checkpoint is described instead.

    Args:
        spectra, traces: by name of the checkpoint, in the order of `sharpness`.
    """
    first, *others = sharpness.names
    rows = {row.measure: row for row in sharpness.rows if row.group is None and row.measure in MEASURES}
    if not others:
        yield _description(first, spectra[first], traces[first], rows)
    for index, name in enumerate(others):
        findings = [_of_measure(rows[key], index) for key in MEASURES if key in rows]
        findings.append(_of_eigenvalue(spectra[first], spectra[name]))
        if "trace" not in rows:  # whose error is over users too, and which the table below shows
            findings.append(_of_trace(traces[first], traces[name]))
        yield f"{name} against {first}: {'; '.join(_sides(findings))}."
    if others:
        yield SCOPE
        yield SCALE
    for name, found in spectra.items():
        yield from _cautions(name, found)


def _description(name: str, spectrum: Eigenpairs, trace: Trace, rows: Mapping[str, Row]) -> str:
    values = {MEASURES[key]: PLAIN.number(row.values[0], row.errors[0]) for key, row in rows.items()}
    values |= {"λmax": PLAIN.number(float(spectrum.eigenvalues[0]))}
    values.setdefault("trace", PLAIN.number(trace.value, trace.standard_error))
    return f"{name}: {'; '.join(f'{label} {value}' for label, value in values.items())}."


def _sides(findings: list[Finding]) -> Iterator[str]:
    for side in ("higher", "lower", "not distinguishable", "without an error to tell"):
        clauses = [clause for found, clause in findings if found == side]
        if clauses:
            yield f"{side} in {', '.join(clauses)}"


def _side(difference: float, beyond: bool | None) -> str:
    if beyond is None:
        return "without an error to tell"
    return ("higher" if difference > 0 else "lower") if beyond else "not distinguishable"


def _of_eigenvalue(a: Eigenpairs, b: Eigenpairs) -> Finding:
    """Within ‖Hv - λv‖ of λ there is an eigenvalue; that it is the largest is known once it has converged."""
    x, y = float(a.eigenvalues[0]), float(b.eigenvalues[0])
    error = abs(x) * float(a.residuals[0]) + abs(y) * float(b.residuals[0])
    beyond = a.converged[0] and b.converged[0] and abs(y - x) > error
    return _side(y - x, beyond), f"λmax ({PLAIN.number(y)} against {PLAIN.number(x)})"


def _of_trace(a: Trace, b: Trace) -> Finding:
    """Equal seeds draw equal probes, so that what a probe adds to both falls out of the difference."""
    difference = b.value - a.value
    if len(a.samples) == len(b.samples) > 1:
        error, count = mean(b.samples - a.samples)[1], len(a.samples)
    else:
        error, count = math.hypot(a.standard_error, b.standard_error), min(len(a.samples), len(b.samples))
    low, high = interval(difference, error, count)
    values = f"{PLAIN.number(b.value)} against {PLAIN.number(a.value)}"
    said = f"trace ({values}, {PLAIN.number(difference, error, '+')})"
    return _side(difference, not low <= 0 <= high), said


def _of_measure(row: Row, index: int) -> Finding:
    x, y, contrast = row.values[0], row.values[index + 1], row.contrasts[index]
    written = f"{MEASURES[row.measure]} ({PLAIN.number(y)} against {PLAIN.number(x)}"
    if x is None or y is None or contrast is None:
        return _side(0.0, None), f"{written})"
    errors = row.errors[0], row.errors[index + 1]
    error = contrast.difference_se
    if row.measure == NORM:
        error = 0.0  # it is computed, not estimated
    elif error is None and None not in errors:
        error = math.hypot(*(e for e in errors if e is not None))  # too wide where both share their draws
    beyond = contrast.differs
    if beyond is None or row.measure == LOSS:  # whose difference is shown, not its ratio
        beyond = None if error is None else abs(y - x) > 2 * error
    return _side(y - x, beyond), f"{written}, {PLAIN.contrast(contrast, difference=row.measure == LOSS)})"


def _cautions(name: str, spectrum: Eigenpairs) -> Iterator[str]:
    if why := spectrum.not_a_minimum:
        yield f"{name} is no minimum of the measured loss: {why}."
    if not all(spectrum.converged):
        failed = spectrum.converged.count(False)
        yield f"{name}: {failed} of {len(spectrum.converged)} eigenvalues have not converged."

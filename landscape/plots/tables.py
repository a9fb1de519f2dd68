"""Results as tables of text: those that the commands print, and that a notebook shows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.history import SharpnessHistory
from landscape.curvature.spectrum import Spectrum
from landscape.curvature.trace import Diagonal, FrobeniusNorm, Trace
from landscape.flatness.bounds import Bound, Posterior
from landscape.flatness.comparison import Contrasts
from landscape.flatness.notation import PLAIN
from landscape.flatness.words import cautions, legend, notes
from landscape.plots.style import subscript
from landscape.runtime.rounding import UNSURE, at_least, at_most, between
from landscape.runtime.table import Table, metric_name
from landscape.surface.geometry import Quadratic
from landscape.surface.paths import PathProfile
from landscape.surface.slice import Slice

MATRICES = {"hessian": "Hessian", "gauss-newton": "Generalized Gauss-Newton", "fisher": "Empirical Fisher"}
MISSING = "–"
ALONE = "measured"
"""The name of a checkpoint that has none: 'The measured checkpoint is …'."""
number = PLAIN.number


def sentences(said: Iterable[str]) -> list[Table]:
    """Return sentences as what stands below tables."""
    return [Table(sentence, [], []) for sentence in said]


def of_slices(found: Mapping[str, Slice], title: str) -> Table:
    """Return a table of lines or planes, a row each."""
    head = ["", "L(θ)", "min", "max", "error / range", "points", "seconds"]
    return Table(title, head, [[name, *_slice(result)] for name, result in found.items()])


def _slice(result: Slice) -> list[str]:
    known = result.certificate
    return [
        number(result.center, known.standard_error if known else None),
        *_distinct(*result.range),
        f"{known.max_error:.1e}{'' if known.reached else ' > --tol'}" if known else "plain grid",
        str(result.evaluations + result.settings.get("reused", 0)),  # some of them in an earlier run
        f"{result.seconds:.1f}",
    ]


def _distinct(low: float, high: float) -> tuple[str, str]:
    """Write two losses in five digits, or in as many as tell them from each other."""
    ways = [(f"{low:.{digits}g}", f"{high:.{digits}g}") for digits in range(5, 18)]
    return next((way for way in ways if low == high or way[0] != way[1]), ways[0])


def of_quadratics(found: Mapping[str, Quadratic], title: str = "Quadratic models on the slices") -> Table:
    """Return what quadratic models say, a column each."""
    values = [np.linalg.eigvalsh(model.hessian)[::-1] for model in found.values()]
    rows = [
        ["L(θ)", *(number(model.center) for model in found.values())],
        ["‖g‖", *(number(float(np.linalg.norm(model.gradient))) for model in found.values())],
        *(
            [f"λ{subscript(i)} of H", *(number(float(value)) for value in each)]
            for i, each in enumerate(zip(*values, strict=True), start=1)
        ),
        ["seconds", *(f"{model.seconds:.1f}" for model in found.values())],
    ]
    return Table(title, ["", *found], rows)


def of_slice_metrics(found: Mapping[str, Mapping[str, Slice]]) -> Table:
    """Return a table of metrics along lines, a row for each metric and line."""
    rows = [
        [metric_name(metric), label, *(number(value) for value in (line.center, *line.range))]
        for metric, lines in found.items()
        for label, line in lines.items()
    ]
    return Table("Metrics along the lines", ["metric", "", "at θ", "min", "max"], rows, labels=2)


def of_history(found: SharpnessHistory) -> Table:
    """Return the first and the last measurement of a training."""
    title = f"sharpness at {len(found.steps)} steps of a training, {found.products.sum():.0f} products"
    tops = [f"λ{subscript(i)}" for i in range(1, found.eigenvalues.shape[1] + 1)]
    rows = [
        ("L(θ)", found.losses),
        ("‖∇L‖", found.gradient_norms),
        *zip(tops, found.eigenvalues.T, strict=True),
        ("λ₁ of P⁻¹H", found.preconditioned),
        ("edge of stability", found.thresholds),
        ("trace", found.traces),
        ("SAM's sharpness", found.sam),
    ]
    sure = dict(zip(tops, found.converged.T, strict=True))
    errors = {"trace": found.trace_errors}
    ends = [0, -1] if len(found.steps) else []

    def written(name: str, value: float, end: int) -> str:
        if not np.isfinite(value):
            return MISSING
        error = float(errors[name][end]) if name in errors else None
        return number(value, error) + (UNSURE if name in sure and not sure[name][end] else "")

    return Table(
        title,
        ["", *(f"step {found.steps[end]:.0f}" for end in ends)],
        [
            [name, *(written(name, float(column[end]), end) for end in ends)]
            for name, column in rows
            if np.isfinite(column).any()
        ],
    )


def of_paths(found: Mapping[str, PathProfile], title: str) -> Table:
    """Return a table of paths, a row each; a path to another end than b tells no barrier."""
    own = any(path.own_end is not None for path in found.values())
    head = ["L(a)", "L(b)", *["own L of b"] * own, "barrier", "at t", "length", "seconds"]
    return Table(
        title,
        ["to" if any(found) else "", *head],
        [
            [
                name,
                *(f"{loss:.5g}" for loss in path.ends),
                *[MISSING if path.own_end is None else f"{path.own_end:.5g}"] * own,
                number(path.height, path.standard_error) + path.doubt if path.own_end is None else "unknown",
                f"{path.at:.2f}",
                f"{path.length:.4g}",
                f"{path.seconds:.1f}",
            ]
            for name, path in found.items()
        ],
    )


def of_metrics(found: Mapping[str, PathProfile], title: str) -> Table:
    """Return a table of the metrics along paths, with a column per path."""
    return Table(
        title,
        ["to", *found],
        [
            [
                f"{metric_name(metric)} at t = {t:g}",
                *(
                    number(path.metrics[metric]["values"][i], path.metrics[metric]["standard_errors"][i])
                    for path in found.values()
                ),
            ]
            for metric, known in next(iter(found.values())).metrics.items()
            for i, t in enumerate(known["positions"])
        ],
    )


def of_spectra(
    found: Mapping[str, Spectrum], ridge: float | None = None, gamma: float | None = None
) -> list[Table]:
    """Return a table with a column per checkpoint, one of the blocks if there are any, and cautions.

    Args:
        found: by name of the checkpoint.
        ridge, gamma: as for `Spectrum.density_facts`; by default the largest eigenvalue of all.
    """
    largest = max(float(spectrum.pairs.eigenvalues.max()) for spectrum in found.values())
    matrix = MATRICES.get(str(next(iter(found.values())).pairs.settings["matrix"]), "Matrix")
    has_smallest = any(spectrum.pairs.smallest is not None for spectrum in found.values())
    title = f"{matrix} (relative residuals in brackets{'; λmin ± residual' * has_smallest})"
    rows = list(_spectrum_rows(list(found.values()), ridge or largest, gamma or largest))
    blocks = [
        [
            *([name] if len(found) > 1 else []),
            group,
            f"{block.parameters:,}",
            *(next(iter(end(block.pairs)), MISSING) for end in (_largest, _smallest)),
            *([number(block.trace.value, block.trace.standard_error)] if block.trace else []),
        ]
        for name, spectrum in found.items()
        for group, block in spectrum.blocks.items()
    ]
    head = ["", "group", "parameters", f"λ{subscript(1)}", "λmin", "trace"][len(found) == 1 :]
    tables = [Table(title, ["", *found], rows)]
    if blocks:
        tables.append(Table("Blocks", head[: len(blocks[0])], blocks, labels=head.index("group") + 1))
    said = [note for name, spectrum in found.items() for note in cautions(name, spectrum.pairs)]
    said += [
        f"{name}: negative eigenvalues lower the effective dimension; Gauss-Newton has none."
        for name, spectrum in found.items()
        if (spectrum.density_facts(ridge or largest).get("effective_dimension") or 0) < 0
    ]
    return [*tables, *sentences(said)]


def _spectrum_rows(found: list[Spectrum], ridge: float, gamma: float) -> Iterator[list[str]]:
    """Yield the lines of the table: one quantity for each checkpoint."""
    pairs = [spectrum.pairs for spectrum in found]
    tops, lows = (list(zip_longest(*map(end, pairs), fillvalue=MISSING)) for end in (_largest, _smallest))
    yield from ([f"λ{subscript(i)}", *cells] for i, cells in enumerate(tops, start=1))
    yield from (
        ["λmin" if i == 1 else f"λmin{subscript(i)}", *cells] for i, cells in enumerate(lows, start=1)
    )
    yield ["‖∇L‖", *(f"{each.gradient_norm:.4g}" for each in pairs)]
    if found[0].trace is not None:
        yield [
            "trace",
            *(number(s.trace.value, s.trace.standard_error) + s.doubt if s.trace else MISSING for s in found),
        ]
    if all(spectrum.density for spectrum in found):
        known = [spectrum.density_facts(ridge, gamma) for spectrum in found]
        labels = {
            "trace": "trace, by the density",
            "frobenius": "‖·‖F, by the density",
            "effective_dimension": f"effective dimension, ridge {ridge:.3g}",
            "local_entropy": f"local entropy, γ {gamma:.3g}",
        }
        for key, label in labels.items():
            yield [label, *(number(facts[key], facts[f"{key}_se"]) for facts in known)]
    yield ["products", *(str(each.products) for each in pairs)]
    yield ["seconds", *(f"{each.seconds:.1f}" for each in pairs)]


def of_eigenpairs(pairs: Eigenpairs) -> list[Table]:
    """Return a table of eigenvalues with their residuals, and cautions."""
    return of_spectra({ALONE: Spectrum(parameters=pairs.eigenvectors.shape[1], pairs=pairs)})


def _largest(pairs: Eigenpairs) -> list[str]:
    rows = zip(pairs.residuals, pairs.errors, pairs.zero, strict=True)
    said = (f"±{at_most(error, 1)}" if zero else f"{residual:.0e}" for residual, error, zero in rows)
    return _marked(pairs.eigenvalues, said, pairs.converged)


def _smallest(pairs: Eigenpairs) -> list[str]:
    """Write eigenvalues that may be next to zero: what is small against ‖H‖ may exceed them."""
    errors = (f"±{at_most(float(error), 1)}" for error in pairs.smallest_errors)
    return _marked(pairs.smallest_eigenvalues, errors, pairs.smallest_converged)


def _marked(values: Any, residuals: Iterable[str], converged: list[bool]) -> list[str]:
    return [
        f"{value:.4g} ({residual}{'' if arrived else ', not converged'})"
        for value, residual, arrived in zip(values, residuals, converged, strict=True)
    ]


def of_estimate(found: Trace | FrobeniusNorm, title: str) -> Table:
    """Return a table of an estimate from random probes."""
    low, high = found.interval
    missed = found.settings.get("reached") is False  # of a tolerance, if one was asked for
    rows = [
        ["value", number(found.value, found.standard_error) + (UNSURE if missed else "")],
        ["95% interval", f"{at_least(low, 4)} to {at_most(high, 4)}"],
        ["probes", str(len(found.samples))],
        ["seconds", f"{found.seconds:.1f}"],
    ]
    return Table(title, ["", "value"], rows)


def of_diagonal(found: Diagonal) -> Table:
    """Return a table of a diagonal: its size, sum and extent."""
    low, middle, high = (number(float(v)) for v in np.quantile(found.values, (0, 0.5, 1)))
    rows = [
        ["entries", f"{found.values.size:,}"],
        ["sum", number(float(found.values.sum()))],
        ["smallest", low],
        ["median", middle],
        ["largest", high],
        ["median standard error", number(float(np.median(found.standard_errors)))],
        ["seconds", f"{found.seconds:.1f}"],
    ]
    return Table("estimate of the diagonal of A", ["", "value"], rows)


def of_density(found: SpectralDensity) -> Table:
    """Return a table of a spectral density: its moments and extent."""
    squares, error = found.moment(2)
    norm = squares**0.5
    rows = [
        ["eigenvalues", f"{found.dimension:,}"],
        ["trace", number(*found.moment(1))],
        ["‖·‖F", number(norm, error / (2 * norm) if norm else 0.0)],
        ["smallest node", number(min(float(nodes.min()) for nodes in found.nodes))],
        ["largest node", number(max(float(nodes.max()) for nodes in found.nodes))],
        ["probes", str(len(found.nodes))],
        ["steps", str(found.settings["steps"])],
        ["seconds", f"{found.seconds:.1f}"],
    ]
    return Table("density of the eigenvalues, by Lanczos quadrature", ["", "value"], rows)


def of_comparison(comparison: Contrasts) -> list[Table]:
    """Return a table of values and ratios, or a table of each where there are many checkpoints; and notes."""
    head, rows = PLAIN.table(comparison)
    settings = ", ".join(f"{key} {value}" for key, value in comparison.settings.items())
    users = f"; {comparison.frozen['users']} users" if "users" in comparison.frozen else ""
    title = f"Sharpness ({settings}{users})"
    count = len(comparison.names)
    if count <= 2:
        tables = [Table(title, head, rows)]
    else:
        ratios = [[row[0], *row[1 + count :]] for row in rows]
        tables = [
            Table(title, head[: 1 + count], [row[: 1 + count] for row in rows]),
            Table("Ratios, with 95% intervals", [head[0], *head[1 + count :]], ratios),
        ]
    return [*tables, *sentences((*legend(comparison), *notes(comparison)))]


_LOWEST: Mapping[str, Callable[[Posterior], str]] = {
    "bound": lambda row: f"{between(0, row.bound, 4)[1]} ({_worth(row)})",
    "at σ": lambda row: f"{row.sigma:.4g}",
    "loss under Q": lambda row: f"{row.loss:.5g}",
    "KL / m": lambda row: f"{row.kl_per_unit:.4g}",
    "KL too large by a factor of": lambda row: (
        f"{row.excess:.3g} (σ = {row.excess_sigma:.4g})" if np.isfinite(row.excess) else "no KL is enough"
    ),
}


def of_bounds(found: Mapping[str, Bound]) -> list[Table]:
    """Return a table with a column per checkpoint, the lowest bound of each kind of posterior; statements."""
    first = next(iter(found.values()))
    metric, prior = first.settings.get("metric", ""), first.settings.get("prior", "given")
    units = "users" if metric == "pairwise" else "units"
    table = Table(
        f"PAC-Bayes bounds ({metric or 'given'} loss, prior at {prior}, m = {first.units:,} {units}, "
        f"δ = {first.settings['delta']:g}; a random guess has a loss of {first.guess:g})",
        ["", *found],
        [
            ["L(θ)", *(f"{each.loss:.5g}" for each in found.values())],
            ["‖θ - θ0‖", *(f"{each.distance:.4g}" for each in found.values())],
            *(
                [f"{kind}: {label}", *(write(each.posteriors[kind]) for each in found.values())]
                for kind in first.kinds
                for label, write in _LOWEST.items()
            ),
        ],
    )
    many = len(found) > 1
    return [table, *sentences([f"{f'{n}: ' if many else ''}{each.statement}" for n, each in found.items()])]


def _worth(row: Posterior) -> str:
    return "trivial" if row.trivial else "vacuous" if row.vacuous else "not vacuous"

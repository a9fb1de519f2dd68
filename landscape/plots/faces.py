"""What each kind of result shows: its tables, its numbers as columns, its picture."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from landscape import plots
from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.history import SharpnessHistory
from landscape.curvature.spectrum import Spectrum
from landscape.curvature.trace import Diagonal, FrobeniusNorm, Trace
from landscape.flatness.bounds import Bound
from landscape.flatness.comparison import Contrast, Contrasts, compare
from landscape.flatness.measures import Sharpness
from landscape.flatness.tables import KNOWN
from landscape.plots import tables
from landscape.runtime.table import Table
from landscape.storage.display import LINES, flowing, framed
from landscape.storage.results import Array
from landscape.surface.geometry import Quadratic
from landscape.surface.paths import PathProfile
from landscape.surface.slice import Slice
from landscape.surface.surfaces import Surfaces

Columns = dict[str, Any]
Plot = Callable[..., Any]


@dataclass(frozen=True)
class Face:
    """What a kind of result shows.

    Attributes:
        tables: those that the command line prints.
        columns: its numbers, a sequence each, all equally long.
        plot, plot_3d: the functions that draw it, if any; or their names in `landscape.plots`, which is
            imported when they are called: a text or a table needs no matplotlib.
        slices: those that a browser turns, by name.
    """

    tables: Callable[[Any], list[Table]]
    columns: Callable[[Any], Columns]
    plot: Plot | str = ""
    plot_3d: Plot | str = ""
    slices: Callable[[Any], Mapping[str, Slice]] | None = None


def text(result: Any) -> str:
    """Return the `repr` of a result: its kind and title, and then what its first tables say."""
    first, *others = FACES[type(result)].tables(result)
    kind = type(result).__name__
    heading = flowing(first.title if first.title.startswith(kind) else f"{kind}: {first.title}", 1)
    said = ", ".join(first.phrases())
    notes = " ".join(table.title for table in others if not table.columns)
    return "\n".join([heading, flowing("  " + ". ".join(filter(None, (said, notes))), LINES - 1)])


def html(result: Any) -> str:
    """Return the tables of a result as HTML."""
    return "".join(table.html() for table in FACES[type(result)].tables(result))


def frame(result: Any, library: str | None) -> Any:
    """Return the numbers of a result as a data frame, as `Shown.to_frame`."""
    return framed(FACES[type(result)].columns(result), library)


def drawn(result: Any, how: str, ax: Any, style: Mapping[str, Any]) -> Any:
    """Draw a result, as `Drawn.plot` and `Turned.plot_3d`."""
    plot: Plot | str = getattr(FACES[type(result)], how)
    return (getattr(plots, plot) if isinstance(plot, str) else plot)(result, ax=ax, **style)


def interactive(result: Any) -> Any:
    """Return a figure to be turned in a browser, as `Turned.interactive`."""
    of = cast(Callable[[Any], Mapping[str, Slice]], FACES[type(result)].slices)
    return plots.interactive_figure(of(result))


def _slice_tables(result: Slice) -> list[Table]:
    size = " × ".join(str(axis.size) for axis in result.coordinates)
    kind = "line" if result.losses.ndim == 1 else "plane"
    return [
        tables.of_slices({"": result}, f"the loss on a {kind}, drawn at {size} points"),
        *tables.sentences([result.statement]),
    ]


def _slice_columns(result: Slice) -> Columns:
    grid = np.meshgrid(*result.coordinates, indexing="ij")
    axes = {name: axis.ravel() for name, axis in zip(("alpha", "beta"), grid, strict=False)}
    return {**axes, "loss": result.losses.ravel()}


def _surfaces_columns(found: Surfaces) -> Columns:
    return _joined(
        {"label": [label] * result.losses.size, "model": [found.models[label]] * result.losses.size}
        | _slice_columns(result)
        for label, result in found.slices.items()
    )


def _surfaces_plot(found: Surfaces, ax: Any = None, **style: Any) -> Any:
    groups = found.by_model(found.slices)
    is_band = any(len(group) > 1 and group[0].losses.ndim == 1 for group in groups.values())
    return plots.band(groups, ax=ax, **style) if is_band else plots.surface(found.slices, ax=ax, **style)


def _pairs_columns(pairs: Eigenpairs) -> Columns:
    ends = {
        "largest": (pairs.eigenvalues, pairs.residuals, pairs.errors, pairs.converged),
        "smallest": (
            pairs.smallest_eigenvalues,
            pairs.smallest_residuals,
            pairs.smallest_errors,
            pairs.smallest_converged,
        ),
    }
    return _joined(
        {
            "end": [end] * len(values),
            "rank": range(1, len(values) + 1),
            "eigenvalue": values,
            "residual": residuals,
            "error": errors,
            "converged": converged,
        }
        for end, (values, residuals, errors, converged) in ends.items()
    )


def _spectrum_columns(found: Spectrum) -> Columns:
    parts = {"all": found, **found.blocks}
    known = {group: _pairs_columns(part.pairs) for group, part in parts.items()}
    return _joined({"group": [group] * len(of["rank"])} | of for group, of in known.items())


def _spectrum_plot(found: Spectrum, ax: Any = None, **style: Any) -> Any:
    if found.density is None:
        return plots.eigenvalues(found.pairs, ax=ax, **style)
    return plots.spectrum(found.density, found.pairs, ax=ax, **style)


def _density_columns(found: SpectralDensity) -> Columns:
    return _joined(
        {"probe": [probe] * nodes.size, "node": nodes, "weight": weights}
        for probe, (nodes, weights) in enumerate(zip(found.nodes, found.weights, strict=True))
    )


def _quadratic_columns(model: Quadratic) -> Columns:
    rows = {f"hessian_{i}": row for i, row in enumerate(model.hessian, start=1)}
    return {"direction": range(1, model.gradient.size + 1), "gradient": model.gradient, **rows}


def _history_columns(found: SharpnessHistory) -> Columns:
    tables = {"eigenvalue": found.eigenvalues, "residual": found.residuals, "alignment": found.alignment}
    flat = {f"{name}_{i}": column for name, of in tables.items() for i, column in enumerate(of.T, start=1)}
    return {
        "step": found.steps.astype(int),
        "loss": found.losses,
        "gradient_norm": found.gradient_norms,
        "threshold": found.thresholds,
        "preconditioned": found.preconditioned,
        "trace": found.traces,
        "trace_error": found.trace_errors,
        "sam": found.sam,
        "products": found.products.astype(int),
        "seconds": found.durations,
        **flat,
    }


def _comparison_columns(found: Contrasts) -> Columns:
    none = dict.fromkeys(Contrast(0).entry)
    cells = (
        {"measure": row.measure, "group": row.group, "invariant": row.invariant, "checkpoint": name}
        | {**dict(zip(KNOWN, known, strict=True)), **(contrast.entry if contrast else none)}
        for row in found.rows
        for name, known, contrast in zip(found.names, row.cells, (None, *row.contrasts), strict=True)
    )
    return _joined({key: [cell] for key, cell in each.items()} for each in cells)


def _sharpness_columns(found: Sharpness) -> Columns:
    return {
        "measure": list(found.measures),
        "value": [row.value for row in found.measures.values()],
        "se": [row.standard_error for row in found.measures.values()],
        **{key: [m.settings.get(key, True) for m in found.measures.values()] for key in KNOWN[2:]},
    }


def _bound_columns(found: Bound) -> Columns:
    kinds = np.repeat(list(found.kinds), found.sigmas.size).tolist()
    named = {
        "prior_sigma": found.prior_sigmas,
        "kl": found.kls,
        "loss": found.losses,
        "loss_limit": found.loss_limits,
        "bound": found.bounds,
        "kl_allowed": found.kl_allowed,
    }
    flat: dict[str, Array] = {name: values.ravel() for name, values in named.items()}
    return {"posterior": kinds, "sigma": np.tile(found.sigmas, len(found.kinds)), **flat}


def _joined(parts: Iterable[Columns]) -> Columns:
    """Put columns of equal names below one another."""
    found: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in part.items():
            plain = values.tolist() if isinstance(values, np.ndarray) else values
            found.setdefault(name, []).extend(plain)
    return found


FACES: Mapping[type, Face] = {
    Slice: Face(_slice_tables, _slice_columns, "surface", "surface_3d", lambda s: {"loss": s}),
    Surfaces: Face(
        lambda found: [tables.of_slices(found.slices, f"{len(found.slices)} slices on one scale")],
        _surfaces_columns,
        _surfaces_plot,
        lambda found, **style: plots.surface_3d(found.slices, **style),
        lambda found: found.slices,
    ),
    Quadratic: Face(
        lambda model: [tables.of_quadratics({"value": model}, "Quadratic model on the slice")],
        _quadratic_columns,
    ),
    PathProfile: Face(
        lambda found: [tables.of_paths({"": found}, f"{found.kind} path between two points")],
        lambda found: {"t": found.positions, "loss": found.losses},
        "path",
    ),
    Eigenpairs: Face(tables.of_eigenpairs, _pairs_columns, "eigenvalues"),
    Spectrum: Face(lambda found: tables.of_spectra({tables.ALONE: found}), _spectrum_columns, _spectrum_plot),
    SpectralDensity: Face(lambda found: [tables.of_density(found)], _density_columns, "spectrum"),
    SharpnessHistory: Face(lambda found: [tables.of_history(found)], _history_columns, "sharpness_history"),
    Trace: Face(
        lambda found: [tables.of_estimate(found, "estimate of tr A")],
        lambda found: {"sample": found.samples},
    ),
    FrobeniusNorm: Face(
        lambda found: [tables.of_estimate(found, "estimate of ‖A‖F")],
        lambda found: {"sample": found.samples},
    ),
    Diagonal: Face(
        lambda found: [tables.of_diagonal(found)],
        lambda found: {"value": found.values, "standard_error": found.standard_errors},
    ),
    Sharpness: Face(
        lambda found: tables.of_comparison(compare({tables.ALONE: found})),
        _sharpness_columns,
        "forest",
    ),
    Contrasts: Face(tables.of_comparison, _comparison_columns, "forest"),
    Bound: Face(lambda found: tables.of_bounds({tables.ALONE: found}), _bound_columns),
}
"""By kind of result."""

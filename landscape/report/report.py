"""One folder of results as one self-contained page."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from landscape.curvature.density import SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.history import MONITOR, SharpnessHistory, read_history
from landscape.curvature.trace import Trace
from landscape.errors import InputError
from landscape.flatness.comparison import LOSS, NORM, Contrasts, compare
from landscape.flatness.measures import MEASURES, Sharpness
from landscape.flatness.notation import PLAIN
from landscape.flatness.words import legend, notes, summary
from landscape.plots.curves import by_title, curves_figure, eigenvalue_figure
from landscape.plots.interactive import interactive_figure
from landscape.plots.page import embedded, page
from landscape.plots.spectra import spectrum_figure
from landscape.plots.surfaces import surface_figure
from landscape.report import training
from landscape.runtime.rounding import between
from landscape.runtime.table import metric_name
from landscape.storage.files import existing, write_text
from landscape.storage.ranges import FINITE
from landscape.storage.results import Result, load_as
from landscape.surface.slice import Slice
from landscape.tasks import FactCurve, Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX, PAGE = "compare.json", "report.html"
MOST = 6
"""How many checkpoints a page can show: a browser draws some sixteen scenes, a figure has seven colours."""
ATTEMPTS = 3
"""How often a page is made if the comparison changes meanwhile."""
UNFINISHED = "landscape compare has not finished; results may be missing, or of different settings"
LEGEND = 24
"""Characters of a name that the legend of a column's width has room for."""


class Compared(BaseModel):
    """What is known of one checkpoint beside the measurements.

    Attributes:
        name: as shown, and the stem of its result files in the folder.
        path: path of the checkpoint.
        facts: what its task tells of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    facts: Facts = Facts()


class Comparison(BaseModel):
    """The index of a comparison's folder, `compare.json`.

    Attributes:
        title: title of the report.
        checkpoints: what was compared, in order.
        facts: tables and curves of no single checkpoint.
        command: the command line that made it.
        version: version of this package that made it.
        finished: whether all results are there, and of one run of `compare`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    checkpoints: list[Compared]
    facts: Facts = Facts()
    command: str = ""
    version: str = ""
    finished: bool = True


@dataclass(frozen=True, eq=False)
class Measured:
    """The measurements of one checkpoint.

    The density was not always wanted. `monitor` is what the monitor of its training saw, where there was one.
    """

    plane: Slice
    line: Slice
    hessian: Eigenpairs
    trace: Trace
    sharpness: Sharpness
    density: SpectralDensity | None = None
    monitor: SharpnessHistory | None = None


def result_path(folder: Path, name: str, part: str) -> Path:
    """Where the measurement `part` (a field of `Measured`) of a checkpoint lies."""
    return folder / f"{name}.{part}.npz"


def render(folder: Path) -> Path:
    """Write `report.html` from the results in `folder`; return its path.

    The folder of a run that holds no comparison gets a page of what its monitor has measured so far.

    If `compare` has not finished there, the page and a warning say so. If it ends while the page is made, the
    page is made again, since it would replace the one of the whole comparison.

    Raises:
        InputError: the folder holds no comparison and no monitor's file, or a result is missing or damaged.
    """
    path = folder / PAGE
    if not (folder / INDEX).exists() and (folder / MONITOR).exists():
        return write_text(path, _of_training(folder))
    for _ in range(ATTEMPTS):
        comparison = read_index(folder)
        write_text(path, _rendered(folder, comparison))
        if read_index(folder) == comparison:
            break
    if not comparison.finished:
        warnings.warn(f"{path} is partial: {UNFINISHED}", stacklevel=2)
    return path


def _of_training(folder: Path) -> str:
    """Return a page of the sharpness of one training, which may still go on."""
    found = read_history(folder / MONITOR)
    if not len(found.steps):
        raise InputError(f"{folder / MONITOR} holds no measurements yet")
    return page(
        '{% extends "report.html.j2" %}{% block report %}{{ self.training() }}{% endblock %}',
        f"Training of {folder.resolve().name}",
        None,
        training=training.section({"": found}),
        origin={k: v for k, v in {**found.provenance, **found.settings}.items() if v not in ("", None)},
        pictures=embedded(training.pictures({"": found})),
    )


def _rendered(folder: Path, comparison: Comparison) -> str:
    measured = _read_all(folder, comparison)
    densities = _densities(measured)
    trained = training.merged({name: m.monitor for name, m in measured.items() if m.monitor})
    spectra = {name: m.hessian for name, m in measured.items()}
    sharpness = compare({name: m.sharpness for name, m in measured.items()})
    return page(
        '{% extends "report.html.j2" %}',
        comparison.title,
        interactive_figure({name: m.plane for name, m in measured.items()}),
        comparison=comparison,
        measured=measured,
        densities=densities,
        sentences=_sentences(
            comparison, summary(spectra, {n: m.trace for n, m in measured.items()}, sharpness)
        ),
        training=training.section(trained),
        contents=_contents(comparison, bool(densities), bool(trained)),
        tables=_tables(comparison),
        curves=list(_curves(comparison)),
        number=PLAIN.number,
        fact=lambda value: f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e5 else PLAIN.number(value),
        metric_name=metric_name,
        ends=lambda interval: between(interval[0], interval[1], 4),
        sharpness=_rows(sharpness, next(iter(measured.values())).sharpness),
        notes=(*legend(sharpness), *notes(sharpness)),
        pictures=embedded({**_pictures(comparison, measured), **training.pictures(trained)}),
        origins=_origins(comparison, measured),
        unfinished="" if comparison.finished else UNFINISHED,
    )


def read_comparison(folder: Path) -> tuple[Comparison, dict[str, Measured]]:
    """Read a folder's index, and the measurements of each checkpoint by its name.

    Raises:
        InputError: as `render`.
    """
    comparison = read_index(folder)
    return comparison, _read_all(folder, comparison)


def _read_all(folder: Path, comparison: Comparison) -> dict[str, Measured]:
    return {c.name: _read_measured(folder, c.name) for c in comparison.checkpoints}


def _read_measured(folder: Path, name: str) -> Measured:
    density, monitor = (result_path(folder, name, part) for part in ("density", "monitor"))
    return Measured(
        plane=load_as(Slice, result_path(folder, name, "plane")),
        line=load_as(Slice, result_path(folder, name, "line")),
        hessian=load_as(Eigenpairs, result_path(folder, name, "hessian")),
        trace=load_as(Trace, result_path(folder, name, "trace")),
        sharpness=load_as(Sharpness, result_path(folder, name, "sharpness")),
        density=load_as(SpectralDensity, density) if density.exists() else None,
        monitor=load_as(SharpnessHistory, monitor) if monitor.exists() else None,
    )


def _densities(measured: Mapping[str, Measured]) -> dict[str, SpectralDensity]:
    return {name: m.density for name, m in measured.items() if m.density}


def write_index(comparison: Comparison, folder: Path) -> None:
    """Write the index that `read_comparison` reads."""
    write_text(folder / INDEX, comparison.model_dump_json(indent=1))


def read_index(folder: Path) -> Comparison:
    """Read a folder's index.

    Raises:
        InputError: there is none, or it is not readable.
    """
    path = folder / INDEX
    if not path.exists():
        raise InputError(
            f"{folder} holds no comparison (no {INDEX}) and no {MONITOR}; make a comparison with: "
            f"landscape compare --out {folder}"
        )
    try:
        comparison = Comparison.model_validate_json(existing(path, "comparison", 2**28).read_bytes())
        FINITE.check(str(path), comparison.model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"{path} is of another version of landscape ({first['loc'][-1]} is unknown); "
                "run landscape compare again"
            ) from None
        raise InputError(
            f"{path} is not readable: {'.'.join(map(str, first['loc']))} {first['msg']}"
        ) from None
    names = [c.name for c in comparison.checkpoints]
    if not names or len(set(names)) < len(names) or any(Path(name).name != name for name in names):
        raise InputError(f"{path} needs at least one checkpoint, each with a unique name that is not a path")
    return comparison


def _pictures(comparison: Comparison, measured: Mapping[str, Measured]) -> Mapping[str, "Figure"]:
    """Draw what has been measured, and leave out what has not."""
    short = {name: _short(name, number) for number, name in enumerate(measured, start=1)}
    curves = {
        title: {short.get(name, name): curve for name, curve in of.items()}
        for title, of in _curves(comparison).items()
    }
    spectra = {short[name]: m.hessian for name, m in measured.items()}
    spread = {short[name]: density for name, density in _densities(measured).items()}
    found = {
        "planes": surface_figure({short[name]: m.plane for name, m in measured.items()}),
        "lines": surface_figure({short[name]: m.line for name, m in measured.items()}),
        "eigenvalues": eigenvalue_figure(spectra),
    }
    if curves:
        found["curves"] = curves_figure(curves)
    if spread:
        found["spectrum"] = spectrum_figure(spread, {name: spectra[name] for name in spread})
    return found


def _told(comparison: Comparison) -> list[tuple[str, Facts]]:
    """Return the facts of each checkpoint, with its name, and those of none."""
    return [*((c.name, c.facts) for c in comparison.checkpoints), ("", comparison.facts)]


def _sentences(comparison: Comparison, measured: Iterable[str]) -> list[str]:
    """Put what the tasks say about the checkpoints behind the first sentence, on their sharpness."""
    first, *others = measured
    return [first, *(said for _, facts in _told(comparison) for said in facts.statements), *others]


def _contents(comparison: Comparison, with_spectrum: bool, with_training: bool) -> dict[str, str]:
    """Return the headings of the page by their anchors."""
    found = {"curves": "Curves"} if _curves(comparison) else {}
    found |= {f"facts-{n}": table["title"] for n, table in enumerate(_tables(comparison), 1)}
    found |= {"surface": "Loss surface", "curvature": "Curvature"}
    found |= {"spectrum": "Spectrum"} if with_spectrum else {}
    found |= {"sharpness": "Sharpness"}
    found |= {"training": "Sharpness during training"} if with_training else {}
    return found | {"measured": "What was measured"}


def _tables(comparison: Comparison) -> list[dict[str, Any]]:
    """Join the tables of equal titles into one each."""
    found: dict[str, dict[str, Any]] = {}
    for name, facts in _told(comparison):
        for table in facts.tables:
            joined = found.setdefault(
                table.title, {"title": table.title, "columns": {}, "notes": {}, "rows": []}
            )
            joined["columns"] |= dict.fromkeys(table.columns)
            joined["notes"] |= dict.fromkeys([table.note] if table.note else [])
            joined["rows"] += [
                {
                    "of": name,
                    "name": ", ".join(filter(None, (row.name, row.note))),
                    "values": dict(zip(table.columns, row.values, strict=True)),
                    "intervals": dict(zip(table.columns, row.intervals, strict=False)),
                }
                for row in table.rows
            ]
    return list(found.values())


def _curves(comparison: Comparison) -> dict[str, dict[str, FactCurve]]:
    return by_title(_told(comparison))


def _short(name: str, number: int) -> str:
    """Return a name that a legend has room for; one that is cut has its number on the page in front."""
    return name if len(name) <= LEGEND else f"{number}: {name[: LEGEND // 2]}…{name[-LEGEND // 3 :]}"


def _rows(comparison: Contrasts, of: Sharpness) -> list[dict[str, Any]]:
    """Return the table of sharpness as a page shows it: below a value, how it contrasts with the first."""
    count = len(comparison.names)
    return [
        {
            "label": label.strip(),
            "formula": _formula(row.measure, of),
            "cells": [
                {"value": value, "contrast": contrast, "differs": found is not None and found.differs}
                for value, contrast, found in zip(
                    written[:count], ("", *written[count:]), (None, *row.contrasts), strict=True
                )
            ],
        }
        for row, (label, *written) in zip(comparison.rows, PLAIN.table(comparison)[1], strict=True)
    ]


def _formula(measure: str, result: Sharpness) -> str:
    """Say what a row of the table is: formula, source, and the settings that it depends on."""
    if measure not in MEASURES or measure not in result.measures:
        return {LOSS: "at the checkpoint, dropout off", NORM: "of all that takes part"}.get(measure, "")
    known, row = MEASURES[measure], result.measures[measure].settings
    settings = ", ".join(f"{key} {row[key]}" for key in known.uses if key in row and key != "seed")
    return f"{known.formula} ({known.source}){': ' if settings else ''}{settings}"


def _origins(comparison: Comparison, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Gather where the numbers are from: what all checkpoints share, what each has alone, all settings."""
    told = {
        name: {k: v for k, v in m.hessian.provenance.items() if v and k not in ("checkpoint", "request")}
        for name, m in measured.items()
    }
    shared = _common(told.values())
    own = {name: {k: v for k, v in of.items() if k not in shared} for name, of in told.items()}
    parts: dict[str, list[Result]] = {
        part: [result for m in measured.values() if (result := getattr(m, part))]
        for part in Measured.__dataclass_fields__
    }
    settings = [
        (part, _common([r.settings for r in results]), [r.seconds for r in results])
        for part, results in parts.items()
        if results
    ]
    return {
        "shared": shared | ({"landscape": comparison.version} if comparison.version else {}),
        "own": own,
        "differing": list(dict.fromkeys(key for of in own.values() for key in of)),
        "parts": [
            (part, {k: v for k, v in of.items() if v is not None and k != "fingerprint"}, seconds)
            for part, of, seconds in settings
        ],
    }


def _common(several: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all of several mappings say alike."""
    first, *others = several
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

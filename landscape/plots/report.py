"""One folder of results as one self-contained page."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.trace import Trace
from landscape.errors import InputError
from landscape.files import existing, replacing
from landscape.flatness.comparison import LOSS, NORM, compare
from landscape.flatness.measures import MEASURES, Sharpness
from landscape.flatness.tables import PLAIN, notes
from landscape.plots.curves import eigenvalue_figure, training_figure
from landscape.plots.interactive import interactive_figure
from landscape.plots.style import paper
from landscape.plots.surfaces import surface_figure
from landscape.results import load_as
from landscape.surface.slice import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX = "compare.json"
RANKING = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")


class Compared(BaseModel):
    """What is known of one checkpoint beside the measurements.

    Attributes:
        name: as shown, and the stem of its result files in the folder.
        path: of the checkpoint.
        test, valid: ranking metrics, where its task ranks; `users` says over how many.
        log: the lines of its metrics.jsonl, where there is one.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    users: int = 0
    valid: dict[str, float] = {}
    test: dict[str, float] = {}
    log: list[dict[str, Any]] = []


class Comparison(BaseModel):
    """The index of a comparison's folder, `compare.json`.

    Attributes:
        title: of the report.
        checkpoints: what was compared, in order.
        ideal_hr10: on synthetic data, what an ideal ranker expects to reach.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    checkpoints: list[Compared]
    ideal_hr10: float | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """The measurements of one checkpoint."""

    plane: Slice
    line: Slice
    hessian: Eigenpairs
    trace: Trace
    sharpness: Sharpness


def result_path(folder: Path, name: str, part: str) -> Path:
    """Where the measurement `part` (a field of `Measured`) of a checkpoint lies."""
    return folder / f"{name}.{part}.npz"


def render(folder: Path) -> Path:
    """Write `report.html` from the results in `folder`; return its path.

    Raises:
        InputError: the folder holds no comparison, or a result is missing or damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    comparison, measured = read_comparison(folder)
    planes = {name: m.plane for name, m in measured.items()}
    sharpness = compare({name: m.sharpness for name, m in measured.items()})
    logs = {c.name: c.log for c in comparison.checkpoints if c.log}
    environment = Environment(
        loader=PackageLoader("landscape.plots", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        comparison=comparison,
        measured=measured,
        sentences=list(_sentences(measured)),
        ranking=RANKING,
        sharpness=PLAIN.table(sharpness),
        formulas=[_formula(row.measure, next(iter(measured.values())).sharpness) for row in sharpness.rows],
        notes=notes(sharpness),
        pictures={
            "training": _embedded(training_figure(logs)) if logs else None,
            "planes": _embedded(surface_figure(planes)),
            "lines": _embedded(surface_figure({name: m.line for name, m in measured.items()})),
            "eigenvalues": _embedded(eigenvalue_figure({name: m.hessian for name, m in measured.items()})),
        },
        # Plotly writes its own JSON with <, > and & escaped inside the script.
        interactive=interactive_figure(planes).to_html(
            include_plotlyjs=True, full_html=False, div_id="interactive-surface", config={"responsive": True}
        ),
    )
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page, "utf-8")
    return path


def read_comparison(folder: Path) -> tuple[Comparison, dict[str, Measured]]:
    """Read a folder's index, and the measurements of each checkpoint by its name.

    Raises:
        InputError: as `render`.
    """
    comparison = _read_index(folder)
    measured = {
        c.name: Measured(
            plane=load_as(Slice, result_path(folder, c.name, "plane")),
            line=load_as(Slice, result_path(folder, c.name, "line")),
            hessian=load_as(Eigenpairs, result_path(folder, c.name, "hessian")),
            trace=load_as(Trace, result_path(folder, c.name, "trace")),
            sharpness=load_as(Sharpness, result_path(folder, c.name, "sharpness")),
        )
        for c in comparison.checkpoints
    }
    return comparison, measured


def write_index(comparison: Comparison, folder: Path) -> None:
    """Write the index that `read_comparison` reads."""
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(comparison.model_dump_json(indent=1), "utf-8")


def _read_index(folder: Path) -> Comparison:
    path = folder / INDEX
    if not path.exists():
        raise InputError(
            f"{folder} holds no comparison (no {INDEX}); make one with: landscape compare --out {folder}"
        )
    try:
        comparison = Comparison.model_validate_json(existing(path, "comparison").read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path} is not readable: {'.'.join(map(str, first['loc']))} {first['msg']}"
        ) from None
    names = [c.name for c in comparison.checkpoints]
    if not names or len(set(names)) < len(names) or any(Path(name).name != name for name in names):
        raise InputError(f"{path} needs at least one checkpoint, each with a name of its own that is no path")
    return comparison


def _embedded(figure: "Figure") -> str:
    buffer = io.BytesIO()
    with paper():
        figure.savefig(buffer, format="png", dpi=200)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _formula(measure: str, result: Sharpness) -> str:
    """Say what a row of the table is: formula, source, and the settings that it depends on."""
    if measure not in MEASURES or measure not in result.measures:
        return {LOSS: "at the checkpoint, dropout off", NORM: "of all that takes part"}.get(measure, "")
    known, row = MEASURES[measure], result.measures[measure]
    settings = ", ".join(f"{name} {row[name]}" for name in known.uses if name in row and name != "seed")
    return f"{known.formula} ({known.source}){': ' if settings else ''}{settings}"


def _sentences(measured: Mapping[str, Measured]) -> Sequence[str]:
    """Say in words what the numbers say, and what they do not."""
    first, *others = measured
    return [
        *(_contrast(first, measured[first], name, measured[name]) for name in others),
        *(sentence for name, m in measured.items() for sentence in _cautions(name, m.hessian)),
    ]


def _contrast(name_a: str, a: Measured, name_b: str, b: Measured) -> str:
    pairs = [("λmax", a.hessian.eigenvalues[0], b.hessian.eigenvalues[0])]
    for key, label in (("sam", "one-step sharpness"), ("asam", "its scale-invariant form (ASAM)")):
        pairs.append((label, *(m.sharpness.measures[key]["value"] for m in (a, b))))
    pairs.append(("‖θ‖", a.sharpness.weight_norm, b.sharpness.weight_norm))
    return (
        f"{name_b} against {name_a}: "
        + "; ".join(f"{label} {y:.4g} against {x:.4g} ({_ratio(y, x)})" for label, x, y in pairs)
        + ". A measure that depends on the scale of the weights can change by their scale alone."
    )


def _cautions(name: str, hessian: Eigenpairs) -> Iterator[str]:
    if why := hessian.not_a_minimum:
        yield f"{name} is no minimum of the measured loss: {why}."
    if not all(hessian.converged):
        failed = hessian.converged.count(False)
        yield f"{name}: {failed} of {len(hessian.converged)} eigenvalues have not converged."


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.2f}×" if b else "no ratio"

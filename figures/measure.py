"""What the study measures of its trained runs, each into one small file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import landscape as ll
from benchmarks.where import where
from figures.records import Record
from figures.style import PAIR
from landscape.flatness.tables import entries
from landscape.objective.objective import Objective
from landscape.storage.files import write_text
from landscape.surface.frames import eigen_frame
from landscape.tasks import TaskOptions, objective_of
from samrec.checkpoint import kept, load
from samrec.config import Config
from samrec.data.packing import Batch
from samrec.data.readers import read
from samrec.data.split import Split, leave_one_out
from samrec.losses import drawn_scores, loss_of
from samrec.methods import batches_of, initial_model
from samrec.model import Recommender

USERS = 2048  # of the figures; a minimum among many is measured on a quarter of them
MANY = 512
SEEDS = 10  # of random lines
EIGEN_RADIUS = 4.0
BATCHES = 20  # of a training, on which a step of SAM is looked at
RHO = 0.1  # of the study's SAM
SATURATED = 0.05  # a position's share σ(-s) of the largest slope, below which it counts as saturated
TABLES = ("item.weight", "position.weight")  # what the planes without embeddings hold still
OF_GROUPS = ("trace", "sam", "asam", "average-adaptive")
FLATNESS = ("sam", "asam", "average", "average-adaptive", "fisher-rao", "relative-flatness-embedding")


@dataclass(frozen=True)
class Bench:
    """Where checkpoints and data lie, and where results go."""

    work: Path
    data: Path
    results: Path
    device: str = "auto"

    def best(self, record: Record) -> Path:
        return self.work / record.name / "best.pt"

    def objective(self, checkpoint: Path, record: Record, **options: Any) -> Objective:
        """Freeze a checkpoint's loss."""
        options = {"users": USERS} | options
        data = self.data / f"{record.data}.txt"
        return objective_of(checkpoint, TaskOptions(device=self.device, data=data, **options))

    def write(self, found: Mapping[str, Any], name: str) -> None:
        """Write what was found as JSON, with where it was found."""
        write_text(self.results / f"{name}.json", json.dumps({"where": where(), **found}, indent=1) + "\n")


@dataclass(frozen=True)
class Measurement:
    """One file of results.

    Attributes:
        name: of the file in the results' folder, without its ending.
        ending: npz of a `landscape` result, json of the study's own.
        runs: whose checkpoints it takes.
    """

    name: str
    ending: str
    runs: tuple[Record, ...]
    make: Callable[[Bench, str], None]

    def path(self, results: Path) -> Path:
        return results / f"{self.name}.{self.ending}"


def minimum_of(record: Record) -> Measurement:
    """Return the measurement of a run's best epoch, which is made right after its training."""
    return Measurement(f"minima/{record.name}", "json", (record,), partial(_minimum, record))


def trajectory_of(record: Record) -> Measurement:
    """Return that of the epochs that it kept."""
    label = f"{record.data}-{record.loss}.{record.method}"
    return Measurement(f"{PAIR}/trajectories/{label}", "json", (record,), partial(_trajectory, record))


def landscapes(sasrec: Sequence[Record], samrec: Sequence[Record]) -> Iterator[Measurement]:
    """Yield what is drawn of two methods' first runs, and the barriers between them and their second ones."""
    firsts = (sasrec[0], samrec[0])
    label = f"{firsts[0].data}-{firsts[0].loss}"
    for record in firsts:
        one = f"{label}.{record.method}"
        for view in ("random", "eigen", "still"):
            yield Measurement(f"{PAIR}/planes/{one}.{view}", "npz", (record,), partial(_plane, record, view))
        for seed in range(SEEDS):
            yield Measurement(f"{PAIR}/lines/{one}.{seed}", "npz", (record,), partial(_line, record, seed))
        yield Measurement(f"{PAIR}/steps/{one}", "json", (record,), partial(_steps, record))
        yield Measurement(f"{PAIR}/spectra/{one}.density", "npz", (record,), partial(_density, record))
        yield Measurement(
            f"{PAIR}/spectra/{one}.eigenvalues", "npz", (record,), partial(_eigenvalues, record)
        )
    yield Measurement(f"{PAIR}/sharpness/{label}", "json", firsts, partial(_sharpness, firsts))
    ways = {
        "one-start": firsts,
        "two-starts": (sasrec[0], samrec[1]),
        "two-sasrec": (sasrec[0], sasrec[1]),
        "two-samrec": (samrec[0], samrec[1]),
    }
    for way, (a, b) in ways.items():
        yield Measurement(f"{PAIR}/barriers/{label}.{way}", "npz", (a, b), partial(_barrier, a, b))


def _minimum(record: Record, bench: Bench, name: str) -> None:
    bench.write({"run": record.name, **_look(bench, bench.best(record), record, 5)}, name)


def _trajectory(record: Record, bench: Bench, name: str) -> None:
    at = kept(bench.work / record.name)
    found = [{"epoch": epoch, **_look(bench, at[epoch], record)} for epoch in at if epoch and not epoch % 20]
    bench.write({"run": record.name, "epochs": found}, name)


def _look(bench: Bench, checkpoint: Path, record: Record, top: int = 1) -> dict[str, Any]:
    """Measure one checkpoint shortly: losses, the `top` eigenvalues, trace and sharpness."""
    objective = bench.objective(checkpoint, record, users=MANY)
    valid = bench.objective(checkpoint, record, users=MANY, metric="valid-loss")
    operator = ll.hessian(objective)
    pairs = ll.top_eigenpairs(operator, top)
    estimate = ll.trace(operator, probes=20)
    flat = ll.sharpness(objective, FLATNESS)
    return {
        "users": MANY,
        "loss": flat.loss,
        "valid_loss": valid.value(valid.theta),
        "weight_norm": flat.weight_norm,
        "gradient_norm": pairs.gradient_norm,
        "lambda_max": float(pairs.eigenvalues[0]),
        "residual": float(pairs.residuals[0]),
        "eigenvalues": pairs.eigenvalues.tolist(),
        "lambda_min": pairs.smallest,
        "trace": estimate.value,
        "trace_se": estimate.standard_error,
        "measures": {
            key: {"value": row.value, "se": row.standard_error} for key, row in flat.measures.items()
        },
        "provenance": _named(flat.provenance, record, checkpoint.name),
    }


def _named(provenance: Mapping[str, Any], record: Record, checkpoint: str = "best.pt") -> dict[str, Any]:
    """Return a result's provenance with names of the study in place of where files lay."""
    return dict(provenance) | {
        "checkpoint": f"runs/{record.name}/{checkpoint}",
        "data": f"{record.data}.txt",
    }


def _save(found: Any, record: Record, bench: Bench, name: str, **more: Any) -> None:
    """Save a result with the names of the study, and on what it ran."""
    on = {key: str(value) for key, value in where().items()}
    path = bench.results / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(found, provenance=_named(found.provenance, record) | on | more).save(path)


def _plane(record: Record, view: str, bench: Bench, name: str) -> None:
    objective = bench.objective(bench.best(record), record, exclude=TABLES if view == "still" else ())
    if view == "eigen":
        found = ll.evaluate_slice(objective, eigen_frame(objective, 2), radius=EIGEN_RADIUS, tol=1e-3)
    else:
        found = ll.plane(objective, tol=1e-3)
    _save(replace(found, deviations=found.deviations[:0]), record, bench, name)


def _line(record: Record, seed: int, bench: Bench, name: str) -> None:
    found = ll.line(bench.objective(bench.best(record), record), seed=seed)
    _save(replace(found, deviations=found.deviations[:0]), record, bench, name)


def _density(record: Record, bench: Bench, name: str) -> None:
    operator = ll.hessian(bench.objective(bench.best(record), record))
    _save(ll.spectral_density(operator), record, bench, name)


def _eigenvalues(record: Record, bench: Bench, name: str) -> None:
    found = ll.top_eigenpairs(ll.hessian(bench.objective(bench.best(record), record)), 5)
    none = np.empty((0, found.eigenvectors.shape[1]))
    small = replace(found, eigenvectors=none, smallest_eigenvectors=none)  # 16 MB
    _save(small, record, bench, name)


def _sharpness(records: tuple[Record, ...], bench: Bench, name: str) -> None:
    frozen = {record.method: bench.objective(bench.best(record), record) for record in records}
    found = {method: ll.sharpness(objective) for method, objective in frozen.items()}
    groups = {method: ll.sharpness_by_group(objective, OF_GROUPS) for method, objective in frozen.items()}
    bench.write({"runs": [r.name for r in records], **entries(ll.compare(found, groups))}, name)


def _barrier(a: Record, b: Record, bench: Bench, name: str) -> None:
    start, end = (bench.objective(bench.best(record), record) for record in (a, b))
    ranks = bench.objective(bench.best(a), a, metric="ndcg@10")
    found = ll.barrier(start, end, metrics={"ndcg@10": ranks})
    _save(found, a, bench, name, other=_named(found.provenance["other"], b))


def _steps(record: Record, bench: Bench, name: str) -> None:
    best = load(bench.best(record))
    config = best.config
    split = leave_one_out(read(bench.data / f"{record.data}.txt"))
    model = initial_model(config, split.num_items)
    found = {"initial": _step(model, config, split)}
    model.load_state_dict(best.weights)
    bench.write({"run": record.name, **found, "best": _step(model, config, split)}, name)


def _step(model: Recommender, config: Config, split: Split) -> dict[str, Any]:
    """Measure what a step of SAM makes of the gradient of a batch, as the training has it, with dropout.

    Angles are in degrees: between a batch's gradients at w and at w + ρ ∇L/‖∇L‖, and between those of one
    batch and of the next at w. To first order the former is the part of ρ H u that is not along u = ∇L/‖∇L‖.
    """
    device = torch.device("cpu")
    batches = batches_of(config, split, device).epoch(config.batch_size, (config.seed, 0))
    loss = ll.in_training_mode(loss_of(config.loss, config.calibration))
    rows: dict[str, list[float]] = {}
    gradients = []
    for batch in islice(batches, BATCHES):
        objective = ll.Objective(model, [batch], loss, check=False)
        gradient = objective.grad()
        norm = float(gradient.norm())
        unit = gradient / norm
        risen, image = objective.grad(objective.theta + RHO * unit), objective.hvp(unit)
        along = float(unit @ image)
        told = {
            "loss": objective.value(),
            "gradient_norm": norm,
            "longer": float(risen.norm()) / norm - 1,
            "angle": _angle(gradient, risen),
            "longer_to_first_order": RHO * along / norm,
            "angle_to_first_order": float(np.degrees(RHO * (image - along * unit).norm() / norm)),
            **ll.in_training_mode(_saturated)(model, batch),
        }
        for key, value in told.items():
            rows.setdefault(key, []).append(value)
        gradients.append(gradient)
    rows["angle_of_batches"] = [_angle(a, b) for a, b in pairwise(gradients)]
    return {key: {"mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1))} for key, v in rows.items()}


def _angle(a: torch.Tensor, b: torch.Tensor) -> float:
    cosine = float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def _saturated(model: Recommender, batch: Batch) -> dict[str, float]:
    """Return the shares of targets and of negatives whose slope has all but vanished."""
    with torch.no_grad():
        slopes = torch.sigmoid(drawn_scores(model, batch))
    used = batch.used > 0
    return {
        "saturated_targets": float((1 - slopes[0][used] < SATURATED).float().mean()),
        "saturated_negatives": float((slopes[1][used] < SATURATED).float().mean()),
    }

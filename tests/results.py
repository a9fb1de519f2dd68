"""Made-up results of measurements, and a folder of a comparison made of them."""

import math

import numpy as np

from landscape import Sharpness, Slice, SpectralDensity
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.trace import Trace
from landscape.flatness.measures import MEASURES, Measurement
from landscape.report.report import Compared, Comparison, result_path, write_index
from landscape.tasks import FactCurve, FactRow, Facts, FactTable

LONG = "a_name_that_says_everything_about_its_training_and_never_takes_a_breath"
METRICS = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
HOSTILE = "<script>alert('x')</script>{{ 7 * 7 }}"
COMMON = {
    "settings": {"theta_norm": 2.0, "matrix": "hessian", "tol": 1e-3},
    "provenance": {"data": HOSTILE},
    "seconds": 0.1,
}


def shown(losses, *coordinates, **changes):
    """A plain grid, or what `changes` make of it."""
    known = {
        "coordinates": coordinates,
        "losses": losses,
        "nodes": coordinates,
        "samples": losses,
        "certificate": None,
        "deviations": np.empty((0, 0)),
        "marks": [],
        "trajectory": np.empty((0, len(coordinates))),
        "center": 0.0,
        "directions": [{"kind": "random", "norm": 1.0}] * len(coordinates),
        "cosine": 0.01 if len(coordinates) == 2 else None,
        "evaluations": losses.size,
    }
    return Slice(**known | COMMON | changes)


POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")


def read_tick(written):
    """Read what stands beside a tick: 0.5, 10⁵ or 3×10⁻⁷."""
    digits, _, power = written.rpartition("10") if set(written) & set("⁻⁰¹²³⁴⁵⁶⁷⁸⁹") else (written, "", "0")
    return float(digits.rstrip("×") or 1) * 10.0 ** int(power.translate(POWERS))


def plane(height=1.0, grid=5, **changes):
    axis = np.linspace(-1, 1, grid)
    return shown(height * (axis[:, None] ** 2 + 0.2 * axis[None, :]), axis, axis, **changes)


def line(height=1.0, **changes):
    axis = np.linspace(-1, 1, 5)
    return shown(height * axis**2, axis, **changes)


def hessian(smallest=-0.5):
    return Eigenpairs(
        eigenvalues=np.array([3.0, 2.0]),
        eigenvectors=np.eye(2),
        residuals=np.array([1e-4, 0.5]),
        converged=[True, False],
        smallest_eigenvalues=np.array([] if smallest is None else [smallest]),
        smallest_eigenvectors=np.ones((int(smallest is not None), 2)),
        smallest_residuals=np.full(int(smallest is not None), 1e-4),
        products=9,
        gradient_norm=0.3,
        **COMMON,
    )


def trace(value, noise=1.0):
    samples = value + noise * np.array([-1.0, 0.0, 1.0])
    return Trace(value=value, standard_error=noise / 3**0.5, samples=samples, **COMMON)


def sharpness(factor=1.0, noise=1e-3, measures=("sam", "asam")):
    """Measures whose draws of one seed differ by `factor`, and a little by themselves."""
    draws = factor * np.linspace(0.9, 1.1, 20) + noise * np.random.default_rng(0).normal(size=20) * factor
    rows = {name: Measurement(float(draws.mean()), 0.01, {"rho": 0.1}) for name in measures}
    return Sharpness(
        loss=0.3,
        weight_norm=2.0,
        measures=rows,
        by_draw=(draws,) * len(rows),
        by_unit=(np.empty(0),) * len(rows),
        loss_by_unit=np.linspace(0.2, 0.4, 9),
        **COMMON,
    )


def density():
    nodes = (np.array([-0.5, 1.0, 3.0]),) * 2
    own = {"settings": COMMON["settings"] | {"probes": 2, "steps": 3}}
    return SpectralDensity(
        nodes=nodes,
        weights=(np.full(3, 1 / 3),) * 2,
        moments=np.array([[3.5, 3.5], [10.25, 10.25]]),
        dimension=3,
        **COMMON | own,
    )


def facts(*between, users=3, note="", log=((1, 1.0), (2, 0.5))):
    """What a task tells: rankings, with intervals `between` if given, and a curve."""
    rows = [
        FactRow(name, (0.25,) * len(METRICS), between and (between,) * len(METRICS), f"{users:,} users")
        for name in ("validation", "test")
    ]
    x, y = zip(*log, strict=True)
    table = FactTable("Ranking", METRICS, tuple(rows), note, ("test", "ndcg@10"))
    return Facts((table,), (FactCurve("training loss", "epoch", x, y),))


def folder_of(path, names, spectrum=True, **known):
    """A folder of a comparison, each checkpoint steeper than the one before."""
    for number, name in enumerate(names, start=1):
        parts = {
            "plane": plane(number, center=0.1),
            "line": line(number),
            "hessian": hessian(),
            "trace": trace(7.0),
            "sharpness": sharpness(number),
        }
        for part, result in (parts | ({"density": density()} if spectrum else {})).items():
            result.save(result_path(path, name, part))
    compared = [Compared(name=name, path=f"{name}/best.pt", **known) for name in names]
    write_index(Comparison(title="A comparison", checkpoints=compared, command="landscape compare"), path)
    return path


def hostile_folder(path):
    """A folder of a comparison whose names are hostile, and whose minima are none."""
    checkpoints = []
    for name, height in (("plain", 1.0), ("b & <i>c", 2.0)):
        rows = {key: Measurement(height, 0.1, dict.fromkeys(m.uses, 1)) for key, m in MEASURES.items()}
        for part, result in {
            "plane": plane(height),
            "line": line(height),
            "hessian": hessian(None if name == "plain" else -0.5),
            "trace": Trace(value=7.0, standard_error=0.5, samples=np.ones(3), **COMMON),
            "sharpness": Sharpness(loss=0.3, weight_norm=2.0, measures=rows, **COMMON),
        }.items():
            result.save(result_path(path, name, part))
        checkpoints.append(Compared(name=name, path=HOSTILE, facts=facts(note=HOSTILE)))
    own = Facts((FactTable("Ranking", (HOSTILE,), (FactRow(HOSTILE, (0.9,)),), HOSTILE),))
    index = Comparison(title=HOSTILE, checkpoints=checkpoints, facts=own)
    write_index(index, path)
    return path


SETTINGS = {"rho": 0.1, "seed": 0}
PROVENANCE = {"data_sha256": "ab", "users": "40", "objective_seed": "0", "include": "*", "exclude": ""}
NONE = np.empty(0)


def standard_error(*kinds):
    found = [k.var(ddof=1) / len(k) for k in kinds if len(k) > 1]
    return math.sqrt(sum(found)) if found else None


def measured(rows, loss=0.2, norm=10.0, settings=SETTINGS, provenance=PROVENANCE):
    """A result by hand, from each measure's pseudo-values of draws and units, or its value alone."""
    full = {
        name: row
        if isinstance(row, tuple)
        else (row, NONE, NONE)
        if np.isscalar(row)
        else (row.mean(), NONE, row)
        for name, row in rows.items()
    }
    return Sharpness(
        loss=loss,
        weight_norm=norm,
        measures={
            name: Measurement(float(v), standard_error(d, u), settings) for name, (v, d, u) in full.items()
        },
        by_draw=tuple(d for _, d, _ in full.values()),
        by_unit=tuple(u for _, _, u in full.values()),
        settings=settings,
        provenance=provenance,
        seconds=0.0,
    )

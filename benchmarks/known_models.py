"""`python -m benchmarks.known_models`: second derivatives of models that people know, ours and peers'.

The models are those of `benchmarks/models.py`, with random weights. Each measurement is of one batch, in one
thread. With `--peers`, three other packages measure the same in an environment of their own, in turns with
ours (`peers/known_models.py` says how each is asked). The machine may be busy, so seconds are those that the
process spent on a CPU, and the least of several rounds. Memory is the peak of all new tensors that are alive
at once, what set-up left behind included, in multiples of θ (`landscape.runtime.allocations`). A measurement
that needs more than `--memory` is left out and is null. Results of models that are not asked for stay.
"""

import argparse
import json
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import landscape as ll
from benchmarks.models import MODELS, drawn, loss
from benchmarks.packages import PROBES, PRODUCTS, TOP, Package, cpu_seconds, flat, measured
from benchmarks.surface import said_by
from benchmarks.train import HERE, write
from benchmarks.where import where
from landscape.runtime.allocations import peak

QUICK = ("ResNet-20", "GPT, 5 M")
PEERS = ("PyHessian", "hessian-eigenthings", "curvlinops-for-pytorch")
TOL = 1e-2  # of a plane, of its range; loss-landscapes and Landscaper draw grids, a value of the loss a point
Ask = Callable[..., dict[str, Any]]
"""Takes the options of peers/known_models.py, returns what it says."""


def _eigenpairs(operator: ll.Operator) -> tuple[Tensor, Tensor]:
    found = ll.top_eigenpairs(operator, TOP, smallest=0, max_products=PRODUCTS)
    return torch.from_numpy(found.eigenvalues), torch.from_numpy(found.eigenvectors)


OURS = Package(
    lambda model, batch: ll.hessian(ll.Objective(model, [batch], loss)),
    ll.Operator.__call__,
    _eigenpairs,
    partial(ll.trace, probes=PROBES),
)


def ours_alone(name: str, rounds: int) -> dict[str, Any]:
    """Measure what has no counterpart in a peer: CPU seconds, the least of several, and the peak in θ."""
    model, batch, along = drawn(name)
    vector = flat(along)
    objective = ll.Objective(model, [batch], loss)
    operator = ll.hessian(objective)
    cells: dict[str, Callable[[], Any]] = {
        "construction": partial(ll.Objective, model, [batch], loss),
        "value": objective.value,
        "gradient": objective.grad,
        "product, built anew": partial(objective.hvp, vector),
        "hessian(), unchecked": lambda: ll.hessian(ll.Objective(model, [batch], loss, check=False)),
        f"power iteration, {PRODUCTS} products": lambda: ll.top_eigenpairs(
            operator, 1, "power", smallest=0, max_products=PRODUCTS, tol=1e-9
        ),
    }
    known = [*model.parameters(), *model.buffers(), *batch, *along, objective.theta, vector]
    drawn_plane, plane_seconds = cpu_seconds(partial(ll.plane, objective, tol=TOL))
    return {
        "parameters": objective.params.numel,
        "seconds": {
            called: min(cpu_seconds(compute)[1] for _ in range(rounds)) for called, compute in cells.items()
        },
        "peak / θ": {called: peak(compute, known)[1] / vector.nbytes for called, compute in cells.items()},
        "plane": {
            "tol": TOL,
            "points": drawn_plane.evaluations,
            "error": drawn_plane.certificate.max_error,
            "seconds": plane_seconds,
        },
    }


def in_turns(name: str, rounds: int, eigenvalues: bool, ask: Ask | None) -> dict[str, Any]:
    """Measure ours and the peers on a model, in turns, and take the least seconds of all rounds."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        counted = not number
        runs.setdefault("ours", []).append(measured(OURS, name, counted, eigenvalues))
        for peer in PEERS if ask else ():
            assert ask
            told = [
                "--peer",
                peer,
                "--model",
                name,
                *["--counted"] * counted,
                *["--no-eigenvalues"] * (not eigenvalues),
            ]
            runs.setdefault(peer, []).append(ask(*told))
    return {
        who: found[0] | {"seconds": least([run["seconds"] for run in found])} for who, found in runs.items()
    }


def least(runs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the least of each cell, of the rounds that had memory for it."""
    found = {name: [run[name] for run in runs] for name in runs[0]}
    return {name: min((s for s in of if s is not None), default=None) for name, of in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=QUICK)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-eigenvalues", action="store_true", help="leave them out; they take minutes")
    parser.add_argument(
        "--peers", type=Path, help="Python of an environment with benchmarks/peers/hessian_requirements.txt"
    )
    parser.add_argument("--memory", type=float, default=8, help="gigabytes that a process may have")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "known_models.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (int(asked.memory * 1e9), most))  # the peers inherit it
    ask = partial(said_by, str(asked.peers), "known_models.py", 1) if asked.peers else None
    before = json.loads(asked.out.read_text())["models"] if asked.out.exists() else {}
    found: dict[str, Any] = {"where": where(), "gigabytes": asked.memory, "models": before}
    for name in asked.models:
        entry: dict[str, Any] = {"where": found["where"]}
        entry["packages"] = in_turns(name, asked.rounds, not asked.no_eigenvalues, ask)
        found["models"][name] = entry
        write(found, asked.out)  # the peers take long: what they said is not lost if ours is stopped
        entry["ours alone"] = ours_alone(name, asked.rounds)
        write(found, asked.out)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

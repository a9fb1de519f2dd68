"""`make cuda`: all that waits for a CUDA device in one call: tests, and what measuring and training take.

It needs a Python whose torch knows the device, and pytest for the tests, but neither plotly nor polars. The
models are those of `benchmarks/models.py`, on the device and on the CPU with all its threads. Seconds are on
the clock, the least of three. Memory is the peak of the device's allocator, weights included, in multiples of
θ. What is found is written as it comes, to benchmarks/results/cuda.json.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import landscape as ll
from benchmarks.models import MODELS, drawn, loss
from benchmarks.train import HERE, epochs, on_a_gpu, write
from benchmarks.where import where
from landscape.errors import words_of

ROUNDS = 3
SLOW = "five eigenvalues", "plane"
"""Left out on the CPU, where they take minutes."""


def checked() -> dict[str, Any]:
    """Run the tests that need the device."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=HERE.parent)
    lines = (ran.stdout + ran.stderr).splitlines()
    return {
        "said": lines[-1] if lines else "",
        "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
        "seconds": round(time.perf_counter() - started, 1),
    }


def measured(name: str, device: torch.device) -> dict[str, Any]:
    """Return the seconds and the peak of memory of each measurement of a model."""
    model, batch, along = drawn(name)
    objective = ll.Objective(model.to(device), [batch], loss)
    operator = ll.hessian(objective)
    vector = torch.cat([part.flatten() for part in along]).to(device)
    cells: dict[str, Callable[[], Any]] = {
        "objective": partial(ll.Objective, model, [batch], loss),
        "operator, checked": lambda: ll.hessian(ll.Objective(model, [batch], loss)),
        "value": objective.value,
        "gradient": objective.grad,
        "product": lambda: operator(vector).sum().item(),
        "trace, 30 probes": partial(ll.trace, operator, probes=30),
        "five eigenvalues": partial(ll.top_eigenpairs, operator, 5, smallest=0, tol=1e-2),
        "plane": partial(ll.plane, objective, tol=1e-2),
    }
    found: dict[str, Any] = {"parameters": objective.params.numel}
    for called, compute in cells.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif called in SLOW:
            continue
        seconds = min(_seconds(compute) for _ in range(1 if called in SLOW else ROUNDS))
        found[called] = {"seconds": round(seconds, 5)}
        if device.type == "cuda":
            found[called]["peak / θ"] = round(torch.cuda.max_memory_allocated() / objective.theta.nbytes, 2)
    return found


def _seconds(compute: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    compute()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--data", type=Path, help="Beauty.txt, for the training; left out without it")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cuda.json")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "torch finds no CUDA device here\n")
    found: dict[str, Any] = {"where": where(), "tests": checked(), "models": {}}
    write(found, asked.out)
    for name in asked.models:
        of_model: dict[str, Any] = {}
        found["models"][name] = of_model
        for device in ("cuda", "cpu"):
            try:
                of_model[device] = measured(name, torch.device(device))
            except Exception as error:  # a model may not fit the device; the others are measured all the same
                of_model[device] = words_of(error)
            write(found, asked.out)
    if asked.data:
        found["epochs"] = epochs(asked.data, torch.device("cuda"), ROUNDS, with_padded=False)
        write(found, asked.out)
        found["training"] = on_a_gpu(asked.data)
        write(found, asked.out)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

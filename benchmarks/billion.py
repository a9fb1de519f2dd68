"""`python -m benchmarks.billion`: value, gradient and top eigenvalue of a model of a billion parameters.

A transformer of 20 layers with random weights and one short sequence. Its parameters lie in θ (`copy=False`),
and power iteration keeps no basis, so that a machine of 24 GB is enough. Each step notes the CPU seconds that
it took and the most memory that the process held in it, in bytes and in multiples of θ, weights included
(Linux: `VmHWM`, which `/proc/self/clear_refs` sets back).
"""

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

import landscape as ll
from benchmarks.models import Transformer, loss
from benchmarks.train import HERE, write
from benchmarks.where import where

LAYERS, HEAD, TOKENS = 20, 64, 8192
T = TypeVar("T")


def transformer(parameters: int, length: int) -> Transformer:
    """Return a GPT of about so many parameters: 12 d² a layer."""
    width = HEAD * max(1, round((parameters / (12 * LAYERS)) ** 0.5 / HEAD))
    return Transformer(width, LAYERS, width // HEAD, length, TOKENS, causal=True, before=True).eval()


class Steps:
    """What was measured of each step, by its name."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        started = time.process_time()
        result = compute()
        spent, most = time.process_time() - started, _most()
        self.found[name] = {"seconds": spent, "peak": most}
        print(f"{name}: {spent:.1f} s, {most / 1e9:.2f} GB", flush=True)
        return result


def _most() -> int:
    """Return the most bytes that this process has held in memory since the peak began anew."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=10**9)
    parser.add_argument("--length", type=int, default=16, help="tokens of the sequence")
    parser.add_argument("--products", type=int, default=12, help="the most that power iteration may take")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "billion.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = Steps()
    model = step("model", lambda: transformer(asked.parameters, asked.length))
    batch = torch.randint(TOKENS, (1, asked.length)), torch.randint(TOKENS, (1, asked.length))
    objective = step("objective", lambda: ll.Objective(model, [batch], loss, copy=False))
    value = step("value", objective.value)
    operator = step("hessian(), checked", lambda: ll.hessian(objective))
    slope = step("gradient", lambda: float(objective.grad().norm()))
    pairs = step(
        f"top eigenvalue, {asked.products} products",
        lambda: ll.top_eigenpairs(operator, 1, "power", smallest=0, max_products=asked.products, tol=1e-2),
    )
    theta = objective.theta.nbytes
    found: dict[str, Any] = {
        "where": where(),
        "parameters": objective.params.numel,
        "tokens": asked.length,
        "θ": theta,
        "steps": {name: of | {"peak / θ": of["peak"] / theta} for name, of in step.found.items()},
        "value": value,
        "gradient norm": slope,
        "eigenvalue": float(pairs.eigenvalues[0]),
        "residual": float(pairs.residuals[0]),
        "products": pairs.products,
        "derivatives": objective.provenance["derivatives"],
        "strategy": pairs.settings["strategy"],
    }
    write(found, asked.out)


if __name__ == "__main__":
    main()

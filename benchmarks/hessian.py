"""`python -m benchmarks.hessian`: five eigenvalues, and a product, against peers and the machine's limits.

Everything is timed in one run, in turns; what counts is the ratios. Each pair's residual is measured, since
not every peer stops on it. The result, with machine and versions, goes to benchmarks/results/
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import landscape as ll
from benchmarks.surface import operations, profiled, said_by
from benchmarks.train import HERE, limits, memory, ratio, write
from benchmarks.where import where
from landscape.objective.objective import Objective
from landscape.tasks import TaskOptions
from samrec.task import objective

TOP = 5
OURS: Mapping[str, Mapping[str, Any]] = {
    "ours": {"smallest": 0},
    "ours, λmin included": {"smallest": 1},
    "ours, by power iteration": {"smallest": 0, "method": "power"},
}
PEERS = ("hessian-eigenthings", "curvlinops-for-pytorch")
SLOW_PEER = "PyHessian"  # minutes a run
PRODUCTS = 5  # of which a round takes the median
Ask = Callable[..., dict[str, Any]]
"""Takes the options of peers/hessian_eigenvalues.py, returns what it says."""


def eigenvalues(own: Objective, ask: Ask | None, rounds: int, slow_tol: float) -> dict[str, Any]:
    """Find the top five by our solvers, and by each peer on padded batches, in turns."""
    ll.top_eigenpairs(own, TOP, smallest=0)  # not counted
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for name, settings in OURS.items():
            runs.setdefault(name, []).append(ours(own, settings))
        if ask:
            for name in PEERS:
                runs.setdefault(name, []).append(ask("--peer", name))
        if ask and number == 0:
            runs[SLOW_PEER] = [ask("--peer", SLOW_PEER, "--tol", str(slow_tol))]
    seconds = {name: [run["seconds"] for run in found] for name, found in runs.items()}
    return {
        "runs": {name: found[0] | {"seconds": median(seconds[name])} for name, found in runs.items()},
        "seconds / ours": {
            name: median(s / o for s, o in zip(seconds[name], seconds["ours"], strict=False))
            for name in runs  # the slow one has the first round alone
        },
        "all_seconds": seconds,
    }


def ours(own: Objective, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find our top five once."""
    on_gpu = own.theta.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    found = ll.top_eigenpairs(own, TOP, tol=1e-3, **settings)
    return {
        "seconds": found.seconds,
        "products": found.products,
        "eigenvalues": found.eigenvalues.tolist(),
        "residuals": found.residuals.tolist(),
        "smallest": found.smallest,
        "gigabytes": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def products(own: Objective, ask: Ask | None, rounds: int) -> dict[str, Any]:
    """Time a product by our strategies and by each peer on the same batches, and the machine, in turns."""
    vector = torch.randn(own.params.numel, generator=torch.Generator().manual_seed(0)).to(own.theta)
    operator = ll.hessian(own)
    strategies: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": operator,
        "ours, forward": ll.hessian(own, "forward"),
        "ours, graphs built anew": own.hvp,
    }
    seconds: dict[str, list[float]] = {}
    able, versions, differences = [], {}, {}
    for _ in range(rounds):
        for name, product in strategies.items():
            seconds.setdefault(name, []).append(seconds_of(product, vector))
        able.append(limits(own.theta.device)["flop_per_s"])
        if ask:
            for name in (*PEERS, SLOW_PEER):
                said = ask("--peer", name, "--what", "product", "--layout", "packed")
                seconds.setdefault(name, []).append(said["seconds_per_product"])
                versions[name] = said["version"]
                differences[name] = said["product_differs_from_ours_by"]
    count = operations(partial(operator, vector))
    return {
        "strategy": operator.strategy,
        "seconds": {name: median(values) for name, values in seconds.items()},
        "seconds / ours": {name: ratio(seconds, name, "ours") for name in seconds},
        "versions": versions,
        "peer's product differs from ours by": differences,
        "flop": count,
        "flop_per_s": median(able),
        "share_of_flop_per_s": median(count / a / s for a, s in zip(able, seconds["ours"], strict=True)),
        "profile": profiled(partial(operator, vector)) if own.theta.device.type == "cpu" else None,
        "all_seconds": seconds,
    }


def seconds_of(product: Callable[[Tensor], Tensor], vector: Tensor) -> float:
    """Time a product: the median of several, after one that is not counted."""
    taken = []
    for _ in range(PRODUCTS + 1):
        started = time.perf_counter()
        product(vector).sum().item()  # waits for the device
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def kept_gigabytes(own: Objective) -> float:
    """Return what the kept graphs hold."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        ll.hessian(own, "reverse")
    return sum(kept.values()) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", type=Path, required=True, help="best.pt of a SASRec trained on Beauty")
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt")
    parser.add_argument("--users", type=int, default=2048, help="on a GPU, all take part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help=f"{SLOW_PEER} runs in the first alone")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peers", type=Path, help="Python of an environment with benchmarks/peers/hessian_requirements.txt"
    )
    parser.add_argument(
        "--slow-tol", type=float, default=1e-3, help=f"the tolerance that {SLOW_PEER} is given"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "hessian.json")
    asked = parser.parse_args()
    if asked.peers and asked.device == "cuda":
        parser.error("the peers are timed on a CPU; leave --peers or --device cuda out")
    torch.set_num_threads(asked.threads)

    source = ["--ckpt", str(asked.ckpt), "--data", str(asked.data), "--users", str(asked.users)]
    command = [*source, "--threads", str(asked.threads)]
    ask = (
        partial(said_by, str(asked.peers), "hessian_eigenvalues.py", asked.threads, *command)
        if asked.peers
        else None
    )
    users = asked.users if asked.device == "cpu" else None
    own = objective(asked.ckpt, TaskOptions(users, device=asked.device, data=asked.data))
    found: dict[str, Any] = {
        "where": where(),
        "users": int(own.provenance["users"]),
        "parameters": own.params.numel,
        "batches": len(own.batches),
    }
    found["product"] = products(own, ask, asked.rounds)
    write(found, asked.out)
    found["memory"] = {"kept graphs, gigabytes": kept_gigabytes(own)}
    if asked.device == "cpu":
        again = ["-m", "landscape", "hessian", *source, "--top", str(TOP), "--device", "cpu"]
        found["memory"][f"landscape hessian --top {TOP}"] = memory(*again)
    write(found, asked.out)
    found[f"top {TOP}"] = eigenvalues(own, ask, asked.rounds, asked.slow_tol)
    write(found, asked.out)
    for part in ("product", f"top {TOP}"):
        found[part].pop("all_seconds")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.surface`: a point, a plane, a whole data set, against peers and the machine's limits.

Everything is timed in one run; what counts is the ratios. The error of the certified plane is measured on a
dense grid that is really computed. The result, with machine and versions, goes to benchmarks/results/
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import landscape as ll
from benchmarks.train import HERE, limits, memory, write
from benchmarks.where import where
from landscape.objective.objective import Objective
from landscape.surface.directions import random_direction
from landscape.surface.loss_cache import LossCache
from landscape.surface.strategies import strategies
from landscape.tasks import TaskOptions
from samrec.task import objective

PEERS = ("loss-landscapes", "landscaper")
DENSE = 51


def in_turns(
    own: Objective, peer: Path | None, command: list[str], rounds: int, threads: int
) -> dict[str, Any]:
    """Time 100 points of a plane by our rule, a matrix product, and 25 points of each peer, in turns."""
    directions = [random_direction(own.params, 0, index=i) for i in (0, 1)]
    points = LossCache(own, directions)
    points.at(np.random.default_rng(0).uniform(-1, 1, (150, 2)))  # not counted
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in PEERS if peer}}
    able, count = [], operations(own.value)
    versions = {}
    for number in range(1, rounds + 1):
        steps = np.random.default_rng(number).uniform(-1, 1, (100, 2))
        started = time.perf_counter()
        points.at(steps)
        seconds["ours"].append((time.perf_counter() - started) / len(steps))
        able.append(limits(own.theta.device)["flop_per_s"])
        for name in PEERS if peer else ():
            said = said_by(str(peer), "surface_points.py", threads, "--peer", name, *command)
            seconds[name].append(said["seconds_per_point"])
            versions[name] = said["version"]
    return {
        "strategy": points.strategy,
        "seconds_per_point": {name: median(values) for name, values in seconds.items()},
        "peer / ours": {
            name: median(p / o for p, o in zip(seconds[name], seconds["ours"], strict=True))
            for name in versions
        },
        "versions": versions,
        "flop": count,
        "flop_per_s": median(able),
        "share_of_flop_per_s": median(count / a / s for a, s in zip(able, seconds["ours"], strict=True)),
        "all_seconds": seconds,
    }


def each_strategy(own: Objective) -> dict[str, float]:
    """Time a point by each strategy that the machine offers."""
    directions = [random_direction(own.params, 0, index=i) for i in (0, 1)]
    found = {}
    for strategy in strategies(own, directions):
        count = max(24, 2 * strategy.width)
        steps = [tuple(step) for step in np.random.default_rng(0).uniform(-1, 1, (count, 2))]
        list(strategy.losses(steps[: strategy.width]))
        started = time.perf_counter()
        list(strategy.losses(steps))
        found[str(strategy)] = (time.perf_counter() - started) / len(steps)
    return found


def said_by(python: str, script: str, threads: int, *arguments: str) -> dict[str, Any]:
    """Run a script of benchmarks/peers in the peers' own environment; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": str(threads)}
    command = [python, str(HERE / "peers" / script), *arguments]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


def operations(task: Callable[[], Any]) -> float:
    """Count the operations of matrix products in a task, as torch counts them."""
    with FlopCounterMode(display=False) as counted:
        task()
    return float(counted.get_total_flops())


def profiled(task: Callable[[], Any]) -> list[dict[str, Any]]:
    """Say what a task spends its time on, on one thread."""
    from torch.profiler import ProfilerActivity, profile

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    task()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        task()
    torch.set_num_threads(before)
    table = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in table)
    return [
        {"operation": e.key, "calls": e.count, "share": round(e.self_cpu_time_total / total, 3)}
        for e in table[:12]
    ]


def certified_plane(own: Objective) -> dict[str, Any]:
    """Measure a plane at the default tolerance, and its true error on a dense grid."""
    plane = ll.plane(own)
    dense = ll.plane(own, grid=DENSE)
    error = np.abs(dense.losses - plane.at(dense.coordinates)) / np.ptp(dense.losses)
    return {
        "seconds": plane.seconds,
        "evaluations": plane.evaluations,
        "grid": plane.settings["grid"],
        "certificate": plane.certificate and asdict(plane.certificate),
        "dense_seconds": dense.seconds,
        "dense_points": DENSE**2,
        "largest_error_on_the_dense_grid": float(error.max()),
        "share_of_the_dense_grid_beyond_the_tolerance": float(np.mean(error > 1e-3)),
        "share_of_the_dense_grid_beyond_the_certified_error": float(
            np.mean(error > plane.certificate.max_error if plane.certificate else True)
        ),
    }


def everyone(asked: argparse.Namespace, grid: int) -> dict[str, Any]:
    """Time a plain plane over all users of the data set."""
    plane = ll.plane(
        objective(asked.ckpt, TaskOptions(None, device=asked.device, data=asked.data)), grid=grid
    )
    return {"seconds": plane.seconds, "points": plane.losses.size, "strategy": plane.settings["strategy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", type=Path, required=True, help="best.pt of a SASRec trained on Beauty")
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt")
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peers", type=Path, help="Python of an environment with benchmarks/peers/surface_requirements.txt"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "surface.json")
    parser.add_argument("--only", choices=["everyone"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    if asked.only:
        everyone(asked, grid=9)
        return
    own = objective(asked.ckpt, TaskOptions(asked.users, device=asked.device, data=asked.data))
    found: dict[str, Any] = {"where": where(), "users": asked.users}
    command = ["--ckpt", str(asked.ckpt), "--data", str(asked.data), "--users", str(asked.users)]
    found["point"] = in_turns(
        own, asked.peers, [*command, "--threads", str(asked.threads)], asked.rounds, asked.threads
    )
    seconds = found["point"]["seconds_per_point"]
    found["point"] |= {
        "strategies": each_strategy(own),
        "profile": profiled(own.value) if asked.device == "cpu" else None,
    }
    write(found, asked.out)
    found["plane"] = plane = certified_plane(own)
    plane["peer's 51 × 51 / ours"] = {
        name: seconds[name] * DENSE**2 / plane["seconds"] for name in found["point"]["versions"]
    }
    write(found, asked.out)
    if asked.device == "cpu":
        again = ["-m", "benchmarks.surface", "--ckpt", str(asked.ckpt), "--data", str(asked.data)]
        again += ["--threads", str(asked.threads), "--only", "everyone"]
        found["all users, 81 points, with start and reading"] = memory(*again)
    else:
        found[f"all users, {DENSE} × {DENSE} points"] = everyone(asked, DENSE)
    write(found, asked.out)
    found["point"].pop("all_seconds")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

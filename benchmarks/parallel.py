"""`python -m benchmarks.parallel`: the same commands by one process and by several, one thread each.

In turns in one run; what counts is the ratios, of the seconds that each command says its measurement took.
A start takes each process a few seconds more. The result, with versions, goes to benchmarks/results/, where
commands that were not asked for keep theirs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.train import HERE, write
from benchmarks.where import where

SECONDS: Mapping[str, Callable[[dict[str, Any]], float]] = {
    "surface": lambda said: float(said["checkpoints"][0]["seconds"]),
    "hessian": lambda said: float(said["checkpoints"][0]["seconds"]),
    "train": lambda said: float(said["seconds_per_epoch"]),
}


def seconds(ranks: int, arguments: list[str]) -> float:
    """Run a command by so many ranks; return the seconds it says it took."""
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(started if ranks > 1 else []), "-m", "landscape", *arguments, "--json"]
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [*command, "--device", "cpu", "--out", folder + "/out"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    return SECONDS[arguments[0]](json.loads(ran.stdout))


def in_turns(tasks: Mapping[int, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Time each number of ranks in turns, and compare with the first."""
    taken: dict[int, list[float]] = {ranks: [] for ranks in tasks}
    for _ in range(rounds):
        for ranks, task in tasks.items():
            taken[ranks].append(task())
    one = next(iter(taken.values()))
    return {
        "seconds": {ranks: median(values) for ranks, values in taken.items()},
        "faster by": {
            ranks: median(a / b for a, b in zip(one, values, strict=True)) for ranks, values in taken.items()
        },
        "all_seconds": taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", type=Path, required=True, help="best.pt of a SASRec trained on Beauty")
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt")
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grid", type=int, default=17, help="points an axis of the plane")
    parser.add_argument("--only", choices=list(SECONDS), nargs="+", default=list(SECONDS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "parallel.json")
    asked = parser.parse_args()

    frozen = ["--ckpt", str(asked.ckpt), "--data", str(asked.data), "--users", str(asked.users)]
    commands = {
        "surface": ["surface", *frozen, "--grid", str(asked.grid)],
        "hessian": ["hessian", *frozen],
        "train": ["train", "--data", str(asked.data), "--method", "samrec", "--epochs", "3"],
    }
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for name in asked.only:
        tasks = {ranks: partial(seconds, ranks, commands[name]) for ranks in asked.ranks}
        found[name] = {"where": where(), **in_turns(tasks, asked.rounds)}
        write(found, asked.out)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.train`: the trainer against the same model padded, against itself, and against peers.

Everything is timed in one run, in turns, so that what the machine does meanwhile falls on all alike; what
counts is the ratios. The result, with machine, versions and commit, goes to benchmarks/results/.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.padded import Padded
from benchmarks.where import where
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import Split, leave_one_out
from samrec.evaluation import evaluate
from samrec.methods import batches_of, initial_learner, initial_model
from samrec.sweeps.jobs import plan
from samrec.sweeps.sweep import sweep
from samrec.training.engines.solo import Solo
from samrec.training.loop import train

HERE = Path(__file__).parent
PEERS = ("recbole", "rectools")
# A process inherits its parent's peak; this small one stands between.
LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Ours:
    """The trainer's own epoch: packing, negatives, random bits, steps."""

    def __init__(self, config: Config, split: Split, device: torch.device) -> None:
        self.config = config
        self.batches = batches_of(config, split, device)
        rows = self.batches.rows(config.batch_size)
        self.engine = Solo(config, initial_learner(config, split, fused=True), device, rows)

    def epoch(self, seed: int) -> None:
        sums = torch.zeros(1, 3)
        for step, batch in enumerate(self.batches.epoch(self.config.batch_size, (0, seed))):
            sums = self.engine.step([[batch]], [step], self.config.lr, [self.config.radius])
        sums.sum().item()  # waits for the device


def in_turns(tasks: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Time each task once a round, after a round that is not counted; return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task(number)
            if number:
                seconds[name].append(round(time.perf_counter() - started, 4))
    return seconds


def ratio(seconds: dict[str, list[float]], a: str, b: str) -> float:
    """The median over rounds of a's time in units of b's."""
    return round(median(x / y for x, y in zip(seconds[a], seconds[b], strict=True)), 3)


def operations(config: Config, split: Split) -> dict[str, float]:
    """Count what an epoch must do: multiplications in matrix products (times 2), and bytes of the optimizer.

    Forward and backward are three times the forward. Per slot and layer: 6 d² for q, k, v, the output and
    both feed-forward layers, and 2 L d for attention. Adam reads and writes weights and both moments, and
    reads the gradient, which was zeroed and written before: nine floats a parameter.
    """
    batches = TrainingBatches(split, config.max_length, torch.device("cpu"), 0)
    rows = [len(batch.targets) for batch in batches.epoch(config.batch_size, (0, 0))]
    d, width = config.dim, config.max_length
    slots = sum(rows) * width
    parameters = sum(p.numel() for p in initial_model(config, split.num_items).parameters())
    return {
        "slots": slots,
        "flop": 3 * 2.0 * slots * config.layers * (6 * d * d + 2 * width * d),
        "optimizer_bytes": 9 * 4.0 * parameters * len(rows),
    }


def limits(device: torch.device) -> dict[str, float]:
    """Measure what the device can do: float32 matrix products, and copies, a second."""

    def rate(task: Callable[[], Any], amount: float) -> float:
        best = float("inf")
        for _ in range(8):
            started = time.perf_counter()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        return amount / best

    n = 2048 if device.type == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=device)
    x = torch.empty(2**26, device=device)
    y = torch.empty_like(x)
    return {
        "flop_per_s": rate(lambda: a @ b, 2.0 * n**3),
        "bytes_per_s": rate(lambda: y.copy_(x), 8.0 * 2**26),
    }


def epochs(data: Path, device: torch.device, rounds: int, with_padded: bool) -> dict[str, Any]:
    """Time epochs of all variants, and of the evaluation, in turns."""
    split = leave_one_out(read(data))
    sam: dict[str, Any] = {"method": "samrec"}
    configs = {
        "plain": Config(data=""),
        "sam": Config(data="", **sam),
        "sam every=5": Config(data="", every=5, **sam),
        "asam": Config(data="", adaptive=True, **sam),
        "bf16": Config(data="", precision="bf16"),
        "ce": Config(data="", loss="ce"),
        "ce bf16": Config(data="", loss="ce", precision="bf16"),
        "sampled 256": Config(data="", loss="sampled"),
    }
    tasks: dict[str, Callable[[int], Any]] = {
        name: Ours(config, split, device).epoch for name, config in configs.items()
    }
    model = initial_model(configs["plain"], split.num_items).to(device)
    tasks["evaluation"] = lambda _: evaluate(model, split, "test")
    if with_padded:
        padded = Padded(configs["plain"], split)
        tasks["padded"] = partial(padded.epoch, configs["plain"].batch_size)
    seconds = in_turns(tasks, rounds)
    count, able = operations(configs["plain"], split), limits(device)
    plain = median(seconds["plain"])
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "all_seconds": seconds,
        "ratios": {f"{name} / plain": ratio(seconds, name, "plain") for name in seconds if name != "plain"},
        "operations": count | able,
        "share_of_limits": {
            "flop": round(count["flop"] / able["flop_per_s"] / plain, 4),
            "optimizer_bytes": round(count["optimizer_bytes"] / able["bytes_per_s"] / plain, 4),
        },
    }


def memory(*arguments: str) -> dict[str, float]:
    """Run a module as a process; return its peak memory and its seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-c", LAUNCH, sys.executable, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes = int(ran.stdout.splitlines()[-1])
    return {"gigabytes": round(kilobytes / 2**20, 3), "seconds": round(time.perf_counter() - started, 1)}


def million_items(steps: int = 2) -> None:
    """Train steps of cross-entropy over a catalogue of a million items, d = 64, on histories at random."""
    from samrec.data.interactions import Interactions

    items = torch.randint(10**6, (256 * 9,), generator=torch.Generator().manual_seed(0)).numpy()
    offsets = torch.arange(0, 256 * 9 + 1, 9).numpy()
    data = Interactions(items, offsets, torch.arange(10**6).numpy(), "at random")
    ours = Ours(Config(data="", loss="ce", max_length=50), leave_one_out(data), torch.device("cpu"))
    for step in range(steps):
        ours.epoch(step)


def write_parquet(path: Path, rows: int) -> None:
    """Write interactions of half a million users with 200,000 items, both unevenly, at random times."""
    import polars

    rng = np.random.default_rng(0)
    polars.DataFrame(
        {
            "user": (500_000 * rng.random(rows) ** 2).astype(np.int64),
            "item": (200_000 * rng.random(rows) ** 3).astype(np.int64),
            "time": rng.integers(0, 10**9, rows),
        }
    ).write_parquet(path)


def peers(python: Path, data: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Time a whole epoch of each peer, in the environment of benchmarks/requirements.txt."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    for _ in range(rounds):
        for name in PEERS:
            command = [python, HERE / "peers" / f"{name}_epoch.py", "--data", data, "--threads", threads]
            ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            found[name].append(json.loads(ran.stdout.strip().splitlines()[-1]))
    return {
        name: {**runs[0], "epoch_seconds": median(run["epoch_seconds"] for run in runs)}
        for name, runs in found.items()
    }


def on_a_gpu(data: Path) -> dict[str, Any]:
    """Time what only a GPU is asked: 200 epochs with evaluation, and a sweep of 16 against one of 1."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(Config(data=str(data), epochs=200, patience=200), Path(folder) / "long", "cuda")
        found["200 epochs with evaluation"] = time.perf_counter() - started
        settings = {"data": str(data), "epochs": 20, "method": "samrec"}
        for runs in (1, 16):
            jobs = plan(settings, {"seed": [str(seed) for seed in range(runs)]}, Path(folder) / str(runs))
            started = time.perf_counter()
            sweep(jobs, "cuda")
            found[f"sweep of {runs}"] = time.perf_counter() - started
    return found | {"sweep of 16 / sweep of 1": found["sweep of 16"] / found["sweep of 1"]}


def write(found: dict[str, Any], path: Path) -> None:
    """Keep what is measured so far: a part that fails takes nothing along."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peers", type=Path, help="Python of an environment with benchmarks/requirements.txt"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "train.json")
    parser.add_argument("--only", choices=["million-items"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.only:
        million_items()
        return

    device = torch.device(asked.device)
    found: dict[str, Any] = {"where": where()}
    found["epochs"] = epochs(asked.data, device, asked.rounds, with_padded=asked.device == "cpu")
    write(found, asked.out)
    if asked.device == "cuda":
        found["gpu"] = on_a_gpu(asked.data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = [
                "train",
                "--data",
                str(asked.data),
                "--epochs",
                "5",
                "--out",
                f"{folder}/run",
                "--device",
                "cpu",
            ]
            table = f"{folder}/interactions.parquet"
            write_parquet(Path(table), 20_000_000)
            found["memory"] = {
                "data info --core 3, 20,000,000 rows of Parquet": memory(
                    *("-m", "landscape", "data", "info", table, "--core", "3", "--columns", "user,item,time")
                ),
                "landscape train, 5 epochs": memory("-m", "landscape", *run),
                "2 steps of ce on 1,000,000 items": memory(
                    "-m", "benchmarks.train", "--data", str(asked.data), "--only", "million-items"
                ),
            }
    write(found, asked.out)
    if asked.peers:
        found["peers"] = peers(asked.peers, asked.data, asked.threads, rounds=1)
        plain = found["epochs"]["seconds"]["plain"]
        for peer in found["peers"].values():
            peer["peer / plain"] = round(peer["epoch_seconds"] / plain, 1)
        write(found, asked.out)
    found["epochs"].pop("all_seconds")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.shards`: what a step takes as the catalogue and the ranks grow, on paper and as run.

`Case` counts memory, operations, passes over the table and traffic of a step. The seconds that these take
are measured on small catalogues; steps on a million and ten million items, which are run too, say how far
that holds, and the formulas then say what sizes would take that no machine here holds. The result goes to
benchmarks/results/shards.json, and its tables into docs/scale.md. Ten million items take 14 GB of memory.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.scale import world, write_page
from benchmarks.train import HERE, write
from benchmarks.where import where
from landscape.runtime import ranks as parallel
from landscape.runtime.ranks import Ranks
from samrec.chunks import SCORES
from samrec.config import Config
from samrec.losses import ROWS
from samrec.methods import batches_of, initial_learner
from samrec.training.engines.sharded import Sharded
from samrec.training.engines.solo import Solo

STEPS = 3
BATCH = 256


@dataclass(frozen=True)
class Able:
    """What a rank can do, in SI units a second.

    Attributes:
        slots: slots through the layers, forward and backward.
        passed: bytes of the table read or written.
        fresh: bytes of memory that the system hands out and takes back; a GPU's are kept.
        scored: floating-point operations in the products with all items.
        sent: bytes to other ranks.
    """

    slots: float
    passed: float
    fresh: float
    scored: float
    sent: float


@dataclass(frozen=True)
class Case:
    """A step of SASRec (or SAMRec) in float32, by one of the ranks.

    Attributes:
        items: rows of the table, n.
        ranks: how many share the batch and, where `sharded`, the table.
        sam: whether it is SAMRec's: two gradients, and a move between them.
        loss: bce with one negative, or ce over all items.
        users, slots: of the whole batch.
        dim, layers, length: d, N and L.
        device: where; chunks of scores are larger on a GPU.
    """

    items: int
    ranks: int = 1
    sharded: bool = False
    sam: bool = False
    loss: str = "bce"
    users: int = BATCH
    slots: int = 6 * BATCH
    dim: int = 64
    layers: int = 2
    length: int = 50
    device: str = "cpu"

    @property
    def table(self) -> float:
        """Floats of the table that this rank holds."""
        return self.items * self.dim / (self.ranks if self.sharded else 1)

    @property
    def gradients(self) -> int:
        return 2 if self.sam else 1

    @property
    def memory(self) -> float:
        """Bytes of the table's weights, gradient and moments, of w beside w + e, and what CE forms."""
        return 4 * self.table * (4 + self.sam + (self.loss == "ce"))

    @property
    def passes(self) -> float:
        """Bytes of the table that are read or written.

        A gradient is zeroed (4) and scattered into; CE zeroes its own (4), adds to it chunk by chunk (8),
        scales it (8), and adds it to that of the inputs (12); Adam reads four tables and writes three (28).
        SAM's norm reads one (4), its move two, and writes one (12). Replicated, gradients are copied into one
        vector (8) to be added up.
        """
        positions = self.slots if self.sharded else self.slots / self.ranks
        chunk = max(ROWS, SCORES[self.device] * self.dim / self.table)
        formed = 28 + 8 * positions / chunk if self.loss == "ce" else 4
        added = 8 if self.ranks > 1 and not self.sharded else 0
        return self.table * (self.gradients * (formed + added) + 28 + 16 * self.sam)

    @property
    def fresh(self) -> float:
        """Bytes of tables that a step makes anew: each gradient (CE's has three parts), and SAM's w + e."""
        return 4 * self.table * (self.gradients * (3 if self.loss == "ce" else 1) + self.sam)

    @property
    def scored(self) -> float:
        """Operations of the products with all items: forward, and both gradients."""
        return 6 * self.slots * self.items * self.dim * self.gradients / self.ranks * (self.loss == "ce")

    @property
    def sent(self) -> float:
        """Bytes that this rank sends: by a ring, where ranks add up."""
        others, d = self.ranks - 1, self.dim
        added = 8 * others / self.ranks  # a float that is added up
        layers = self.layers * (6 * d * d + 10 * d) + self.length * d
        if not self.sharded:
            return self.gradients * added * (layers + self.items * d)
        own = self.slots / self.ranks
        rows = own + (own + self.users / self.ranks if self.loss == "bce" else 0)  # inputs are targets too
        looked_up = rows * (8 + 8 * d) * others / self.ranks
        merged = others * (own * (4 * d + 12) + 8 * self.slots) + added * self.slots * d
        return self.gradients * (added * layers + looked_up + (merged if self.loss == "ce" else 0))

    def parts(self, able: Able) -> tuple[float, float, float, float]:
        """Return the seconds of a step for layers, the table, products with all items, and traffic."""
        through_layers = self.gradients * self.slots / self.ranks / able.slots
        return (
            through_layers,
            self.passes / able.passed + self.fresh / able.fresh,
            self.scored / able.scored,
            self.sent / able.sent,
        )

    def seconds(self, able: Able) -> float:
        """How long the step takes, if nothing overlaps."""
        return sum(self.parts(able))


def constants(ranks: int) -> tuple[Able, float]:
    """Measure on small catalogues what so many ranks can do at once, and one's memory beside the table."""
    sizes = (2_000, 400_000, 50_000)
    small, table, all_items = (Case(items * ranks, ranks, ranks > 1) for items in sizes)
    all_items = replace(all_items, loss="ce")
    seconds = {case: run(case) for case in (small, table, all_items)}
    slots = small.slots / ranks / seconds[small]["seconds"]
    sent = seconds[small]["link"]
    able = Able(slots, torch.inf, seconds[table]["fresh"], torch.inf, sent)
    able = replace(able, passed=table.passes / (seconds[table]["seconds"] - table.seconds(able)))
    able = replace(able, scored=all_items.scored / (seconds[all_items]["seconds"] - all_items.seconds(able)))
    return able, seconds[small]["memory"] - small.memory


def run(case: Case) -> dict[str, float]:
    """Run steps of a case by so many processes, one thread each."""
    started = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.ranks)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        program = ["-m", "benchmarks.shards", "--case", json.dumps(asdict(case)), "--out", str(out)]
        subprocess.run([sys.executable, *(started if case.ranks > 1 else []), *program], check=True)
        found: dict[str, float] = json.loads(out.read_text())
    print(case, found, flush=True)
    return found


@dataclass(frozen=True)
class Counted(Ranks):
    """Ranks that count the bytes that they send, as a ring would where they add up."""

    sent: list[float] = field(default_factory=list)

    def summed(self, tensor: Tensor) -> Tensor:
        self.sent.append(2 * (self.size - 1) / self.size * tensor.nbytes)
        return super().summed(tensor)

    def stacked(self, tensor: Tensor) -> Tensor:
        self.sent.append((self.size - 1) * tensor.nbytes)
        return super().stacked(tensor)

    def exchanged(self, tensor: Tensor, sent: list[int], received: list[int]) -> Tensor:
        to_others = sum(sent) - sent[self.rank]
        self.sent.append(to_others * tensor[:1].nbytes)
        return super().exchanged(tensor, sent, received)


def measured(case: Case) -> dict[str, float]:
    """Take a few steps on histories at random: what this rank needed for one."""
    torch.set_num_threads(1)
    parallel.join()
    ranks = parallel.ranks()
    ranks = parallel._ranks = Counted(ranks.rank, ranks.size, ranks.local, ranks.store)
    method = {"method": "samrec"} if case.sam else {}
    config = Config.model_validate({"data": "", "loss": case.loss, "dim": case.dim, **method})
    split = world(case.users, case.slots // case.users, case.items)
    batches = batches_of(config, split, torch.device("cpu"))
    learner = initial_learner(config, split, fused=True)
    engine = (Sharded if case.sharded else Solo)(config, learner, torch.device("cpu"), 0)
    seconds = []
    for step in range(1 + STEPS):
        (batch,) = batches.epoch(case.users, (0, step))
        if step == 1:
            forget_peak()
        ranks.gathered(None)
        ranks.sent.clear()
        began = time.perf_counter()
        engine.step([[batch]], [step], config.lr, [config.radius]).sum().item()
        seconds.append(time.perf_counter() - began)
    sent = sum(ranks.sent)
    found = {"seconds": median(seconds[1:]), "memory": peak(), "sent": sent}
    return found | {"link": link(ranks), "fresh": fresh(ranks)}


def link(ranks: Ranks) -> float:
    """Measure how many bytes a rank sends a second while all do."""
    if ranks.size == 1:
        return 1.0  # nothing is sent
    rows = [2**22] * ranks.size
    best = torch.inf
    for _ in range(5):
        began = time.perf_counter()
        ranks.exchanged(torch.zeros(sum(rows)), rows, rows)
        best = min(best, time.perf_counter() - began)
    return 4 * (sum(rows) - rows[0]) / best


def fresh(ranks: Ranks) -> float:
    """Measure how many bytes of new memory a rank touches a second while all do, beyond writing them."""
    kept, taken = torch.empty(2**27), []
    kept.zero_()
    for _ in range(3):
        ranks.gathered(None)
        began = time.perf_counter()
        torch.empty(2**27).zero_()
        between = time.perf_counter()
        kept.zero_()
        taken.append((between - began) - (time.perf_counter() - between))
    return kept.nbytes / max(median(taken), 1e-9)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes of memory since `forget_peak`. Linux alone tells."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


RUN = [
    *(Case(10**6, ranks, sharded) for ranks, sharded in ((1, False), (2, False), (2, True))),
    Case(10**6, 2, True, sam=True),
    Case(10**6, 2, True, loss="ce"),
    Case(10**7),
    Case(10**7, 2, True),
    Case(10**7, 2, True, sam=True),
]
USERS, HISTORY = 20_000_000, 50  # 10^9 interactions
A_RANK = 2_048  # users of a batch
HALF_AN_H200 = Able(slots=1e7, passed=2.4e12, fresh=float("inf"), scored=4.6e13, sent=2.25e11)
"""Half of the 4.8 TB/s and of NVLink's 450 GB/s that are promised. A score is 384 operations and, written and
read five times, 20 bytes, which bound it. Slots are a guess: launches bound them, as there is no graph."""
BETWEEN_MACHINES = 2.5e10  # bytes a second, half of 400 Gbit/s a GPU


def compared(found: dict[str, Any]) -> str:
    """Draw what was run beside the formulas, as Markdown."""
    lines = [
        "| items | ranks | | seconds: run | on paper | GB per rank: run | on paper "
        "| MB sent: run | on paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["cases"]:
        case, able = Case(**row["case"]), Able(**found["able"][str(row["case"]["ranks"])])
        name = f"{'SAMRec' if case.sam else 'SASRec'}, {case.loss}"
        held = ", sharded" if case.sharded else ", replicated" if case.ranks > 1 else ""
        memory, base = row["memory"], found["base_memory"][str(case.ranks)]
        pairs = [
            (row["seconds"], case.seconds(able), 1, "g"),
            ((memory - base), case.memory, 1e9, "f"),
            (row["sent"], case.sent, 1e6, "f"),
        ]
        numbers = " | ".join(f"{v / unit:.2{kind}}" for a, b, unit, kind in pairs for v in (a, b))
        lines.append(f"| {case.items:,} | {case.ranks} | {name}{held} | {numbers} |")
    return "\n".join(lines)


def projected() -> str:
    """Draw what the formulas say of SAMRec on GPUs that share the items, as Markdown."""
    lines = [
        "| items | GPUs | GB each | loss | ms: model | table | scores | traffic | MB sent "
        "| hours per epoch |",
        "|---" * 10 + "|",
    ]
    for items, ranks, loss in product((10**6, 10**7, 10**8), (1, 8, 64), ("bce", "ce")):
        users = A_RANK * ranks
        case = Case(items, ranks, True, True, loss, users, users * HISTORY, device="cuda")
        able = replace(HALF_AN_H200, sent=BETWEEN_MACHINES) if ranks > 8 else HALF_AN_H200
        parts = case.parts(able)
        each = " | ".join(f"{1e3 * seconds:,.1f}" for seconds in parts)
        hours = USERS / users * sum(parts) / 3600
        memory = f"{case.memory / 1e9:.1f}"
        lines.append(
            f"| {items:,} | {ranks} | {memory} | {loss} | {each} | {case.sent / 1e6:,.0f} | {hours:,.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "shards.json")
    asked = parser.parse_args()
    if asked.case:
        numbers = measured(Case(**asked.case))
        if parallel.ranks().first:
            asked.out.write_text(json.dumps(numbers))
        parallel.leave()
        os._exit(0)  # as the command does
    found: dict[str, Any] = {"where": where() | {"threads": 1}, "able": {}, "base_memory": {}, "cases": []}
    for ranks in (1, 2):
        able, base = constants(ranks)
        found["able"][str(ranks)], found["base_memory"][str(ranks)] = asdict(able), base
        write(found, asked.out)
    for case in RUN:
        found["cases"].append({"case": asdict(case), **run(case)})
        write(found, asked.out)
    write_page("benchmarks.shards", f"{compared(found)}\n\n{projected()}")


if __name__ == "__main__":
    main()

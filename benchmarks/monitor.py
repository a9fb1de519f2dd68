"""`python -m benchmarks.monitor`: products of eigenpairs that are followed, against those of cold starts.

SASRec is trained, and after each epoch, and then at smaller spacings, the top five eigenvalues are found from
nothing and from the last measurement's vectors, both to residuals of 1e-3. What counts is products, which no
other work on the machine changes. `turned` is the sine of the angle between a new eigenvector and the space
of the last five, the median of the five. `by turn` shows what that does: the vectors before the last
measurement are moved towards those after it, and followed from there. At last a monitor with a budget watches
some epochs. The result goes to benchmarks/results/monitor.json
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import landscape as ll
from benchmarks.train import HERE, Ours, write
from benchmarks.where import where
from landscape.curvature.tracking import Tracker
from landscape.runtime import progress
from samrec.config import Config
from samrec.data.packing import Batch
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.task import monitor_of

TOP, TOL = 5, 1e-3
SPACINGS = (1, 3, 10)  # steps
BUDGET = 0.2  # of the training's time
SHARES = (1, 0.3, 0.1, 0.03, 0.01)  # of the turn of an epoch


class Race:
    """Finds the same eigenpairs both ways at the present weights of a model."""

    def __init__(self, probe: ll.Objective) -> None:
        self.probe = probe
        self.compact = probe.compact()  # rows that are not read only make products slower
        self.tracker = Tracker(TOP, TOL)
        self.rows: list[dict[str, Any]] = []
        self.before = self.after = torch.empty(0)

    def measure(self, model: torch.nn.Module) -> None:
        self.objective = self.probe.follow(model)
        if self.compact:
            smaller, places = self.compact
            self.objective = smaller.moved(self.objective.theta[places])
        cold = ll.top_eigenpairs(self.objective, TOP, smallest=0, tol=TOL)
        warm = self.tracker.solve(ll.hessian(self.objective), self.objective.grad())
        self.before, self.after = self.after, torch.from_numpy(cold.eigenvectors)
        turned = {"turned": sine(self.after, self.before)} if len(self.before) else {}
        self.rows.append(
            {
                "cold": cold.products,
                "warm": warm.products,
                "eigenvalues": cold.eigenvalues.tolist(),
                "largest difference": float(abs(cold.eigenvalues - warm.values).max()),
                "largest residual": float(max(cold.residuals.max(), warm.residuals.max())),
            }
            | turned
        )

    def result(self) -> dict[str, Any]:
        """Sum products up, without the first measurement, which is cold both ways."""
        cold, warm = (sum(row[key] for row in self.rows[1:]) for key in ("cold", "warm"))
        return {"cold": cold, "warm": warm, "warm / cold": round(warm / cold, 3), "measurements": self.rows}

    def by_turn(self) -> list[dict[str, float]]:
        """Follow the last eigenvectors from shares of the way that they have turned."""
        u, _, v = torch.linalg.svd(self.after @ self.before.T)
        back = u @ v @ self.before - self.after  # the old ones in the basis that is nearest to the new ones
        found = []
        for share in SHARES:
            start = torch.linalg.qr((self.after + share * back).T)[0].T.contiguous()
            tracker = Tracker(TOP, TOL, start=start)
            products = tracker.solve(ll.hessian(self.objective), start[0]).products
            found.append({"turned": sine(self.after, start), "warm": products, "cold": self.rows[-1]["cold"]})
        return found


def sine(vectors: torch.Tensor, space: torch.Tensor) -> float:
    """Return the sine of the angle between a vector and a space, the median of several vectors."""
    left = vectors.double() - vectors.double() @ space.double().T @ space.double()
    return round(float(left.norm(dim=1).median()), 4)


def batches(ours: Ours) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of one epoch after the other, with the number of the epoch."""
    epoch = 1
    while True:
        for batch in ours.batches.epoch(ours.config.batch_size, (0, epoch)):
            yield epoch, batch
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the users to train on")
    parser.add_argument("--users", type=int, default=256, help="users of the frozen loss")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--measurements", type=int, default=5, help="per spacing")
    parser.add_argument("--budgeted", type=int, default=20, help="epochs with a monitor that has a budget")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "monitor.json")
    given = parser.parse_args()
    progress.hush(True)
    config = Config(data=str(given.data), train_fraction=given.fraction)
    split = leave_one_out(read(given.data)).fraction(given.fraction, config.seed)
    ours = Ours(config, split, torch.device("cpu"))
    model = ours.engine.learner.model
    probe = monitor_of((config, split), model, ours.engine.optimizer, given.users).probe
    steps = ours.batches.steps(config.batch_size)
    found: dict[str, Any] = {"where": where(), "steps per epoch": steps, "users": given.users}
    coming = enumerate(batches(ours))

    def train(count: int) -> None:
        for number, (_, batch) in islice(coming, count):
            ours.engine.step([[batch]], [number], config.lr, [config.radius])

    for name, spacing, count in (
        ("every epoch", steps, given.epochs),
        *(
            (f"every {spacing} steps" if spacing > 1 else "every step", spacing, given.measurements)
            for spacing in SPACINGS
        ),
    ):
        race = Race(probe)
        for _ in range(count):
            train(spacing)
            race.measure(model)
        found[name] = race.result()
        if name == "every epoch":
            found["by turn"] = race.by_turn()
        print(name, {key: value for key, value in found[name].items() if key != "measurements"}, flush=True)
        write(found, given.out)

    watch = monitor_of((config, split), model, ours.engine.optimizer, given.users, at_most=BUDGET)
    began, largest = time.perf_counter(), 0.0
    for _ in range(given.budgeted * steps):
        train(1)
        if watch.step():
            largest = max(largest, watch.overhead)
    found["budget"] = {
        "asked": BUDGET,
        "overhead": round(watch.overhead, 4),
        "largest overhead": round(largest, 4),  # right after a measurement
        "seconds": round(time.perf_counter() - began, 1),
        "steps": [record.step for record in watch.records],
        "products": [record.products for record in watch.records],
        "converged": [max(record.residuals) <= TOL for record in watch.records],
    }
    print("budget", found["budget"], flush=True)
    write(found, given.out)


if __name__ == "__main__":
    main()

"""Time a point of a loss surface in loss-landscapes and in Landscaper, on a CPU.

Timed: the package's own call for a random plane of steps × steps points, directions included. Not timed:
imports, reading the data, building model and batches, one evaluation at the checkpoint's weights.

What is the same as ours: the checkpoint, its users, targets and negatives, and the loss, a mean over all
positions. What differs:

- Each history is padded to a row of 50: 89% of the slots are empty for 2,048 users of Beauty.
- loss-landscapes divides by the distance: the plane reaches |θ| / (2 distance) to either side of θ. Every
  other line of its grid is off by one step, and with odd steps no point of it is θ. The first direction
  starts uniform in [0, 1]. Filter normalization is a Python loop over all filters, and takes each number of
  a bias or norm for one.
- Landscaper normalizes each tensor to √numel, whatever its weights; it has no filters. The plane reaches
  |θ| distance (steps - 1) / steps to either side, with odd steps. Its random directions are not orthogonal
  but nearly parallel, so the plane is a line: the projection is not divided by the squared norm. Noise is
  added to the largest loss. Each point starts from a copy of the weights, one step at a time.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from pathlib import Path

import loss_landscapes
import numpy as np
import torch
from landscaper import LossLandscape
from landscaper.utils import generate_random_orthogonal_directions
from loss_landscapes.metrics import Metric
from numpy.typing import NDArray
from torch import nn

from benchmarks.padded import padded
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.data.packing import Batch
from samrec.losses import Loss, loss_of
from samrec.task import objective

Value = Callable[[nn.Module, list[Batch]], float]


class MeanLoss(Metric):
    """What loss-landscapes evaluates at a point."""

    def __init__(self, value: Value, batches: list[Batch]) -> None:
        super().__init__()
        self.value = value
        self.batches = batches

    def __call__(self, model_wrapper: loss_landscapes.ModelWrapper) -> float:
        return self.value(model_wrapper.get_modules()[0], self.batches)


def with_loss_landscapes(
    model: nn.Module, batches: list[Batch], value: Value, steps: int, radius: float
) -> NDArray[np.float64]:
    metric = MeanLoss(value, batches)
    return loss_landscapes.random_plane(
        model, metric, distance=radius, steps=steps, normalization="filter", deepcopy_model=True
    )


def with_landscaper(
    model: nn.Module, batches: list[Batch], value: Value, steps: int, radius: float
) -> NDArray[np.float64]:
    directions = generate_random_orthogonal_directions(model, n=2)
    return LossLandscape.compute(
        model, batches, directions, value, steps=steps, distance=radius, dim=2, device="cpu"
    ).loss


PEERS = {"loss-landscapes": with_loss_landscapes, "landscaper": with_landscaper}


@torch.no_grad()
def mean_loss(model: nn.Module, batches: list[Batch], loss: Loss) -> float:
    sums, weights = zip(*(loss(model, batch) for batch in batches), strict=True)
    return float(sum(sums) / sum(weights))


def measure(
    peer: str, ckpt: Path, data: Path, users: int, threads: int, steps: int, radius: float
) -> dict[str, str | int | float]:
    """Time the peer's plane of steps × steps points."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    checkpoint = load(ckpt)
    frozen = objective(ckpt, TaskOptions(users=users, data=data, device="cpu"))
    batches = [padded(batch) for batch in frozen.batches]
    model = checkpoint.model().eval()
    value = partial(mean_loss, loss=loss_of(checkpoint.config.loss, checkpoint.config.calibration))
    center = value(model, batches)
    started = time.perf_counter()
    surface = PEERS[peer](model, batches, value, steps, radius)
    seconds = time.perf_counter() - started
    return {
        "peer": peer,
        "version": version(peer),
        "points": surface.size,
        "seconds": round(seconds, 2),
        "seconds_per_point": round(seconds / surface.size, 4),
        "center_loss": round(center, 6),
        "min": round(float(surface.min()), 6),
        "max": round(float(surface.max()), 6),
        "users": sum(len(batch.targets) for batch in batches),
        "threads": threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--ckpt", type=Path, required=True, help="best.pt of a run")
    parser.add_argument("--data", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="points a side")
    parser.add_argument("--radius", type=float, default=1.0, help="the distance that the peer is given")
    arguments = parser.parse_args()
    with redirect_stdout(sys.stderr):
        found = measure(**vars(arguments))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

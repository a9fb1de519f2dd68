"""From a checkpoint to what it is for: a landscape `Objective` (the one bridge to there), or a ranking."""

from pathlib import Path

import numpy as np

from landscape.devices import device_named
from landscape.files import sha256
from landscape.objective import Objective
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import Part, leave_one_out
from samrec.evaluation import evaluate
from samrec.losses import bce

BATCH = 256  # users at once: their activations stay in a CPU's cache, and the memory of a product bounded


def objective(checkpoint: Path, options: TaskOptions) -> Objective:
    """Freeze the training loss of a checkpoint: users and negatives drawn once, by `options.seed`.

    Two checkpoints of one data set and one seed get the same users, negatives and batches.

    Raises:
        InputError: the checkpoint or its data cannot be used, or the data are not what it was trained on.
    """
    loaded = load(checkpoint)
    device = device_named(options.device)
    data = read(options.data or Path(loaded.config.data), loaded.config.format)
    loaded.check_data(data)
    split = leave_one_out(data)
    users = np.random.default_rng(options.seed).permutation(split.trained)[: options.users]
    batches = TrainingBatches(split, loaded.config.max_length, device).of_users(users, BATCH, (options.seed,))
    return Objective(
        loaded.model().to(device),
        batches,
        bce,
        include=options.include,
        exclude=options.exclude,
        provenance={
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
            "method": loaded.config.method,
            "epoch": str(loaded.epoch),
            "data": data.source,
            "data_sha256": data.digest,
            "users": str(len(users)),
            "objective_seed": str(options.seed),
            "loss": "bce",
        },
    )


def ranking(
    checkpoint: Path, part: Part, data: Path | None = None, device: str = "auto"
) -> tuple[int, dict[str, float]]:
    """Evaluate a checkpoint by full ranking; return the number of users and the metrics.

    Raises:
        InputError: as `objective`.
    """
    loaded = load(checkpoint)
    model = loaded.model().to(device_named(device))
    interactions = read(data or Path(loaded.config.data), loaded.config.format)
    loaded.check_data(interactions)
    split = leave_one_out(interactions)
    return len(split.evaluated), evaluate(model, split, part)

"""From a checkpoint to what it is for: a landscape `Objective` (the one bridge to there), or a ranking."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from landscape.devices import device_named
from landscape.errors import InputError
from landscape.files import sha256
from landscape.objective import Objective
from landscape.tasks import TaskOptions
from samrec.checkpoint import Checkpoint, load
from samrec.data.interactions import Ints
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import Part, Split, leave_one_out
from samrec.evaluation import ranks
from samrec.losses import loss_of

BATCH = 256  # users at once: their activations stay in a CPU's cache, and the memory of a product bounded


def objective(checkpoint: Path, options: TaskOptions) -> Objective:
    """Freeze the training loss of a checkpoint: users and negatives drawn once, by `options.seed`.

    Two checkpoints of one data set and one seed get the same users, negatives and batches.

    Raises:
        InputError: the checkpoint or its data cannot be used, or the data are not what it was trained on.
    """
    loaded = load(checkpoint)
    device = device_named(options.device)
    config = loaded.config
    split = _split(loaded, options.data).fraction(config.train_fraction, config.seed)
    users = np.random.default_rng(options.seed).permutation(split.trained)[: options.users]
    batches = TrainingBatches(split, config.max_length, device, config.drawn)
    return Objective(
        loaded.model().to(device),
        batches.of_users(users, BATCH, (options.seed,)),
        loss_of(config.loss, config.calibration),
        include=options.include,
        exclude=options.exclude,
        provenance={
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": sha256(checkpoint),
            "method": config.method,
            "epoch": str(loaded.epoch),
            "data": split.interactions.source,
            "data_sha256": split.interactions.digest,
            "users": str(len(users)),
            "objective_seed": str(options.seed),
            "loss": config.loss if config.drawn < 2 else f"{config.loss} of {config.drawn} negatives",
        },
    )


def ranking(checkpoint: Path, part: Part, data: Path | None = None, device: str = "auto") -> Ints:
    """Rank each evaluated user's held-out item with a checkpoint: `samrec.evaluation.ranks`.

    Raises:
        InputError: as `objective`.
    """
    loaded = load(checkpoint)
    model = loaded.model().to(device_named(device))
    return ranks(model, _split(loaded, data), part)


def _split(checkpoint: Checkpoint, data: Path | None) -> Split:
    """Read the data that a checkpoint was trained on, from where it was or from `data`."""
    path = data or Path(checkpoint.config.data)
    if data is None and not path.exists():
        raise InputError(f"the checkpoint's data are no longer at {path}; say where with --data FILE")
    changed = path.stat().st_mtime_ns if path.exists() else 0
    split = _read_split(path, changed, **checkpoint.config.reading)
    checkpoint.check_data(split.interactions)
    return split


@lru_cache(maxsize=1)
def _read_split(path: Path, changed: int, **reading: Any) -> Split:
    """Read and split a file; comparing checkpoints asks for the same one again and again.

    `changed` is when the file was written, so that one that has changed is read anew.
    """
    return leave_one_out(read(path, **reading))

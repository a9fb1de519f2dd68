"""Time one training epoch of RecTools' SASRecModel on a CPU.

Timed: from Lightning's start of the training epoch to its end: shuffling, collating, negative sampling,
forward, backward and Adam. Not timed: imports, reading and preparing the data, building the model,
evaluation.

What differs from ours, at the same d, L, layers, heads, dropout, batch size, loss and Adam step:

- Each history is padded to a row of 50: 22,363 rows for Beauty, 89% of their slots empty.
- One negative a position, as ours, but drawn from the whole catalogue, the user's own items included.
- The catalogue is what the training part holds: 12,068 of Beauty's 12,101 items.
- Adam's betas are (0.9, 0.98), fixed by RecTools. They cost nothing.
- Lightning's loop runs the epoch and tracks the mean loss.
"""

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import rectools
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(pl.Callback):
    """Times the training epoch, and keeps its size: Lightning's loader is gone after the fit."""

    started: float
    seconds: float
    steps: int
    rows: int

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        assert loader is not None
        self.steps, self.rows = len(loader), len(loader.dataset)
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.started


def training_part(data: Path) -> Dataset:
    """Read all but the last two items of each user. The place in the history stands for the time."""
    users: list[int] = []
    items: list[int] = []
    places: list[int] = []
    with data.open() as file:
        for line in file:
            user, *history = map(int, line.split())
            kept = history[:-2]
            users += [user] * len(kept)
            items += kept
            places += range(len(kept))
    table = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Weight: 1.0})
    table[Columns.Datetime] = pd.to_datetime(places, unit="s")
    return Dataset.construct(table)


def measure(data: Path, threads: int, steps: int | None) -> dict[str, str | int | float]:
    """Train for `steps` steps, or an epoch."""
    torch.set_num_threads(threads)
    clock = Clock()

    def trainer() -> pl.Trainer:
        return pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            limit_train_batches=steps,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_factors=64,
        session_max_len=50,
        n_blocks=2,
        n_heads=2,
        dropout_rate=0.5,
        loss="BCE",
        n_negatives=1,
        batch_size=256,
        lr=1e-3,
        get_trainer_func=trainer,
    )
    model.fit(training_part(data))
    (clock,) = (c for c in model.fit_trainer.callbacks if isinstance(c, Clock))  # `fit` copies the trainer
    timed = model.fit_trainer.global_step
    return {
        "peer": "RecTools",
        "version": rectools.__version__,
        "epoch_seconds": round(clock.seconds * clock.steps / timed, 2),
        "timed_seconds": round(clock.seconds, 2),
        "steps": clock.steps,
        "timed_steps": timed,
        "rows_per_epoch": clock.rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one training epoch of RecTools' SASRecModel.")
    parser.add_argument("--data", type=Path, required=True, help="a user a line: user item item ...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="time only the first steps, and extrapolate")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.data, arguments.threads, arguments.steps)))


if __name__ == "__main__":
    main()

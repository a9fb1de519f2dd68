"""Time one training epoch of RecBole's SASRec on a CPU.

Timed: `Trainer._train_epoch`, which is what RecBole's own `fit` times and logs: shuffling, collating,
negative sampling, forward, backward and Adam. Not timed: imports, reading and augmenting the data, building
the model, evaluation.

What differs from ours, at the same d, L, layers, heads, dropout, batch size and Adam step:

- A row is one *prefix* of a history with one target: 131,413 rows of 50 slots for Beauty, hence 514
  optimizer steps. Ours learns at every position of 22,363 histories, packed, in 88 steps. The targets are
  the same, but for 3,382 before a user's last 50 that ours leaves out.
- SASRec offers 'BPR' and 'CE'; BPR with one uniform negative is the nearest to binary cross-entropy.
- A negative may be any item but the target, the user's own included (RecBole's default for sequences).
- Post-norm layers, and dropout on what attention returns instead of inside the feed-forward layer.
- The feed-forward width (256 by default) and activation (GELU) are set to ours.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer

NAME = "histories"


def settings(folder: str) -> dict[str, Any]:
    """Return what we change of RecBole's defaults. Leave-one-out and Adam are defaults already."""
    return {
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "gpu_id": "",
        "show_progress": False,
        "hidden_size": 64,
        "inner_size": 64,
        "hidden_act": "relu",
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": 0.5,
        "attn_dropout_prob": 0.5,
        "MAX_ITEM_LIST_LENGTH": 50,
        "loss_type": "BPR",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "train_batch_size": 256,
        "learning_rate": 1e-3,
    }


def write_interactions(data: Path, folder: Path) -> None:
    """Write `data` as RecBole's atomic file. The place in the history stands for the time."""
    (folder / NAME).mkdir()
    with data.open() as source, (folder / NAME / f"{NAME}.inter").open("w") as target:
        target.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for line in source:
            user, *items = line.split()
            target.writelines(f"{user}\t{item}\t{i}\n" for i, item in enumerate(items))


def measure(data: Path, threads: int, steps: int | None) -> dict[str, str | int | float]:
    """Train for `steps` steps, or an epoch."""
    torch.set_num_threads(threads)
    # RecBole writes checkpoints and logs into the working directory.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_interactions(data, Path(folder))
        config = Config(model="SASRec", dataset=NAME, config_dict=settings(folder))
        train, _, _ = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, SASRec(config, train.dataset).to(config["device"]))
        timed = min(steps or len(train), len(train))
        started = time.perf_counter()
        trainer._train_epoch(islice(train, timed), 0)
        seconds = time.perf_counter() - started
    return {
        "peer": "RecBole",
        "version": recbole.__version__,
        "epoch_seconds": round(seconds * len(train) / timed, 2),
        "timed_seconds": round(seconds, 2),
        "steps": len(train),
        "timed_steps": timed,
        "rows_per_epoch": len(train.dataset),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one training epoch of RecBole's SASRec.")
    parser.add_argument("--data", type=Path, required=True, help="a user a line: user item item ...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="time only the first steps, and extrapolate")
    arguments = parser.parse_args()
    del sys.argv[1:]  # RecBole's Config would read them too
    print(json.dumps(measure(arguments.data.resolve(), arguments.threads, arguments.steps)))


if __name__ == "__main__":
    main()

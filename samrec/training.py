"""The training loop, from data to checkpoints."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape import progress
from landscape.devices import device_named
from landscape.errors import InputError
from landscape.files import replacing, writable
from samrec.checkpoint import Checkpoint, load, new_model, save
from samrec.config import Config, write_config
from samrec.data.packing import Batch, TrainingBatches
from samrec.data.readers import read
from samrec.data.split import Split, leave_one_out
from samrec.evaluation import evaluate
from samrec.losses import LOSSES, Loss
from samrec.model import SASRec
from samrec.sam import SAM


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        out: the folder with best.pt, last.pt, metrics.jsonl and config.toml.
        epochs: epochs trained in all; `best_epoch` is the one with the best validation NDCG@10.
        seconds: wall time of this call; `seconds_per_epoch` is the median of training alone.
        valid, test: metrics of best.pt, by `samrec.evaluation.metrics`.
    """

    out: Path
    epochs: int
    best_epoch: int
    seconds: float
    seconds_per_epoch: float
    valid: dict[str, float]
    test: dict[str, float]


def train(config: Config, out: Path | None = None, device: str = "auto", resume: bool = False) -> Outcome:
    """Train a model and evaluate its best epoch on the test part.

    Writes best.pt, last.pt, metrics.jsonl and config.toml to the folder `out`, by default
    runs/DATA-METHOD-seedN.

    Every epoch ends with `last.pt` and a line in `metrics.jsonl`. An epoch's order, negatives and
    dropout depend on the seed and its number alone, so a run resumed from `last.pt` ends, on one device,
    with the same weights as one that was never stopped.

    Raises:
        InputError: the data cannot be used, `out` holds a run and `resume` is false (or holds one with
            other settings), or the loss is not finite; then `last.pt` is of the epoch before.
    """
    started = time.perf_counter()
    where = device_named(device)
    out = out or Path("runs") / f"{Path(config.data).stem}-{config.method}-seed{config.seed}"
    split = leave_one_out(read(Path(config.data), **config.reading))
    if not len(split.trained):
        raise InputError(
            f"{config.data}: no user has two items to train on; histories of four or more are needed"
        )
    last = _continued(config, out, split, resume)
    writable(out).mkdir(parents=True, exist_ok=True)
    cuda = [where] if where.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            durations = _run(config, split, out, where, last)
    finally:
        with suppress(OSError):
            out.rmdir()  # only if nothing was written: a first epoch that failed leaves nothing behind

    best = load(out / "best.pt")
    test = evaluate(best.model().to(where), split, "test")
    end = load(out / "last.pt").epoch
    _log(out, {"epoch": best.epoch, "test": test})
    return Outcome(
        out=out,
        epochs=end,
        best_epoch=best.epoch,
        seconds=time.perf_counter() - started,
        seconds_per_epoch=float(np.median(durations)) if durations else 0.0,
        valid=best.valid,
        test=test,
    )


def _run(
    config: Config, split: Split, out: Path, device: torch.device, last: Checkpoint | None
) -> list[float]:
    """Train from `last` (or from scratch) to the end; return the seconds of each epoch."""
    torch.manual_seed(config.seed)
    model = new_model(config, split.num_items).to(device)
    optimizer = SAM(
        model.parameters(),
        torch.optim.Adam,
        rho=config.radius,
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=True,
    )
    epoch, best, valid = 0, (0, -1.0), {}
    if last is not None:
        model.load_state_dict(last.weights)
        optimizer.load_state_dict(last.optimizer)
        epoch, best, valid = last.epoch, last.best, last.valid
    batches = TrainingBatches(split, config.max_length, device)
    durations: list[float] = []

    steps = batches.steps(config.batch_size)
    with progress.bar(config.method, config.epochs * steps, done=epoch * steps) as advance:
        while epoch < config.epochs and epoch - best[0] < config.patience:
            epoch += 1
            torch.manual_seed(_dropout_seed(config.seed, epoch))
            epoch_started = time.perf_counter()
            losses = []
            for batch in batches.epoch(config.batch_size, (config.seed, epoch)):
                losses.append(_step(model, optimizer, batch, LOSSES[config.loss]))
                advance(_status(epoch, losses, valid))
            loss = _mean_loss(losses, epoch, config)
            durations.append(time.perf_counter() - epoch_started)

            line: dict[str, Any] = {"epoch": epoch, "loss": loss, "seconds": round(durations[-1], 4)}
            improved = False
            if epoch % config.eval_every == 0 or epoch == config.epochs:
                line["valid"] = valid = evaluate(model, split, "valid")
                improved = valid["ndcg@10"] > best[1]
                best = (epoch, valid["ndcg@10"]) if improved else best
            _log(out, line)
            state = Checkpoint(
                config=config,
                digest=split.interactions.digest,
                num_items=split.num_items,
                epoch=epoch,
                valid=valid,
                weights=model.state_dict(),
                optimizer={},
                best=best,
            )
            if improved:
                save(state, out / "best.pt")
            save(Checkpoint(**{**vars(state), "optimizer": optimizer.state_dict()}), out / "last.pt")
            if epoch == 1:
                write_config(config, out / "config.toml")
    return durations


def _step(model: SASRec, optimizer: SAM, batch: Batch, criterion: Loss) -> torch.Tensor:
    """One optimizer step; return the sum of the loss before it and its weight, still on the device."""
    total, weight = torch.zeros(()), 0

    def closure() -> torch.Tensor:
        nonlocal total, weight
        optimizer.zero_grad()
        total, weight = criterion(model, batch)
        loss = total / weight
        loss.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    return torch.stack([optimizer.step(closure), torch.tensor(float(weight), device=total.device)])


def _mean_loss(sums: list[torch.Tensor], epoch: int, config: Config) -> float:
    """Average an epoch's loss over its positions; look at the device once, at its end."""
    table = torch.stack(sums).double().cpu()
    finite = table[:, 0].isfinite()
    if not finite.all():
        step = int((~finite).nonzero()[0]) + 1
        raise InputError(
            f"training diverged: the loss is {table[step - 1, 0]:g} in epoch {epoch}, step {step}; "
            f"try a smaller lr (now {config.lr:g})"
            + (f" or rho (now {config.radius:g})" if config.radius else "")
        )
    return float(table[:, 0].sum() / table[:, 1].sum())


def _status(epoch: int, losses: list[torch.Tensor], valid: dict[str, float]) -> str:
    """What stands beside the bar. Reading the loss waits for the device, so only now and then."""
    if len(losses) % 20 != 1:
        return ""
    total, weight = losses[-1].tolist()
    text = f"epoch {epoch} · loss {total / weight:.4f}"
    return f"{text} · valid NDCG@10 {valid['ndcg@10']:.4f}" if valid else text


def _dropout_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, 1)).generate_state(1, np.uint64)[0] >> 1)


def _continued(config: Config, out: Path, split: Split, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to continue from, if any, and drop log lines of epochs after it."""
    path = out / "last.pt"
    if not path.exists():
        if (out / "metrics.jsonl").exists() and not resume:
            (out / "metrics.jsonl").unlink()  # of a run that did not reach the end of its first epoch
        return None
    if not resume:
        raise InputError(f"{out} already holds a run; continue it with --resume, or give another --out")
    last = load(path)
    last.check_data(split.interactions)
    # What may differ when a run goes on: where its data lie, and when it stops.
    free = {"data", "epochs", "patience"}
    before, now = (c.model_dump(exclude=free) for c in (last.config, config))
    if changed := [key for key in now if now[key] != before[key]]:
        raise InputError(
            f"{path} was trained with other settings: "
            + ", ".join(f"{key} {before[key]!r}, not {now[key]!r}" for key in changed)
        )
    _truncate(out / "metrics.jsonl", last.epoch)
    return last


def _log(out: Path, line: dict[str, Any]) -> None:
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`: a dictionary a line. A last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text("utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def _truncate(path: Path, epoch: int) -> None:
    """Keep the log's lines of epochs up to `epoch`."""
    kept = [line for line in read_log(path) if line["epoch"] <= epoch and "test" not in line]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")

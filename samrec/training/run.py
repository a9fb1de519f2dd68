"""Where one run stands: what it trains on next, when it ends, and what is kept of it."""

import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from landscape.runtime.table import metric_name
from landscape.storage.files import drop_parts
from samrec.checkpoint import BEST, Checkpoint, State, kept, load, of_epoch, save, save_best
from samrec.choices import VALIDATED
from samrec.config import FILES, Config, write_config
from samrec.data.labels import to_tensor
from samrec.data.packing import Batch, TrainingBatches
from samrec.data.split import Split
from samrec.evaluation import evaluate
from samrec.methods import batches_of
from samrec.model import Recommender
from samrec.sharding import ShardedEmbedding
from samrec.training.log import append, read_log, truncate
from samrec.training.loggers import RUNS, Loggers
from samrec.training.schedule import share


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        out: the folder with best.pt, best.safetensors, last.pt, metrics.jsonl and config.toml, and epochs if
            it keeps them.
        epochs: epochs trained in all; `best_epoch` is the one with the best validation NDCG@10.
        seconds: wall time of this call. `seconds_per_epoch` is the median, without validation.
        losses: the parts of the training loss in the last epoch, by name; NaN where no step saw them at w.
        valid, test: metrics of best.pt, by `samrec.evaluation.metrics`; none of a pre-training, whose last
            epoch is the one to go on from.
    """

    out: Path
    epochs: int
    best_epoch: int
    seconds: float
    seconds_per_epoch: float
    losses: dict[str, float]
    valid: dict[str, float]
    test: dict[str, float]


@dataclass(eq=False)
class Run:
    """Where one run stands.

    Attributes:
        epoch: whole epochs trained; `sums` are of the steps since.
        best: epoch and NDCG@10 of the best validation; `valid` are the metrics of the latest.
        last: the checkpoint to continue from.
        seconds: what the steps in `sums` took in earlier calls of `train`.
        parts: names of the parts of the training loss; `train` knows them.
        loggers: who is told next to metrics.jsonl; `train` opens them.
    """

    config: Config
    out: Path
    split: Split
    batches: TrainingBatches
    epoch: int = 0
    sums: list[Tensor] = field(default_factory=list)
    best: tuple[int, float] = (0, -1.0)
    valid: dict[str, float] = field(default_factory=dict)
    last: Checkpoint | None = None
    seconds: float = 0.0
    parts: tuple[str, ...] = ()
    loggers: Loggers = field(default_factory=Loggers)

    @classmethod
    def prepared(cls, config: Config, out: Path, split: Split, device: torch.device, resume: bool) -> "Run":
        split = split.fraction(config.train_fraction, config.seed).noisy(config.noise, config.seed)
        batches = batches_of(config, split, device)
        last = _continued(config, out, split, resume)
        if last is None:
            return cls(config, out, split, batches)
        sums = list(last.sums.to(device))
        return cls(config, out, split, batches, last.epoch, sums, last.best, last.valid, last, last.seconds)

    @property
    def validates(self) -> bool:
        """Whether it is trained to rank: a pre-training is not, and ends with its last epoch."""
        return self.config.method != "s3rec-pretraining"

    @property
    def begins_from(self) -> Path | None:
        """The pre-trained checkpoint that S3Rec's fine-tuning begins from; None for other methods."""
        if self.config.method != "s3rec":
            return None
        given = self.config.pretrained
        return Path(given) if given else pretraining_of(self.out) / "last.pt"

    @property
    def goes_on(self) -> bool:
        patient = not self.validates or self.epoch - self.best[0] < self.config.patience
        return self.epoch < self.config.epochs and patient

    def steps(self) -> Iterator[tuple[list[Batch], int]]:
        """Yield what is left of the epoch under way: micro-batches, and the seed of their dropout."""
        seed, epoch, parts = self.config.seed, self.epoch + 1, self.config.micro_batches
        batches = self.batches.epoch(self.config.batch_size // parts, (seed, epoch))
        for step in range(self.batches.steps(self.config.batch_size)):
            batch = list(islice(batches, parts))
            if step >= len(self.sums):
                yield batch, _seed(seed, epoch, step)

    def at(self) -> float:
        """How many epochs have been trained, and what part of the next."""
        return self.epoch + len(self.sums) / self.batches.steps(self.config.batch_size)

    def drop_later(self) -> None:
        """Remove what is kept of epochs after the checkpoint that the run goes on from.

        Only once nothing can refuse to go on: a resume that is refused changes nothing.
        """
        if not (self.last and ranks().first):
            return
        truncate(self.out / "metrics.jsonl", self.last.epoch)
        drop_parts(self.out / "epochs")
        for epoch, later in kept(self.out).items():
            if epoch > self.last.epoch:
                later.unlink(missing_ok=True)

    def rho(self) -> float:
        """What the radius is at this step."""
        config = self.config
        return config.radius * share(config.rho_schedule, config.rho_warmup, config.epochs, self.at())

    def end_epoch(
        self, losses: dict[str, float], seconds: float, model: Recommender, state: State, among_others: bool
    ) -> None:
        """Close the epoch, which took `seconds` in this call: validate if it is time, log, and save.

        A run among others saves only when it validates: sixteen checkpoints would take longer than an epoch.
        """
        self.epoch, self.sums = self.epoch + 1, []
        line: dict[str, Any] = {"epoch": self.epoch, "loss": sum(losses.values())}
        line |= {"losses": losses} if len(losses) > 1 else {}
        line["seconds"], self.seconds = round(self.seconds + seconds, 4), 0.0
        improved = False
        due = self.epoch % self.config.eval_every == 0 or self.epoch == self.config.epochs
        if due and self.validates:
            line["valid"] = self.valid = evaluate(model, self.split, "valid", ranks())
            if improved := self.valid[VALIDATED] > self.best[1]:
                self.best = (self.epoch, self.valid[VALIDATED])
        if ranks().first:
            append(self.out / "metrics.jsonl", line)
            self.loggers.line(line)
        every = self.config.save_every
        if every and (self.epoch % every == 0 or not self.goes_on):
            self.keep(state)
        if not among_others or "valid" in line or not self.goes_on:
            self.save(state, improved)

    def save(self, state: State, improved: bool = False) -> None:
        """Write last.pt, and what is kept of the best if it is that too; of several ranks, the first does."""
        if not ranks().first:
            return
        checkpoint = self._checkpoint(state)
        self._check_weights(state)
        last, settings = self.out / "last.pt", self.out / "config.toml"
        begins = not last.exists()  # settings that lie there already may be of another run
        if improved:
            save_best(checkpoint, self.out)
        save(checkpoint, last)
        if begins or not settings.exists():
            write_config(self.config, settings)

    def keep(self, state: State) -> None:
        """Write the checkpoint of this epoch, for the trajectory.

        It comes before last.pt: a run killed in between writes it once more, and lacks none.
        """
        self._check_weights(state)
        if ranks().first:
            path = of_epoch(self.out, self.epoch, self.config.epochs)
            save(replace(self._checkpoint(state), optimizer={}), path)

    def _checkpoint(self, state: State) -> Checkpoint:
        return Checkpoint(
            config=self.config,
            digest=self.split.interactions.digest,
            num_items=self.split.num_items,
            epoch=self.epoch,
            valid=self.valid,
            **state._asdict(),
            best=self.best,
            sums=torch.stack(self.sums).cpu() if self.sums else torch.empty(0, len(self.parts) + 2),
            items=to_tensor(self.split.interactions.item_ids),
            seconds=self.seconds,
        )

    def _check_weights(self, state: State) -> None:
        """Make sure that what is saved is not worse than what it replaces: a loss is of before its step.

        Raises:
            InputError: a weight is not finite.
        """
        bad = [name for name, t in state.weights.items() if not t.isfinite().all()]
        if bad:
            after = f"step {len(self.sums)} of epoch {self.epoch + 1}" if self.sums else f"epoch {self.epoch}"
            raise InputError(
                f"training diverged: {bad[0]} is not finite after {after}; "
                f"try a smaller lr (now {self.config.lr:g})"
            )

    def mean_losses(self) -> dict[str, float]:
        """Average each part of the loss over the weights of the epoch's steps; look at the device once.

        SAM steps that saw only the loss at w + e do not count.

        Raises:
            InputError: the loss of a step was not finite.
        """
        table = torch.stack(self.sums).double().cpu()
        totals, weight, at_w = table[:, :-2], table[:, -2], table[:, -1]
        total = totals.sum(1)
        if not total.isfinite().all():
            step = int((~total.isfinite()).nonzero()[0])
            raise InputError(
                f"training diverged: the loss is {total[step]:g} in epoch {self.epoch + 1}, step {step + 1}; "
                f"try a smaller lr (now {self.config.lr:g})"
                + (f" or rho (now {self.config.radius:g})" if self.config.radius else "")
            )
        means = at_w @ totals / (weight @ at_w)  # NaN where no step saw the loss at w
        return dict(zip(self.parts, means.tolist(), strict=True))

    def status(self) -> str:
        """Text next to the progress bar. Reading the loss waits for the device, so it is updated rarely."""
        if len(self.sums) % 20 != 1:
            return ""
        *totals, weight, _ = self.sums[-1].tolist()
        text = f"epoch {self.epoch + 1} · loss {sum(totals) / weight:.4f}"
        return f"{text} · valid {metric_name(VALIDATED)} {self.valid[VALIDATED]:.4f}" if self.valid else text

    def outcome(
        self, device: torch.device, started: float, durations: list[float], shard_items: bool = False
    ) -> Outcome:
        """Evaluate the best epoch on the test part, and log that."""
        log = self.out / "metrics.jsonl"
        ranks().gathered(None)  # the first has written its files
        last = next((line for line in reversed(read_log(log)) if "loss" in line), None)
        if last is None:
            raise InputError(f"{log} no longer holds the epochs that were trained")
        path = self.out / ("best.pt" if self.validates else "last.pt")
        best = load(path)
        if best.best != self.best or not _same_run(best, self.config, self.split):
            raise InputError(f"{path} is not the best epoch of this run, {self.best[0]}, but of another run")
        model = best.model()
        if shard_items:
            model.item = ShardedEmbedding(model.item.weight, ranks())
        test = evaluate(model.to(device), self.split, "test", ranks()) if self.validates else {}
        if test and ranks().first:
            append(log, line := {"epoch": best.epoch, "test": test})
            self.loggers.line(line)
            self.loggers.result({"validation": best.valid, "test": test})
        losses = last.get("losses", dict.fromkeys(self.parts, last["loss"]))
        return Outcome(
            out=self.out,
            epochs=last["epoch"],
            best_epoch=best.epoch,
            seconds=time.perf_counter() - started,
            seconds_per_epoch=float(np.median(durations)) if durations else 0.0,
            losses={name: np.nan if loss is None else loss for name, loss in losses.items()},
            valid=best.valid,
            test=test,
        )


def pretraining_of(out: Path) -> Path:
    """Return the folder in which a run of S3Rec pre-trains, if it begins from nothing."""
    return out / "pretraining"


def _seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step, 1)).generate_state(1, np.uint64)[0] >> 1)


def clear(out: Path) -> None:
    """Remove what is left of a run without a last.pt: nothing can continue it. Other files stay."""
    if not ranks().first:
        return
    names = ("metrics.jsonl", "monitor.jsonl", RUNS, *BEST)
    for path in (*(out / name for name in names), *kept(out).values()):
        path.unlink(missing_ok=True)
    drop_parts(out / "epochs")
    with suppress(OSError):
        (out / "epochs").rmdir()  # only if it is empty


def _continued(config: Config, out: Path, split: Split, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to continue from, if any."""
    path = out / "last.pt"
    if not path.exists():
        _check_left(config, out, split)
        return None
    if not resume:
        raise InputError(f"{out} already holds a run; continue it with --resume, or give another --out")
    last = load(path)
    if changed := _changed(last.config, config):
        raise InputError(f"{path} was trained with other settings: {', '.join(changed)}")
    last.check_data(split.interactions)
    _warn_of_pretraining(path, last.config, config)
    return last


def _warn_of_pretraining(path: Path, before: Config, now: Config) -> None:
    """Warn of a file that only a pre-training or its end would read, where the fine-tuning goes on."""
    for name in ("pretrained", "attributes") if now.method == "s3rec" else ():
        if (given := getattr(now, name)) != (read := getattr(before, name)):
            warnings.warn(
                f"{path} is past its pre-training, with {name} {read!r}; {given!r} has no effect on it",
                stacklevel=2,
            )


def _check_left(config: Config, out: Path, split: Split) -> None:
    """Make sure that what lies in a folder without a last.pt, which is removed, is of this run, begun before.

    Raises:
        InputError: a checkpoint is of another run, or best.pt is not a checkpoint.
    """
    best = out / BEST[0]
    for path in (best, *kept(out).values()):
        found = None
        if path.exists():
            with suppress(InputError):
                found = load(path)
            if not _same_run(found, config, split) if found else path == best:
                raise InputError(f"{path} is of another run; move it, or choose another --out")


def _same_run(found: Checkpoint, config: Config, split: Split) -> bool:
    return found.digest == split.interactions.digest and not _changed(found.config, config)


def _changed(before: Config, now: Config) -> list[str]:
    """Say which settings differ, of those that may not change when a run is resumed.

    Free are where the data are, when the run stops, and what it keeps. A schedule depends on the number of
    epochs.
    """
    free = {*FILES, "patience", "save_every", "monitor"}
    if (now.lr_schedule, now.rho_schedule) == ("constant", "constant"):
        free.add("epochs")
    then, new = (c.model_dump(exclude=free) for c in (before, now))
    return [f"{key} {then[key]!r}, not {new[key]!r}" for key in new if new[key] != then[key]]

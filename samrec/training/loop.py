"""The training loop, from data to checkpoints."""

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from landscape.errors import InputError, Stopped
from landscape.runtime import progress
from landscape.runtime.devices import device_named, keep_freed_memory
from landscape.runtime.ranks import ranks
from landscape.storage.files import locked, own, writable
from samrec.checkpoint import Checkpoint, State
from samrec.choices import Log
from samrec.config import Config
from samrec.data.holdout import LEAVE_ONE_OUT
from samrec.data.packing import Batch
from samrec.data.readers import read
from samrec.data.sources import plain_name
from samrec.data.split import split_by
from samrec.features import check_features
from samrec.methods import initial_learner
from samrec.methods.s3rec import keeping_attributes
from samrec.model import Recommender
from samrec.training.engines.sharded import Sharded
from samrec.training.engines.solo import Solo
from samrec.training.engines.stacked import Stacked
from samrec.training.log import WRITTEN
from samrec.training.loggers import logging_to
from samrec.training.memory import check_memory
from samrec.training.pretraining import pretrained_for, pretraining_in, with_attributes
from samrec.training.run import Outcome, Run, clear
from samrec.training.schedule import share
from samrec.training.stopping import Request, stopping

if TYPE_CHECKING:
    from landscape import Monitor


class Engine(Protocol):
    """What takes the steps of one run, or of several together: `samrec.training.engines`."""

    def load(self, checkpoints: Sequence[Checkpoint]) -> None: ...
    def states(self) -> list[State]: ...
    def models(self) -> list[Recommender]: ...
    def step(
        self, batches: Sequence[Sequence[Batch]], seeds: Sequence[int], lr: float, rhos: Sequence[float]
    ) -> Tensor: ...


def train(
    config: Config,
    out: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    shard_items: bool = False,
    max_memory: float | None = None,
    log: Sequence[Log] = (),
) -> Outcome:
    """Train a model and evaluate its best epoch on the test part.

    Writes best.pt, best.safetensors (its weights alone), last.pt, metrics.jsonl and config.toml to the folder
    `out`, by default runs/DATA-METHOD-seedN; with `config.save_every` the checkpoints of
    `samrec.checkpoint.trajectory`, and with `config.monitor` the measurements of a `landscape.Monitor`.

    Every epoch ends with `last.pt` and a line in `metrics.jsonl`; SIGTERM and SIGINT end the run after
    the current step, with a `last.pt` of that step. A step's users, negatives and dropout depend only
    on the seed and the step's number, so a run resumed from `last.pt` ends, on one device, with the same
    weights as one that was never stopped.

    Args:
        config: what is trained, on what, and how.
        out: the run's folder.
        device: as `landscape.device_named` takes it.
        resume: continue the run in `out`, if there is one.
        shard_items: split the item table by rows among the ranks; each holds and updates its part.
        max_memory: how much memory the run may take, in GiB; by default what is free. See
            `samrec.training.memory`.
        log: where else the metrics by epoch, the settings and the final table go, next to metrics.jsonl:
            `tensorboard` (in OUT/tensorboard), `wandb` and `mlflow`. A resumed run continues theirs.

    Returns:
        The metrics of the best epoch on both parts, its number, and how long training took.

    Raises:
        InputError: the data cannot be used, there is too little memory, `out` holds a run and `resume` is
            false (or holds one with other settings), another process writes to it, a logger is not installed
            or cannot start, settings do not suit the number of processes, or the loss is not finite; then
            `last.pt` is of the epoch before.
        Stopped: a signal asked for it (a KeyboardInterrupt).
    """
    out = out or Path("runs") / f"{plain_name(config.data)}-{config.method}-seed{config.seed}"
    return train_together([config], [out], device, resume, shard_items, max_memory, log)[0]


def train_together(
    configs: Sequence[Config],
    outs: Sequence[Path],
    device: str = "auto",
    resume: bool = False,
    shard_items: bool = False,
    max_memory: float | None = None,
    log: Sequence[Log] = (),
) -> list[Outcome]:
    """Train several models of one shape at once (`samrec.training.engines.stacked`), each as `train` would.

    Raises:
        InputError: as `train`, or the runs to be resumed stand at different steps.
        Stopped: a signal asked for it.
    """
    with ExitStack() as held:
        for out in outs:
            held.enter_context(locked(writable(own(out, *WRITTEN))))
        started = time.perf_counter()
        _check_ranks(configs, shard_items)
        where = device_named(device)
        keep_freed_memory()
        for config, out in zip(configs, outs, strict=True):
            if config.pretrains and not (out / "last.pt").exists():
                with pretraining_in(out, config) as folder:
                    train(config.pretraining, folder, device, resume, max_memory=max_memory, log=log)
        runs = _prepared([with_attributes(config) for config in configs], outs, where, resume)
        check_memory([run.config for run in runs], runs[0].batches, where, max_memory)
        for run in runs:
            if not run.last:
                clear(run.out)
        for run in runs if ranks().first else ():
            last = run.last.epoch if run.last else None
            run.loggers = held.enter_context(logging_to(log, run.config, run.out, last))
        try:
            with stopping() as request:
                durations = _train(runs, where, request, shard_items)
        except InputError as error:
            if len(runs) > 1 and request.signal:  # of several, a sweep would go on with each
                raise _stopped(request.signal, "where one of several runs failed") from error
            raise
        finally:
            for run in runs:
                if not (run.out / "last.pt").exists():
                    clear(run.out)  # a first epoch that failed leaves nothing
        return [run.outcome(where, started, durations, shard_items) for run in runs]


def _prepared(
    configs: Sequence[Config], outs: Sequence[Path], device: torch.device, resume: bool
) -> list[Run]:
    """Read the data, and say where each run stands.

    Raises:
        InputError: nobody can be trained on, a run cannot be continued, or they stand at different steps.
    """
    first = configs[0]
    split = split_by(first.split, read(Path(first.data), **first.reading))
    if not len(split.trained):
        needed = f"split {first.split}"
        if first.split == LEAVE_ONE_OUT:
            needed = "histories of four or more are needed"
        raise InputError(f"{first.data}: no user has two items to train on; {needed}")
    runs = [Run.prepared(*pair, split, device, resume) for pair in zip(configs, outs, strict=True)]
    if len({(run.epoch, len(run.sums)) for run in runs}) > 1:
        raise InputError("runs that train together must stand at the same step; resume them one by one")
    return runs


def _train(runs: list[Run], device: torch.device, request: Request, shard_items: bool) -> list[float]:
    """Train from where the runs stand to their end; return the seconds of each epoch.

    A run that ends before the others is still computed along with them; its results are ignored.
    """
    first, config = runs[0], runs[0].config
    engine = _engine(runs, device, shard_items)
    for run in runs:
        run.drop_later()
    if config.save_every and not first.last:
        for run, state in zip(runs, engine.states(), strict=True):
            run.keep(state)
    going = [run for run in runs if run.goes_on]
    steps = first.batches.steps(config.batch_size)
    durations: list[float] = []
    watch = _monitor(first, engine)
    label = config.method if len(runs) == 1 else f"{len(runs)} runs"
    with progress.bar(label, config.epochs * steps, done=round(first.at() * steps)) as advance:
        while going:
            began, whole = time.perf_counter(), not first.sums
            for step in zip(*(run.steps() for run in runs), strict=True):
                batches, seeds = zip(*step, strict=True)
                lr = config.lr * share(config.lr_schedule, config.warmup, config.epochs, first.at())
                sums = engine.step(batches, seeds, lr, [run.rho() for run in runs])
                for run, own in zip(runs, sums, strict=True):
                    run.sums.append(own)
                advance(first.status())
                if watch and (record := watch.step(first.epoch * steps + len(first.sums))):
                    measured = {f"monitor/{name}": value for name, value in record.metrics.items()}
                    first.loggers.values(measured, round(first.at()))
                if (number := request.asked()) and len(first.sums) < steps:
                    _stop(runs, going, engine, number, time.perf_counter() - began)
            losses = {run: run.mean_losses() for run in going}  # waits for the device
            seconds = time.perf_counter() - began
            durations += [seconds] if whole else []
            for run, model, state in zip(runs, engine.models(), engine.states(), strict=True):
                if run in losses:
                    run.end_epoch(losses[run], seconds, model, state, among_others=len(runs) > 1)
                else:
                    run.epoch, run.sums = run.epoch + 1, []
            going = [run for run in going if run.goes_on]
            if (number := request.asked()) and (going or not first.validates):  # more after a pre-training
                _stop(runs, going, engine, number)
    return durations


def _check_ranks(configs: Sequence[Config], shard_items: bool) -> None:
    """Refuse what several ranks cannot do together, or one rank cannot do by itself."""
    size, first = ranks().size, configs[0]
    if shard_items and first.ascent == "rank":
        raise InputError("with ascent rank, each rank needs all items; do not shard them")
    if shard_items and first.item_features:
        raise InputError("with item features, each rank needs all items; do not shard them")
    if size == 1 and any(config.ascent == "rank" for config in configs):
        raise InputError("ascent rank is for several processes (torchrun); with one process use ascent batch")
    if any(config.monitor for config in configs) and (size > 1 or len(configs) > 1 or shard_items):
        raise InputError("monitor measures one run in one process; leave it out, or train that run alone")
    if size > 1 and len(configs) > 1:
        raise InputError("several runs train together in one process; train them one by one under torchrun")
    if size > 1 and not first.by_rows:
        hint = ", or give --pretrained" if first.pretrains else ""
        raise InputError(f"{first.method} learns from whole batches, not row by row: use one process{hint}")


def _engine(runs: list[Run], device: torch.device, shard_items: bool) -> Engine:
    """Build what takes the steps, and load what the runs continue from."""
    config = runs[0].config
    learners = [initial_learner(run.config, run.split, fused=len(runs) == 1) for run in runs]
    for run, learner in zip(runs, learners, strict=True):
        run.parts = learner.parts
        if run.last:
            check_features(learner.model, run.last.weights, last := run.out / "last.pt")
            run.last = replace(run.last, extra=keeping_attributes(learner, run.last.extra, last))
        elif run.begins_from:
            pretrained = pretrained_for(run)
            check_features(learner.model, pretrained.weights, run.begins_from)
            learner.model.load_state_dict(pretrained.model().state_dict())
    rows = [run.batches.rows(config.batch_size // config.micro_batches) for run in runs]
    engine: Engine
    if len(runs) == 1:
        engine = (Sharded if shard_items else Solo)(config, learners[0], device, rows[0])
    else:
        engine = Stacked([run.config for run in runs], learners, device, rows)
    if all(run.last for run in runs):
        engine.load([run.last for run in runs if run.last])
    return engine


def _monitor(run: Run, engine: Engine) -> "Monitor | None":
    """Return what measures the training loss of a run as it trains, if that is asked for."""
    if not run.config.monitor:
        return None
    from samrec.task import monitor_of

    assert isinstance(engine, Solo)
    every = run.config.monitor * run.batches.steps(run.config.batch_size)
    (model,) = engine.models()
    file = run.out / "monitor.jsonl"
    return monitor_of((run.config, run.split), model, engine.optimizer, every=every, at_most=None, file=file)


def _stop(runs: list[Run], going: list[Run], engine: Engine, number: int, seconds: float = 0.0) -> None:
    """Save where the runs stand, `seconds` into an epoch, and leave."""
    failed: list[InputError] = []
    for run, state in zip(runs, engine.states(), strict=True):
        run.seconds += seconds
        if run not in going or not (run.sums or len(runs) > 1):  # one alone has saved its epoch
            continue
        try:
            if run.sums:
                run.mean_losses()  # a run that has diverged keeps the last good state
            run.save(state)
        except InputError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    ranks().gathered(None)  # torchrun ends all ranks when the first of them leaves
    where = "at the end of the pre-training"
    if going:
        run = going[0]
        steps = run.batches.steps(run.config.batch_size)
        where = f"in epoch {run.epoch + 1}, after step {len(run.sums)} of {steps}"
    raise _stopped(number, where)


def _stopped(number: int, where: str) -> Stopped:
    return Stopped(f"stopped by {signal.Signals(number).name} {where}; continue with --resume", number)

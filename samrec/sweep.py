"""Many runs: every combination of some settings, each in a folder of its own, resumable."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from landscape import progress
from landscape.devices import device_named
from landscape.errors import InputError
from landscape.files import locked, replacing, writable
from samrec.config import Config, applies, configure, read_settings, write_config
from samrec.log import read_log
from samrec.stopping import Stopped, stopping

RUN = """
from samrec.stopping import end_with_parent
end_with_parent()
from landscape.cli.app import main
main()
"""
"""The program of a run's process: if it outlived a sweep that is killed, it would keep its folder locked."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep.

    Attributes:
        varied: the settings that distinguish it, as they were given.
        out: its folder.
    """

    varied: Mapping[str, str]
    config: Config
    out: Path

    @property
    def name(self) -> str:
        return self.out.name

    def result(self) -> dict[str, Any] | None:
        """Return what came of it, from its log: epochs, best epoch, validation and test; None before that.

        Raises:
            InputError: the log is damaged.
        """
        lines = read_log(self.out / "metrics.jsonl")
        if not lines or "test" not in lines[-1]:
            return None
        *trained, last = lines
        valid = {line["epoch"]: line["valid"] for line in trained if "valid" in line}
        if last["epoch"] not in valid:
            raise InputError(f"{self.out} holds a log without the validation of its best epoch")
        return {
            "epochs": trained[-1]["epoch"],
            "best_epoch": last["epoch"],
            "seconds": sum(line.get("seconds", 0.0) for line in trained),
            "valid": valid[last["epoch"]],
            "test": lines[-1]["test"],
        }


def plan(settings: Mapping[str, Any], varied: Mapping[str, Sequence[str]], out: Path) -> list[Job]:
    """Make a job of every combination of the varied settings.

    A varied setting that a method does not have (SAM's, where it is sasrec) does not multiply its jobs.

    Raises:
        InputError: a setting or a value is none, `out` holds runs with other settings, or the method is a
            pre-training, which ranks nothing.
    """
    jobs: dict[str, Job] = {}
    for values in product(*varied.values()):
        combination = dict(zip(varied, values, strict=True))
        method = str({**settings, **combination}.get("method", "sasrec"))
        if method == "s3rec-pretraining":
            raise InputError("a sweep compares rankings, and s3rec-pretraining ranks nothing; sweep s3rec")
        combination = {key: value for key, value in combination.items() if applies(key, method)}
        name = ",".join(f"{key}={value}" for key, value in combination.items()).replace(os.sep, "_")
        jobs[name] = Job(combination, configure({**settings, **combination}), out / (name or "run"))
    for job in jobs.values():
        path = job.out / "config.toml"
        if path.exists() and (before := configure(read_settings(path))) != job.config:
            now, then = job.config.model_dump(), before.model_dump()
            key = next(key for key in now if now[key] != then[key])
            raise InputError(
                f"{job.out} holds a run with {key} {then[key]!r}, not {now[key]!r}; choose another --out"
            )
    return list(jobs.values())


def sweep(
    jobs: Sequence[Job],
    device: str = "auto",
    processes: int | None = None,
    ended: Callable[[Job], None] = lambda job: None,
) -> None:
    """Train what is not yet trained, and write `results.json` beside the runs; tell `ended` of each.

    On a CPU each run is a process of its own, `processes` at once (one a core by default), with its share
    of the cores. On a GPU runs that differ in nothing but seed, rho, or sasrec and samrec train as one
    batched model, unless a number of processes is given. A sweep that was stopped goes on where it was.

    Raises:
        InputError: runs failed (the others are done), or another process writes to the folder.
        Stopped: a signal asked for it; every run has saved where it stands.
    """
    folder = jobs[0].out.parent
    with locked(writable(folder)):
        failed = _sweep(jobs, folder, device, processes, ended)
    if failed:
        name, message = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(jobs)} runs failed; {name}: {message}")


def _sweep(
    jobs: Sequence[Job], folder: Path, device: str, processes: int | None, ended: Callable[[Job], None]
) -> dict[str, str]:
    """Train what is not yet trained; return what went wrong, by the job's name."""
    pending = [job for job in jobs if job.result() is None]
    together = device_named(device).type == "cuda" and processes is None
    processes = processes or os.cpu_count() or 1
    failed: dict[str, str] = {}
    with progress.bar("sweep", len(jobs), done=len(jobs) - len(pending)) as advance:
        done = _together(pending, device) if together else _apart(pending, device, processes)
        for job, failure in done:
            if failure:
                failed[job.name] = failure
            else:
                ended(job)
            write_results(jobs, folder / "results.json")
            advance(job.name)
    write_results(jobs, folder / "results.json")
    return failed


def write_results(jobs: Sequence[Job], path: Path) -> None:
    """Write what is known so far: a list of runs, each with its varied settings and what came of it."""
    rows = [{"run": job.name, **job.varied, **(job.result() or {"test": None})} for job in jobs]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _apart(jobs: Sequence[Job], device: str, processes: int) -> Iterator[tuple[Job, str]]:
    """Run each job as a process; yield it with what went wrong, as it ends."""
    threads = max(1, (os.cpu_count() or 1) // min(processes, max(1, len(jobs))))
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    waiting, running = list(jobs), dict[Job, subprocess.Popen[bytes]]()
    with stopping() as request:
        try:
            while waiting or running:
                while waiting and len(running) < processes and not request.signal:
                    job = waiting.pop(0)
                    running[job] = _started(job, device, environment)
                time.sleep(0.05)
                if request.signal:
                    _stop(list(running.values()), request.signal)
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    code = running.pop(job).returncode
                    yield job, _said(job) if code else ""
        finally:  # also when the caller goes away
            _end(list(running.values()))


def _started(job: Job, device: str, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    settings = job.out / "config.toml"
    if not settings.exists():
        write_config(job.config, settings)
    run = ["train", "--config", settings, "--out", job.out, "--resume", "--device", device, "--json"]
    with (job.out / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, run)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment,
            start_new_session=True,  # a Ctrl-C is ours to pass on, once
        )


def _said(job: Job) -> str:
    lines = (job.out / "log.txt").read_text("utf-8", errors="replace").splitlines()
    return lines[-1].removeprefix("landscape: ") if lines else "it said nothing"


def _stop(running: Sequence["subprocess.Popen[bytes]"], number: int) -> None:
    _end(running)
    name = signal.Signals(number).name
    raise Stopped(f"stopped by {name}; the same command continues the sweep", number)


def _end(running: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Let runs finish their step and save."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def _together(jobs: Sequence[Job], device: str) -> Iterator[tuple[Job, str]]:
    """Train jobs of one shape that stand at the same step as one; yield each with what went wrong."""
    from samrec.checkpoint import load
    from samrec.engines.stacked import MAY_DIFFER
    from samrec.training import train, train_together

    def shape(job: Job) -> str:
        path = job.out / "last.pt"
        last = load(path) if path.exists() else None
        at = (last.epoch, len(last.sums)) if last else (0, 0)
        config = job.config
        learns = "sasrec" if config.method == "samrec" else config.method
        alone = job.name if config.micro_batches > 1 else ""
        return repr((at, learns, config.model_dump(exclude=MAY_DIFFER), alone))

    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(shape(job), []).append(job)
    for group in groups.values():
        try:
            train_together([job.config for job in group], [job.out for job in group], device, resume=True)
            yield from ((job, "") for job in group)
        except InputError:  # one of them diverged: alone, it does not take the others along
            for job in group:
                try:
                    train(job.config, job.out, device, resume=True)
                    yield job, ""
                except InputError as error:
                    yield job, str(error)

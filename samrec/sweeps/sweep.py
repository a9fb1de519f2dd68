"""Many runs: train those that are missing, here or on a cluster, and write down all results."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from landscape.errors import InputError, Stopped
from landscape.runtime import progress
from landscape.runtime.devices import cores, device_named
from landscape.storage.files import locked, writable, write_text
from samrec.sweeps.cluster import Cluster
from samrec.sweeps.jobs import Job
from samrec.sweeps.processes import Processes
from samrec.training.stopping import stopping

Endings = Iterator[tuple[Job, str]]
"""Jobs as they end, each with what went wrong."""


class Runner(Protocol):
    """Where jobs run, each as a process. At the end of its block what still runs ends its step and saves."""

    def __enter__(self) -> object: ...
    def __exit__(self, *raised: object) -> None: ...
    def submit(self, jobs: Sequence[Job]) -> None: ...
    def ended(self) -> Endings: ...


def sweep(
    jobs: Sequence[Job],
    device: str = "auto",
    processes: int | None = None,
    ended: Callable[[Job], None] = lambda job: None,
    ray: str | None = None,
    max_memory: float | None = None,
) -> None:
    """Train the runs that are still missing, write `results.json` next to them, and call `ended` for each.

    On a CPU each run is a process of its own, `processes` at once (by default one per core), with its share
    of the cores. On a GPU runs that differ in nothing but seed, rho, or sasrec and samrec train as one
    batched model, unless a number of processes is given. With the address of a Ray cluster, `ray`, its nodes
    carry them out: see `samrec.sweeps.cluster`. A sweep that was stopped continues where it was.

    Each run may take `max_memory`, in GiB, as `samrec.training.loop.train` takes it.

    Raises:
        InputError: runs failed (the others are done), another process writes to the folder, or the cluster
            cannot be used.
        Stopped: a signal asked for it; every run has saved where it stands.
    """
    folder = jobs[0].out.parent
    with locked(writable(folder)):
        failed = _sweep(
            jobs, folder, lambda pending: _carried_out(pending, device, processes, ray, max_memory), ended
        )
    if failed:
        name, message = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(jobs)} runs failed; {name}: {message}")


def _sweep(
    jobs: Sequence[Job],
    folder: Path,
    carry_out: Callable[[Sequence[Job]], Endings],
    ended: Callable[[Job], None],
) -> dict[str, str]:
    """Train what is not yet trained; return what went wrong, by the job's name."""
    pending = [job for job in jobs if job.result() is None]
    failed: dict[str, str] = {}
    with progress.bar("sweep", len(jobs), done=len(jobs) - len(pending)) as advance:
        for job, failure in carry_out(pending):
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
    write_text(path, json.dumps([job.row for job in jobs], indent=1) + "\n")


def _carried_out(
    jobs: Sequence[Job], device: str, processes: int | None, ray: str | None, max_memory: float | None
) -> Endings:
    """Choose where jobs run."""
    if ray is not None:
        return _apart(jobs, Cluster(device, ray, max_memory))
    if device_named(device).type == "cuda" and processes is None:
        from samrec.sweeps.together import together

        return together(jobs, device, max_memory)
    return _apart(jobs, Processes(device, processes or cores(), max_memory))


def _apart(jobs: Sequence[Job], runner: Runner) -> Endings:
    """Run each job as a process."""
    left = len(jobs)
    if not left:
        return
    with runner, stopping() as request:
        runner.submit(jobs)
        while left:
            time.sleep(0.05)
            if request.signal:
                name = signal.Signals(request.signal).name
                raise Stopped(f"stopped by {name}; the same command continues the sweep", request.signal)
            for ended in runner.ended():
                left -= 1
                yield ended

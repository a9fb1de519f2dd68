"""Runs as processes of this machine, each of them one `landscape train`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from landscape.runtime.devices import cores
from landscape.storage.files import own
from samrec.config import write_config
from samrec.sweeps.jobs import Job
from samrec.training.log import WRITTEN

Process = subprocess.Popen[bytes]

RUN = """
from samrec.training.stopping import end_with_parent
end_with_parent()
from landscape.cli.app import main
main()
"""
"""The program of a run's process: if it outlived a sweep that is killed, it would keep its folder locked."""


class Processes:
    """A runner (see `samrec.sweeps.sweep.Runner`): `at_once` processes that share this machine.

    OMP_NUM_THREADS, where it is set, is a run's number of threads instead.
    """

    def __init__(self, device: str, at_once: int, max_memory: float | None = None) -> None:
        self.device, self.at_once, self.max_memory = device, at_once, max_memory
        self.waiting: list[Job] = []
        self.running: dict[Job, Process] = {}
        self.environment: dict[str, str] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        end(list(self.running.values()))

    def submit(self, jobs: Sequence[Job]) -> None:
        threads = max(1, cores() // min(self.at_once, len(jobs)))
        self.environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        self.waiting = list(jobs)

    def ended(self) -> Iterator[tuple[Job, str]]:
        while self.waiting and len(self.running) < self.at_once:
            job = self.waiting.pop(0)
            self.running[job] = started(job, self.device, self.environment, self.max_memory)
        for job in [job for job, process in self.running.items() if process.poll() is not None]:
            yield job, failure(job, self.running.pop(job))


def started(
    job: Job, device: str, environment: Mapping[str, str], max_memory: float | None = None
) -> Process:
    """Start or resume a run; its output goes to its log.txt."""
    settings = own(job.out, "log.txt", *WRITTEN) / "config.toml"
    if not settings.exists():
        write_config(job.config, settings)
    run = ["train", "--config", settings, "--out", job.out, "--resume", "--device", device, "--json"]
    run += [] if max_memory is None else ["--max-memory", max_memory]
    with (job.out / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, run)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment,
            start_new_session=True,  # a Ctrl-C is ours to pass on, once
        )


def failure(job: Job, process: Process) -> str:
    """Return what went wrong with a run that has ended: the signal that killed it, or its last line."""
    if not process.returncode:
        return ""
    if process.returncode < 0:  # the last line is progress; the system kills where memory runs out
        return f"killed by {signal.Signals(-process.returncode).name}"
    lines = (job.out / "log.txt").read_text("utf-8", errors="replace").splitlines()
    return lines[-1].removeprefix("landscape: ") if lines else "it said nothing"


def end(running: Sequence[Process]) -> None:
    """Let runs finish their step and save."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait()

"""Runs on the nodes of a Ray cluster: it decides where, and carries a run on when its node is lost."""

import io
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import MOST, InputError
from landscape.storage.files import locked
from samrec.config import FILES
from samrec.sweeps.jobs import Job
from samrec.sweeps.processes import end, failure, started

if TYPE_CHECKING:
    from ray import ObjectRef

PATIENCE = 30.0
"""Seconds for a cluster or a node to answer, and for a process of a lost node to leave a run's folder."""

ANSWERS = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False); ray.shutdown()"
RETRIES = 3
"""How often a run is carried on whose node is lost."""


class Cluster:
    """A runner (see `samrec.sweeps.sweep.Runner`): processes on the nodes of a Ray cluster that is running.

    A run takes one CPU, or OMP_NUM_THREADS of them, with a thread per CPU. With `device` cuda, or auto where
    a node has a GPU, a GPU too. All nodes must see the folders of the runs, and their data, under the same
    names.

    Args:
        address: HOST:PORT, or auto for the cluster that this machine is in.

    Raises:
        InputError: OMP_NUM_THREADS is not a number.
    """

    def __init__(self, device: str, address: str, max_memory: float | None = None) -> None:
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        if not threads.isdecimal() or not int(threads):
            raise InputError(f"OMP_NUM_THREADS is {threads!r}; over Ray it must be a run's number of threads")
        self.device, self.address, self.threads, self.max_memory = device, address, int(threads), max_memory
        self.running: dict[ObjectRef, Job] = {}
        self.aside = redirect_stdout(_Warnings())

    def __enter__(self) -> None:
        """Join the cluster.

        Raises:
            InputError: Ray is not installed, or no cluster answers.
        """
        try:
            import ray
        except ImportError:
            raise InputError("--ray needs ray: pip install ray") from None
        _check_answers(self.address)
        ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR)
        self.aside.__enter__()

    def __exit__(self, *_: object) -> None:
        import ray

        for task in self.running:
            ray.cancel(task)
        if self.running:
            ray.wait(list(self.running), num_returns=len(self.running))
        ray.shutdown()
        self.aside.__exit__(None, None, None)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand all runs to Ray, which starts as many as the nodes have room for.

        Raises:
            InputError: no node has room for a run, or one of those that have does not see what a run needs.
        """
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        if self.device == "auto":
            self.device = "cuda" if any("GPU" in node["Resources"] for node in alive) else "cpu"
        needs = {"CPU": self.threads, "GPU": int(self.device == "cuda")}
        fit = [n for n in alive if all(n["Resources"].get(kind, 0) >= c for kind, c in needs.items())]
        if not fit:
            raise InputError(f"a run takes {_count(needs)}, and no node of the Ray cluster has them")
        _check_shared(jobs, fit)
        room = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"]}
        task = ray.remote(max_retries=RETRIES, **room)(carried_out)
        how = self.device, self.threads, Path.cwd(), self.max_memory
        self.running = {task.remote(job, *how): job for job in jobs}

    def ended(self) -> Iterator[tuple[Job, str]]:
        import ray

        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        for task in done:
            job = self.running.pop(task)
            wrong = _went_wrong(task)
            if not wrong and job.result() is None:
                wrong = f"its node has trained it, but {job.out} does not show it yet; sweep again later"
            yield job, wrong


def carried_out(job: Job, device: str, threads: int, folder: Path, max_memory: float | None) -> str:
    """Train in a process of this node, on paths from that folder; return what went wrong."""
    # Ray cancels by an interrupt, and a node that was started in the background ignores those.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if folder.is_dir():
        os.chdir(folder)
    _await_free(job.out)
    process = started(job, device, os.environ | {"OMP_NUM_THREADS": str(threads)}, max_memory)
    try:
        while process.poll() is None:
            time.sleep(0.05)  # a cancelled task is interrupted between two lines of Python
    finally:
        end([process])
    return failure(job, process)


def unseen(paths: Sequence[Path]) -> Path | None:
    """Return the first of these paths that this node does not see."""
    return next((path for path in paths if not path.exists()), None)


class _Warnings(io.TextIOBase):
    """What Ray prints, of nodes that are lost, as warnings of one line: standard output is for results."""

    def write(self, text: str) -> int:
        if line := re.sub(r"\x1b\[\d*m", "", text).strip().partition("\n")[0]:
            warnings.warn(textwrap.shorten(line, MOST), stacklevel=2)
        return len(text)


def _await_free(folder: Path) -> None:
    """Let a process end whose node or sweep was lost: the system kills it a moment after those."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(InputError), locked(folder):
            return
        time.sleep(0.1)


def _check_answers(address: str) -> None:
    """Connect in a process that can be ended: Ray waits minutes for a port that is not its own.

    Raises:
        InputError: no cluster answers at that address.
    """
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ANSWERS, address],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"no Ray cluster answers at {address}") from None
    if asked.returncode:
        said = asked.stderr.strip().rpartition("\n")[2]
        raise InputError(f"cannot join a Ray cluster at {address!r}: {said}")


def _check_shared(jobs: Sequence[Job], nodes: Sequence[dict[str, Any]]) -> None:
    """Let each node look for the data, and for a file of a new name where the runs will be.

    Raises:
        InputError: a node does not see them, or cannot load this program.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    named = {getattr(job.config, name) for job in jobs for name in FILES}
    # what is missing here too is said by the run
    data = {Path(path).absolute() for path in named if path and Path(path).exists()}
    with tempfile.NamedTemporaryFile(dir=jobs[0].out.parent, prefix=".part.") as new:
        paths = [Path(new.name).absolute(), *sorted(data)]
        look = ray.remote(num_cpus=0)(unseen)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = [look.options(scheduling_strategy=strategy).remote(paths) for strategy in there]
        # All of them: Ray complains of a task that is under way when the program leaves.
        ray.wait(asked, num_returns=len(asked), timeout=PATIENCE)
        for node, answer in zip(nodes, asked, strict=True):
            try:
                missing = ray.get(answer, timeout=0)
            except ray.exceptions.RayTaskError as error:
                raise InputError(f"{node['NodeManagerAddress']} cannot run this: {_reason(error)}") from None
            except ray.exceptions.RayError:
                continue  # lost since, or before Ray noticed, or slow to start
            if missing:
                what = missing.parent if missing == paths[0] else missing
                raise InputError(
                    f"{node['NodeManagerAddress']} does not see {what}: what a sweep reads and writes must "
                    "be on a file system that all nodes share"
                )


def _went_wrong(task: "ObjectRef") -> str:
    import ray

    try:
        return str(ray.get(task))
    except ray.exceptions.RayError as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """Return what an error of Ray says in its first line, or in its last what went wrong in the task."""
    cause = getattr(error, "cause", None)
    lines = str(cause or error).strip().splitlines()
    return lines[-1 if cause else 0]


def _count(needs: dict[str, int]) -> str:
    return " and ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in needs.items() if count)

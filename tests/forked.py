"""Commands in processes of their own, forked from one in which all is imported: torch takes seconds."""

import multiprocessing
import os
import resource
import signal
import sys
import time

import torch

from landscape.__main__ import main

processes = multiprocessing.get_context("forkserver")
HEAVY = ["torch._dynamo", "matplotlib.pyplot", "plotly.offline"]  # what commands import when they need it
processes.set_forkserver_preload(["samrec.training.loop", "landscape.report.report", *HEAVY, __name__])


def command(arguments, said, room):
    """Run a command in this process, on one thread; what it prints goes to a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it is the command that is interrupted
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of what it starts: more threads add up in another order
    with said.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    sys.argv = ["landscape", *map(str, arguments)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def started(arguments, said, room=None):
    """Start a command. No file that it writes may grow past `room` bytes, which is how a disk is full."""
    process = processes.Process(target=command, args=(arguments, said, room))
    process.start()
    return process


def awaited(process):
    """Wait for a command; return its exit code. One that hangs is killed, or the tests would wait for it."""
    process.join(300)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def ended(arguments, said, room=None, code=0):
    """Run a command to its end; return how long it took."""
    began = time.perf_counter()
    assert awaited(started(arguments, said, room)) == code, said.read_text("utf-8")
    return time.perf_counter() - began

"""Memory of the device."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from landscape import InputError
from landscape.runtime import devices

EVALUATED = """
import itertools
import resource
import statistics
import torch
import landscape as ll
first, last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.LazyLinear(2)
model = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Flatten(), last)
batch = torch.randn(128, 3, 16, 16), torch.randint(2, (128,))
model(batch[0])
objective = ll.supervised(model, [batch], torch.nn.functional.cross_entropy)
faults = []
for _ in range(11):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    objective.value()
# The system itself takes pages away now and then, to move or to watch them; not at most evaluations.
print(statistics.median(after - before for before, after in itertools.pairwise(faults[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts what glibc gives back to the system")
def test_an_evaluation_takes_its_memory_from_the_one_before():
    """Its activations are 512 pages of 4 kB each, which the system would have to hand out and clear."""
    found = subprocess.run(
        [sys.executable, "-c", EVALUATED], capture_output=True, text=True, check=True, timeout=600
    )
    assert float(found.stdout) < 50


GIB = 2**30
MEMINFO = {"/proc/meminfo": [f"MemAvailable: {64 * 2**20} kB"]}
NEW = {"/proc/self/cgroup": ["0::/slurm/job/step"]}
OLD = {"/proc/self/cgroup": ["5:cpu,cpuacct:/docker/ab", "4:hugetlb,memory:/docker/ab", "0::/docker/ab"]}


def second(folder, limit, used, kept):
    """The files of a control group of version 2."""
    files = {"memory.max": [limit], "memory.current": [str(used)], "memory.stat": [f"inactive_file {kept}"]}
    return {f"/sys/fs/cgroup{folder}/{name}": lines for name, lines in files.items()}


def first(folder, limit, used, kept):
    """The same of version 1, in which a group counts those below it."""
    stat = ["inactive_file 7", f"total_inactive_file {kept}"]
    files = {"limit_in_bytes": [str(limit)], "usage_in_bytes": [str(used)], "stat": stat}
    return {f"/sys/fs/cgroup/memory{folder}/memory.{name}": lines for name, lines in files.items()}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 64),
        (NEW | second("", str(8 * GIB), 3 * GIB, 2 * GIB), 7),  # files that are kept are given up
        (NEW | second("/slurm/job/step", "max", GIB, 0) | second("/slurm/job", str(4 * GIB), GIB, 0), 3),
        (NEW | second("/slurm", str(512 * GIB), GIB, 0), 64),
        (OLD | first("", 8 * GIB, 3 * GIB, GIB), 6),  # a container, which sees its own as the root
        (OLD | first("/docker/ab", 4 * GIB, GIB, 0) | first("", 2**63 - 4096, 9 * GIB, 0), 3),
        (OLD | first("/docker/ab", GIB, 2 * GIB, 0), 0),
    ],
)
def test_free_memory_is_what_the_system_and_every_group_of_the_process_leave(files, free, monkeypatch):
    monkeypatch.setattr(devices, "_lines", lambda path: (MEMINFO | files).get(path, []))
    assert devices.free_main_memory() == free * GIB


def test_where_the_system_does_not_say_what_is_free_half_of_all_is(monkeypatch):
    """As on macOS; where it says nothing, as on Windows, it is what any machine has."""
    monkeypatch.setattr(devices, "_lines", lambda path: [])
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 4 * 2**20, "SC_PAGE_SIZE": 16384}.__getitem__)
    assert devices.free_main_memory() == 32 * GIB
    monkeypatch.delattr(os, "sysconf")
    assert devices.free_main_memory() == 4 * GIB


def test_what_torch_keeps_of_tensors_that_are_gone_is_free_on_a_gpu(monkeypatch):
    """Else the second run in one process would be refused for the memory of the first."""
    for name, found in (("mem_get_info", (5, 80)), ("memory_reserved", 60), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, found=found: found)
    assert devices.free_memory(torch.device("cuda")) == 45


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_a_device_that_is_missing_or_has_no_float64_is_refused(name):
    if torch.accelerator.is_available() and name == "xpu":
        pytest.skip("this one may have it")
    with pytest.raises(InputError, match=f"device {name} does not compute in float64.*use the CPU"):
        devices.device_named(name)


@pytest.mark.parametrize("kind", ["xpu", "cpu"])
def test_a_candidate_is_timed_to_its_end_on_any_accelerator(kind, monkeypatch):
    """Whatever runs behind the host is waited for before the clock is read."""
    events = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: events.append(str(device)))
    monkeypatch.setattr(devices.time, "perf_counter", lambda: events.append("clock") or float(len(events)))
    devices.fastest(["a"], lambda candidate: 1, torch.device(kind))
    assert events == 2 * ["clock", *(["xpu"] if kind == "xpu" else []), "clock"]

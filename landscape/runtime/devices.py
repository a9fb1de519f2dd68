"""Where to compute, how much memory is free there, and what is fastest."""

import ctypes
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from landscape.errors import InputError
from landscape.runtime.ranks import processes_here, ranks

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
DeviceName = Literal["auto", "cpu", "cuda"]
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_GROUPS = {
    "": ("/sys/fs/cgroup", "max", "current", "inactive_file"),
    "memory": ("/sys/fs/cgroup/memory", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
}
"""By the name of a control group's controller, which version 2 leaves out: where its limit and use stand."""


def device_named(name: str) -> "torch.device":
    """Return the device: `auto` is CUDA where there is one, else the CPU. Each rank has a GPU of its own.

    Args:
        name: `auto`, or what `torch.device` takes: `cpu`, `cuda`, `cuda:1`.

    Raises:
        InputError: CUDA was asked for and there is none, or none for this rank; the name is not that of a
            torch device, or that of one which does not compute in float64.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device {name!r}; expected auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but this machine has none; use --device cpu or auto")
    if device.type == "cuda" and ranks().size > 1:
        return _own_gpu()
    need_float64(device)
    return device


def need_float64(device: "torch.device") -> None:
    """Refuse a device without float64: sums over batches, and inner products, would lose their digits.

    Raises:
        InputError: it is one, such as `mps` of a Mac and `xpu` of some laptops.
    """
    import torch

    if device.type == "cuda":  # which has it; an error of earlier work would show here
        return
    try:
        torch.ones(1, dtype=torch.float64, device=device).sum()
    except Exception:  # of another kind on each device
        raise InputError(
            f"device {device} does not compute in float64, as sums are taken; use the CPU, in Python with "
            "copy.deepcopy(model).cpu()"
        ) from None


def accelerated(device: "torch.device") -> bool:
    """Whether a device is one of torch's accelerator: it runs behind the host, and draws its own numbers."""
    import torch

    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and accelerator.type == device.type


def wait_for(device: "torch.device") -> None:
    """Wait for what a device was given to do; a CPU has done it."""
    import torch

    if accelerated(device):
        torch.accelerator.synchronize(device)


def _own_gpu() -> "torch.device":
    import torch

    local, count = ranks().local, torch.cuda.device_count()
    if local >= count:
        raise InputError(f"{local + 1} processes or more on a machine of {count} GPUs; start one for each")
    torch.cuda.set_device(local)  # streams and graphs are of the current device
    return torch.device("cuda", local)


@cache
def keep_freed_memory() -> None:
    """Let the C library keep up to 256 MB that were freed, in blocks of up to 128 MB.

    Else what an evaluation frees goes back to the system, and the next one gets it page by page, zeroed. That
    is a third of the time of a small convolutional network, and takes a vector of 44 MB eight times as long
    as to write it does (mallopt(3), M_MMAP_THRESHOLD). C libraries other than glibc take no notice.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, 2**27)
    mallopt(_TRIM_THRESHOLD, 2**28)


def cores() -> int:
    """Return how many cores this process may use: a scheduler, or a container, may give it some of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: "torch.device") -> int:
    """Return how many bytes are free on a device: for a CPU, what the system and its container leave.

    The ranks on a CPU share its memory: this is the part of one. On a GPU, what torch keeps of tensors that
    are gone is free too.
    """
    import torch

    if device.type != "cuda":
        return free_main_memory()
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def need_room(vectors: int, like: "torch.Tensor", setting: str) -> None:
    """Make sure that memory holds a number of vectors, before any of them is there.

    Args:
        vectors: the number.
        like: one of their kind, shape (n,), on their device.
        setting: what asks for them, for the message.

    Raises:
        InputError: they take more than is free.
    """
    length = like.shape[-1]  # of a sharded model, what this rank holds
    needed, free = vectors * length * like.element_size(), free_memory(like.device)
    if needed > free:
        raise InputError(
            f"{setting} keeps {vectors:,} vectors of {length:,} numbers in memory, which take "
            f"{gigabytes(needed)}; {gigabytes(free)} are free"
        )


def gigabytes(size: int) -> str:
    """Return the words for a number of bytes."""
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def free_main_memory() -> int:
    """Return what `free_memory` does for a CPU, without torch."""
    free = [
        int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")
    ]
    free += _left_by_groups()
    return max(0, min(free, default=_half_of_all())) // processes_here()


def measured(build: Callable[[], T], device: "torch.device") -> tuple[T, int]:
    """Return what `build` makes, and how many bytes its tensors and the graphs behind them hold."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef

    from landscape.runtime.allocations import storages
    from landscape.runtime.watching import watching

    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        return (made := build()), torch.cuda.memory_allocated(device) - before
    sizes: dict[int, tuple[Any, int]] = {}

    def note(_operation: Any, _inputs: Any, outputs: Any) -> None:
        for storage in storages(outputs):
            held = StorageWeakRef(storage)  # type: ignore[no-untyped-call] # torch leaves it untyped
            sizes[storage.data_ptr()] = held, storage.nbytes()

    with watching(note):
        made = build()
    return made, sum(size for storage, size in sizes.values() if not storage.expired())


def fastest(candidates: Iterable[T], run: Callable[[T], int], device: "torch.device") -> T:
    """Return the candidate that takes the least time for a unit of work, the first one if none can do it.

    Args:
        run: lets a candidate work, and returns the number of units done. It is timed twice, and the better
            time counts, as the first run may allocate. A candidate that fails is never the fastest.
    """

    def seconds(candidate: T) -> float:
        best = float("inf")
        for _ in range(2):
            started = time.perf_counter()
            try:
                units = run(candidate)
            except Exception:  # what `vmap` cannot follow, or too little memory
                return best
            wait_for(device)
            best = min(best, (time.perf_counter() - started) / units)
        return best

    return min(candidates, key=seconds)


def _half_of_all() -> int:
    """Return half of the memory, where the system does not say what is free (macOS), or 4 GiB (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 2**32


def _left_by_groups() -> Iterator[int]:
    """Yield what each control group of this process leaves of its limit, in both versions of them."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        for name in _GROUPS.keys() & controllers.split(","):
            root, *files = _GROUPS[name]
            for group in (own, *PurePosixPath(own).parents):  # a container sees its own as the root
                yield from _left_by(f"{root}{group}".rstrip("/"), *files)


def _left_by(group: str, limit: str, used: str, kept: str) -> Iterator[int]:
    """Yield what a group leaves of its limit, if any: files that the system keeps are used, but go first."""
    most, now, parts = (_lines(f"{group}/memory.{name}") for name in (limit, used, "stat"))
    if most and now and most[0].isdigit():
        by_name = dict(part.split(" ", 1) for part in parts)
        yield int(most[0]) - int(now[0]) + int(by_name.get(kept, 0))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError:
        return []

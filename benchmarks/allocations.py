"""How many bytes of tensors are alive at once, for benchmarks: see `landscape.runtime.allocations`."""

from landscape.runtime.allocations import Allocations, peak

__all__ = ["Allocations", "peak"]

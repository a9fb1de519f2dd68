"""Several computations at once on a CPU, each in a thread of its own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of threads in which torch has one thread each; what is unfinished at its end is dropped.

    Small products gain little from a second thread, and independent ones gain all of it.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # which also says how many a new thread has

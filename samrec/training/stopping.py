"""Stop a run at a point from which it can be resumed."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from landscape.runtime.ranks import ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Request:
    """Whether to stop: `signal` is the number of the signal that asked for it, 0 for none."""

    signal = 0

    def asked(self) -> int:
        """Return the signal that any rank received, or 0. All ranks call this and get one answer."""
        return ranks().largest(self.signal)


@contextmanager
def stopping() -> Iterator[Request]:
    """Take SIGTERM and SIGINT as a request, inside the block; a second one acts at once, as if outside.

    Only the main thread receives signals; in any other thread nothing changes.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: FrameType | None) -> None:
        request.signal = number
        restore()

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it has died, however that was (on Linux)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

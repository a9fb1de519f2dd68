"""Readers that a damaged file can crash (polars, libhdf5) work in a process of their own, with limits.

A crash, or memory without end, is then the end of that process, and one line here. What has been read comes
back through a pipe, as plain bytes. The process is one of `subprocess`: those of `multiprocessing` import the
caller's program anew, and a forked one would hang in the threads of polars.
"""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import IO, Any, BinaryIO

from landscape.errors import InputError, first_line
from landscape.storage.archives import most_unpacked

Buffer = bytes | bytearray | memoryview
Reader = Callable[..., Iterable[Buffer]]

SERVE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from landscape.storage.apart import serve
serve()
"""
SLACK = 2**30  # bytes of addresses that a reader may take beside what it reads
SLOWEST = 2**20  # bytes of a file that are read in a second of CPU time, at least
PATIENCE = 60  # seconds of CPU time beside those
LEISURE = 10  # seconds on the clock for one of CPU time; a disk that no longer answers takes more
ENDING = 10  # seconds on the clock that a process has to end by itself, or after it is killed
SIZE = struct.Struct("<q")
ENDED, REFUSED, FAILED = -1, -2, -3  # in place of a size


class Apart:
    """A process that reads files; it starts with the first one, and anew after one that ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, reader: Reader, file: Path | bytes, *arguments: Any) -> Iterator[Buffer]:
        """Yield what `reader(file, *arguments)` yields there; all of it must be taken.

        Args:
            reader: a function of a module that imports little, since the process imports it.
            file: a path, or a file's content.
            arguments: more of them, which JSON can hold.

        Raises:
            InputError: the reader raised one, or what it yields is far larger than the file.
            ValueError: the reader failed in another way, or the process ended.
        """
        content = b"" if isinstance(file, Path) else file
        size = file.stat().st_size if isinstance(file, Path) else len(file)
        asked = {
            "reader": [reader.__module__, reader.__qualname__],
            "path": str(file) if isinstance(file, Path) else None,
            "arguments": arguments,
            "size": size,
        }
        process = self._started()
        assert process.stdin
        assert process.stdout
        whole, over = False, threading.Event()
        watch = threading.Thread(target=_watch, args=(process, LEISURE * _seconds(size), over), daemon=True)
        watch.start()
        try:
            for part in (json.dumps(asked).encode(), content):
                process.stdin.write(SIZE.pack(len(part)) + part)
            process.stdin.flush()
            yield from _answered(process.stdout, most_unpacked(size))
            whole = True
        except (EOFError, BrokenPipeError):
            raise ValueError("reading it needs too much memory or time, or crashes the reader") from None
        except (_FailedError, InputError) as error:
            whole = not isinstance(error, _TooLargeError)
            raise
        finally:
            over.set()
            if not whole:  # what is left of the answer would be taken for the next one
                process.kill()
                self.end()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            command = [sys.executable, "-c", SERVE, json.dumps(sys.path)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload] # of three pipes
        return self._process

    def end(self) -> None:
        """Let the process end, as it does where this one dies."""
        if process := self._process:
            self._process = None
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr] # both are pipes
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=ENDING)
            process.kill()  # one that is still starting, say; nothing of one that has ended
            with suppress(subprocess.TimeoutExpired):  # it hangs in the system, where no signal reaches it
                process.wait(timeout=ENDING)


def _watch(process: "subprocess.Popen[bytes]", seconds: float, over: threading.Event) -> None:
    """End a process that takes too long. Seconds in which this one was stopped (Ctrl-Z) do not count."""
    while seconds > 0:
        if over.wait(min(1.0, seconds)):
            return
        seconds -= 1
    process.kill()


class _FailedError(ValueError):
    """What another error than an `InputError` said there."""


class _TooLargeError(InputError):
    """More comes than may be."""


_open: ContextVar[Apart | None] = ContextVar("open", default=None)


@contextmanager
def apart() -> Iterator[Apart]:
    """Give a process that reads files, within such a block the same one; it ends with the block."""
    if found := _open.get():
        yield found
        return
    token = _open.set(made := Apart())
    try:
        yield made
    finally:
        _open.reset(token)
        made.end()


def _answered(pipe: IO[bytes], room: int) -> Iterator[Buffer]:
    """Yield the parts of an answer."""
    while (size := SIZE.unpack(_exactly(pipe, SIZE.size))[0]) >= 0:
        room -= size
        if room < 0:
            raise _TooLargeError("it unpacks to far more than its size")
        yield _exactly(pipe, size)
    if size != ENDED:
        said = _exactly(pipe, SIZE.unpack(_exactly(pipe, SIZE.size))[0]).decode("utf-8", "replace")
        raise InputError(said) if size == REFUSED else _FailedError(said)


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    """Read exactly `size` bytes.

    Raises:
        EOFError: there are fewer.
    """
    content = bytearray(size)
    left = memoryview(content)
    while left:
        if not (count := pipe.readinto(left)):  # type: ignore[attr-defined] # of a pipe
            raise EOFError
        left = left[count:]
    return content


def serve() -> None:
    """Read what is asked for on standard input, until that ends: what the process of an `Apart` runs."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's, whose end is the end of this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    with suppress(EOFError, BrokenPipeError):
        while True:
            asked, content = (
                _exactly(sys.stdin.buffer, SIZE.unpack(_exactly(sys.stdin.buffer, SIZE.size))[0])
                for _ in range(2)
            )
            _serve(json.loads(asked), content, answers)
            answers.flush()


def _serve(asked: dict[str, Any], content: Buffer, answers: BinaryIO) -> None:
    """Answer with the parts that the reader yields, each behind its size, or with what went wrong."""
    module, name = asked["reader"]
    file = content if asked["path"] is None else Path(asked["path"])
    ended, said = ENDED, ""
    try:
        reader = getattr(import_module(module), name)
        _limit(asked["size"])
        for part in reader(file, *asked["arguments"]):
            answers.write(SIZE.pack(len(memoryview(part).cast("B"))))
            answers.write(part)
    except BrokenPipeError:
        raise
    except InputError as error:
        ended, said = REFUSED, str(error)
    except BaseException as error:  # a panic of polars is no Exception
        ended, said = FAILED, first_line(error)
    answers.write(SIZE.pack(ended))
    if ended != ENDED:
        answers.write(SIZE.pack(len(said.encode())) + said.encode())


def _seconds(size: int) -> int:
    """Return the CPU time that reading a file of this size may take."""
    return PATIENCE + size // SLOWEST


def _limit(size: int) -> None:
    """Bound the memory and the time that reading a file of this size may take, where the system can."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _seconds(size))
    with suppress(OSError):  # without /proc, of macOS, addresses are not limited either
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * resource.getpagesize() + SLACK + size + 2 * most_unpacked(size)
        _lower(resource.RLIMIT_AS, most)


def _lower(limit: int, value: int) -> None:
    """Set a limit to a value, or to what the system allows at most (`ulimit -v`, a batch system's)."""
    import resource

    most = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))

"""Commands whose streams are what a user's may be: a narrow terminal, a closed pipe, a full device.

They are forked from a process that is started in the environment in question, so that locale and encodings
are those that Python itself finds there, and torch is imported once for all of them.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from pkgutil import walk_packages

import landscape
import samrec

ROOT = Path(__file__).parents[1]
COLUMNS = 40
SLOW = ("torch._dynamo", "plotly.graph_objects", "scipy.interpolate", "scipy.optimize", "matplotlib.pyplot")
"""What the commands import when they need it, which takes seconds."""
SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tests.streams import serve; serve()"


@dataclass
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: bytes


class Forking:
    """A process in an environment of its own, which forks commands.

    Attributes:
        known: how commands ended that were run for others to read what they wrote, by name and stream.
    """

    def __init__(self, *, draws: bool, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        self.known: dict[tuple[str, str], Ended] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps([str(ROOT), *sys.path]), json.dumps(draws)],
            env=kept | {"OMP_NUM_THREADS": "1", "TERM": "xterm"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: list[object], stdout: str) -> Ended:
        """Run a command whose standard output is "a pipe", "closed", "full" or "a terminal"."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([list(map(str, arguments)), stdout]) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return Ended(code, bytes.fromhex(out), bytes.fromhex(err))

    def end(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Fork the commands that standard input names, one after another."""
    own = [
        part.name for top in (landscape, samrec) for part in walk_packages(top.__path__, f"{top.__name__}.")
    ]
    for name in (*SLOW, *(name for name in own if not name.endswith("__main__"))):
        import_module(name)
    if not json.loads(sys.argv[2]):
        from matplotlib.figure import Figure

        Figure.savefig = nothing_drawn  # type: ignore[method-assign] # of which the streams see nothing

    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    for line in sys.stdin:
        ended = _forked(*json.loads(line))
        answers.write(json.dumps([ended.code, ended.out.hex(), ended.err.hex()]) + "\n")
        answers.flush()


def nothing_drawn(_: object, file: Path | BytesIO, **__: object) -> None:
    file.write_bytes(b"drawn") if isinstance(file, Path) else file.write(b"drawn")


def _forked(arguments: list[str], stdout: str) -> Ended:
    terminal = stdout == "a terminal"
    pairs = [_terminal() if terminal else os.pipe() for _ in range(2)]
    if stdout == "closed":  # a pipe that nobody reads
        os.close(pairs[0][0])
    child = os.fork()
    if not child:
        try:
            _command(arguments, stdout, *(writer for _, writer in pairs))
        finally:
            os._exit(99)  # it should have left before
    for _, writer in pairs:
        os.close(writer)
    out, err = _all_of([reader for reader, _ in pairs][stdout == "closed" :])[-2:]
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), out, err)


def _terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    return reader, writer


def _all_of(readers: list[int]) -> list[bytes]:
    """Read several streams to their ends; before one alone stands an empty one."""
    parts: dict[int, list[bytes]] = {reader: [] for reader in readers}
    left = set(readers)
    while left:
        for reader in select.select(list(left), [], [])[0]:
            part = b""
            with suppress(OSError):  # EIO: nobody has the terminal open any more
                part = os.read(reader, 65536)
            parts[reader].append(part)
            if not part:
                left.remove(reader)
                os.close(reader)
    return [b"", *(b"".join(parts[reader]) for reader in readers)]


def _command(arguments: list[str], stdout: str, out: int, err: int) -> None:
    """Run a command in this process, whose streams are made as Python makes them at its start.

    One that hangs is ended by a signal: who reads its streams waits for their ends.
    """
    signal.alarm(300)
    from landscape.cli import app

    os.dup2(out if stdout == "a terminal" else os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open("/dev/full", os.O_WRONLY) if stdout == "full" else out, 1)
    os.dup2(err, 2)
    if stdout == "a terminal":
        os.environ["COLUMNS"] = str(COLUMNS)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        encoding = "utf-8" if os.isatty(number) else before.encoding
        buffering = 1 if number == 2 or os.isatty(1) else -1
        made = open(number, "w", buffering, encoding, before.errors, closefd=False)  # noqa: SIM115 # until the end
        setattr(sys, name, made)
    sys.argv = ["landscape", *arguments]
    try:
        app.main()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)

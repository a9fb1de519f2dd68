"""The errors that end a command with one line, and text from outside, made fit to be shown."""

MOST = 300
"""Characters of a message: a file's own words stand in it, and a file may say anything."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one short line: what is wrong, what would be right.

    The command line prints it and exits with code 2; any other exception is a defect of this package
    and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(shortened(message, 2 * MOST)), MOST))


class Stopped(KeyboardInterrupt):
    """A command was asked to stop by a signal, and has saved where it stands.

    Attributes:
        signal: the number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def words_of(error: Exception) -> str:
    """Return an error's class and the first line of its message, if it has one, for a line of ours."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def need_memory(error: Exception) -> None:
    """Make sure that an error is not torch's for too little memory of a CPU, which is a RuntimeError.

    Raises:
        MemoryError: it is.
    """
    if "DefaultCPUAllocator" in str(error):
        wanted = str(error).partition("tried to allocate ")[2].partition(" ")[0]
        raise MemoryError(f"too little memory for {wanted} bytes; smaller batches take less") from error


def printable(text: str) -> str:
    """Return `text` with what a terminal would act on (control characters, escape sequences) written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def encodable(text: str) -> str:
    """Return `text` with ? for what no file of text can hold: bytes of a file's name that are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters: where it is longer, its middle is left out."""
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return f"{text[: most - 3 - tail]} … {text[-tail:]}"

"""The one error that means: what was given cannot be used."""

from landscape.text import printable, shortened

MOST = 300
"""Characters of a message: a file's own words stand in it, and a file may say anything."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one short line: what is wrong, what would be right.

    The command line prints it and exits with code 2; any other exception is a defect of this package
    and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(shortened(message, 2 * MOST)), MOST))

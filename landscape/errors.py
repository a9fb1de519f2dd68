"""The one error that means: what was given cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line: what is wrong, and what would be right.

    The command line prints it and exits with code 2; any other exception is a defect of this package
    and keeps its traceback.
    """

"""A path that a file names is a claim: a stranger's checkpoint may name any file of the user's."""

from collections.abc import Sequence
from pathlib import Path

from landscape.errors import InputError
from samrec.data.sources import files_behind, last_change


def claimed_path(path: Path, folder: Path | None, who: str, option: str = "--data") -> Path:
    """Return a path that a file names, if it may be read without the user's naming it too.

    Args:
        path: path of the data, see `samrec.data.sources`.
        folder: where the file lies that names it; None if it lies nowhere.
        who: what names it, for the error.
        option: the option that takes such a path.

    Raises:
        InputError: links followed, it is neither under that folder nor under the current one; nothing is
            there; or what is there is not a plain file.
    """
    own = [one.resolve() for one in (folder, Path()) if one is not None]
    _check_under(own, path, path, who, option)  # before anything else: not even whether it exists is told
    if not last_change(path):
        raise InputError(f"{who}'s data are no longer at {path}; say where with {option} FILE")
    for file in files_behind(path):
        if not (file.is_file() and file.stat().st_size):  # what the system makes up (/proc) has no size
            raise InputError(f"{who} names {path}, which is not a data file; name one with {option}")
        _check_under(own, file, path, who, option)
    return path


def _check_under(own: Sequence[Path], file: Path, path: Path, who: str, option: str) -> None:
    if not any(file.resolve().is_relative_to(folder) for folder in own):
        raise InputError(
            f"{who} names {path}, which is neither under its folder nor under the current one; if that is "
            f"right, give {option} {path}"
        )

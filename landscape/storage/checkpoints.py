"""Checkpoints: dictionaries of tensors and plain values, in archives of `torch.save`."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from landscape.errors import InputError
from landscape.storage.archives import open_archive
from landscape.storage.files import existing, replacing


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of the numbers in their names, 9 before 10.

    Raises:
        InputError: there is no such folder, or no file in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of checkpoints")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} holds no checkpoints")
    parts = {path: re.split(r"(\d+)", path.name) for path in files}  # text and digits in turn
    return sorted(files, key=lambda p: [int(t) if i % 2 else t for i, t in enumerate(parts[p])])


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors and plain values for `read_checkpoint`.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; an old file stays as it was.
    """
    import torch

    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # which is all that torch says of a disk
            raise InputError(f"cannot write {path}: the disk is full, or the file grew too large") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values that `torch.save` wrote, onto the CPU.

    Nothing in the file is run: what is more than tensors and plain values is refused. It must be as it was
    written, which its checksums tell, and hold all that its tensors claim.

    Raises:
        InputError: the file is missing, empty, damaged, in the format of before torch 1.6, or no such
            dictionary.
    """
    import torch

    from landscape.storage.pickles import DryRun, check_extent

    with sound_archive(path) as (opened, archive, members):
        DryRun(members).run(archive.read(members["data.pkl"]))
        opened.seek(0)
        content = torch.load(opened, map_location="cpu", weights_only=True)
        check_extent(content)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} is not a checkpoint: expected a dictionary, found {type(content).__name__}")
    return content


@contextmanager
def sound_archive(path: Path) -> Iterator[tuple[BinaryIO, zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an archive of `torch.save` whose checksums are right: the file, and its members by their names.

    Raises:
        InputError: there is none, or the block fails in whatever way a file can make it fail.
    """
    existing(path, "checkpoint")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # torch says more of a bad file than one line
            path.open("rb") as opened,
            open_archive(opened) as archive,
        ):
            members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
            if archive.testzip() or len(members) < len(archive.namelist()):
                raise zipfile.BadZipFile("a member is not what was written")
            yield opened, archive, members
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors and plain values; a pickle that could run code is never loaded"
        ) from None
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a readable checkpoint: no whole archive of torch.save ({error}); "
            "a pickle without one is never loaded"
        ) from None
    except Exception as error:  # whatever damaged bytes provoke in the readers, the file cannot be used
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from error

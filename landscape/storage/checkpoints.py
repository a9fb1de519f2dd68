"""Checkpoints: dictionaries of tensors and plain values, in archives of `torch.save` or in safetensors."""

import re
from pathlib import Path
from typing import Any

from landscape.errors import InputError


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of the numbers in their names, 9 before 10.

    Raises:
        InputError: there is no such folder, or it holds no file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of checkpoints")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} holds no checkpoints")
    parts = {path: re.split(r"(\d+)", path.name) for path in files}  # text and digits in turn
    return sorted(files, key=lambda p: [int(t) if i % 2 else t for i, t in enumerate(parts[p])])


def write_checkpoint(content: dict[str, Any], temporary: Path) -> None:
    """Write a dictionary of tensors and plain values to a path that `landscape.storage.files.replacing` gave.

    Raises:
        OSError: the disk is full, or the file grew too large.
    """
    import torch

    try:
        torch.save(content, temporary)
    except RuntimeError as error:  # which is all that torch says of a disk
        raise OSError("the disk is full, or the file grew too large") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values that `torch.save` wrote, onto the CPU.

    Nothing in the file is run: a file that holds more than tensors and plain values is refused. Its checksums
    must be right, and it must hold every number that its tensors claim. For a `.safetensors` file, the
    dictionary is its metadata, and its tensors under `weights`.

    Raises:
        InputError: the file is missing, empty, damaged, in the format of torch before 1.6, or holds no such
            dictionary.
    """
    from landscape.storage.safe import is_safetensors, read_safetensors
    from landscape.storage.saved import open_saved

    if is_safetensors(path):
        weights, metadata = read_safetensors(path)
        return {**metadata, "weights": weights}
    with open_saved(path) as saved:
        content = saved.everything()
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} is not a checkpoint: expected a dictionary, found {type(content).__name__}")
    return content

"""Files of safetensors: named tensors, and texts that describe them. There is nothing in them to run."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscape.errors import InputError
from landscape.storage.files import existing


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, by its name."""
    return path.suffix.lower() == ".safetensors"


def write_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], temporary: Path) -> None:
    """Write named tensors, of any device, to a path that `landscape.storage.files.replacing` gave.

    Raises:
        OSError: the disk is full, or the file grew too large.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(own, temporary, metadata={"format": "pt", **metadata})  # "pt" is what other readers ask for
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the named tensors of a file, onto the CPU, and its texts.

    Raises:
        InputError: the file is missing, empty or damaged. Its numbers have no checksum.
    """
    existing(path, "checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return tensors, file.metadata() or {}
    except Exception as error:  # whatever damaged bytes provoke in the reader
        raise InputError(f"{path} is not a readable safetensors file ({error})") from error

"""What a measurement returns: arrays, settings, provenance; one file each, which reloads."""

import io
import json
import platform
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from landscape.errors import InputError, encodable
from landscape.runtime.ranks import ranks
from landscape.storage.archives import open_archive
from landscape.storage.display import Shown
from landscape.storage.files import existing, replacing
from landscape.storage.ranges import NOT_NEGATIVE, check_ranges

R = TypeVar("R", bound="Result")
Array = NDArray[np.float64]
_HEADER = "header"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = {
    "Bound": "landscape.flatness.bounds",
    "Diagonal": "landscape.curvature.trace",
    "Eigenpairs": "landscape.curvature.eigenpairs",
    "FrobeniusNorm": "landscape.curvature.trace",
    "PathProfile": "landscape.surface.paths",
    "Quadratic": "landscape.surface.geometry",
    "Sharpness": "landscape.flatness.measures",
    "SharpnessHistory": "landscape.curvature.history",
    "Slice": "landscape.surface.slice",
    "SpectralDensity": "landscape.curvature.density",
    "Trace": "landscape.curvature.trace",
}
"""Every kind of result, and the module that defines it, imported when a file holds one."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Result(Shown):
    """A measurement, with what is needed to know it again.

    A subclass adds fields of three types: an array, a tuple of arrays, or anything JSON holds,
    dataclasses among it.

    Attributes:
        settings: how it was measured, seeds among them.
        provenance: what was measured (checkpoint, data), with which versions, on which device.
        seconds: wall time of the measurement alone.
    """

    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    seconds: Annotated[float, NOT_NEGATIVE]

    def check(self) -> None:
        """Make sure that the fields fit together, as those that a file holds need not.

        Raises:
            ValueError, LookupError, TypeError: they do not.
        """

    def save(self, path: str | Path) -> Path:
        """Write one `.npz` with a JSON header; return its path. With several ranks, the first writes it.

        Raises:
            InputError: the file cannot be written.
        """
        path = Path(path)
        if not ranks().first:
            return path
        arrays: dict[str, NDArray[Any]] = {}
        values: dict[str, Any] = {}
        for name, kind in _kinds_of_fields(type(self)).items():
            value = getattr(self, name)
            if kind == "array":
                arrays[name] = value
            elif kind == "arrays":
                arrays |= {f"{name}.{i}": array for i, array in enumerate(value)}
            else:
                values[name] = value
        told = {"kind": type(self).__name__, "values": values}
        header = encodable(json.dumps(told, default=asdict, ensure_ascii=False))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{_HEADER: np.array(header)}, **arrays)  # type: ignore[arg-type] # names are ours
        return path


def load(path: str | Path) -> Result:
    """Read a result that `Result.save` wrote. Nothing in the file is run.

    It is refused if it would unpack to far more than its size: see `landscape.storage.archives.open_archive`.

    Args:
        path: the `.npz` file, or the `.jsonl` file of a `landscape.Monitor`.

    Returns:
        The result, of the class that was saved: `Slice`, `Eigenpairs`, `Sharpness`, …

    Raises:
        InputError: the file is missing, empty, damaged, or not a result.
    """
    path = existing(Path(path), "result file")
    if path.suffix == ".jsonl":
        history: Result = import_module(_KINDS["SharpnessHistory"]).read_history(path)
        return history
    try:
        with path.open("rb") as opened, open_archive(opened, METHODS) as archive:
            header = json.loads(str(_array(archive, _HEADER)))
            kind = _kind_named(header["kind"])
            result = kind(**_read_fields(kind, header["values"], archive))
        check_ranges(result)
        result.check()
    except InputError as error:
        raise InputError(f"{path} is not a readable result file: {error}") from None
    except zipfile.BadZipFile:
        raise InputError(
            f"{path} is not a readable result file: not an archive that landscape wrote, or a damaged one"
        ) from None
    except Exception as error:  # whatever damaged bytes provoke in the readers, the file cannot be used
        raise InputError(f"{path} is not a readable result file ({type(error).__name__})") from error
    return result


def load_as(kind: type[R], path: str | Path) -> R:
    """Read a result that must be of one kind.

    Raises:
        InputError: as `load`, or the file holds another kind.
    """
    result = load(path)
    if not isinstance(result, kind):
        raise InputError(f"{path} holds a {type(result).__name__}, expected a {kind.__name__}")
    return result


def agree(*conditions: bool) -> None:
    """Raise a ValueError unless all conditions hold."""
    if not all(conditions):
        raise ValueError("its fields do not fit together")


def need_numbers(values: Mapping[str, Any], *names: str, known: Collection[str] = ()) -> None:
    """Raise a LookupError or a TypeError unless each name is there, and a number.

    Args:
        known: names that need not be there, but are numbers if they are.
    """
    names = (*names, *(name for name in known if name in values))
    if not all(type(values[name]) in (int, float) for name in names):
        raise TypeError(f"one of {', '.join(names)} is not a number")


def surroundings(device: torch.device) -> dict[str, str]:
    """Return the versions and the device that every result names; on a GPU, that TF32 was off."""
    gpu = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        **({"tf32": "off"} if gpu else {}),
    }


def _kind_named(name: str) -> type[Result]:
    """Return the class of that name: a file may choose among results, not what is imported."""
    kind: type[Result] = getattr(import_module(_KINDS[name]), name)
    return kind


def _kinds_of_fields(kind: type[Result]) -> dict[str, str]:
    hints = get_type_hints(kind)
    names = {Array: "array", tuple[Array, ...]: "arrays"}
    return {field.name: names.get(hints[field.name], "value") for field in fields(kind)}


def _read_fields(kind: type[Result], values: Mapping[str, Any], archive: zipfile.ZipFile) -> dict[str, Any]:
    hints = get_type_hints(kind)
    read: dict[str, Any] = {}
    for name, of in _kinds_of_fields(kind).items():
        if of == "array":
            read[name] = _floats(archive, name)
        elif of == "arrays":
            count = sum(member.startswith(f"{name}.") for member in archive.namelist())
            read[name] = tuple(_floats(archive, f"{name}.{i}") for i in range(count))
        else:
            read[name] = TypeAdapter(hints[name]).validate_json(json.dumps(values[name]), strict=True)
    return read


def _floats(archive: zipfile.ZipFile, name: str) -> Array:
    array = _array(archive, name)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} is not of numbers of up to 64 bits")
    return array if array.dtype in (np.float64, np.float32) else array.astype(np.float64)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read a member as the array that it must hold whole; NumPy itself allocates whatever it claims to be."""
    content = archive.read(f"{name}.npy")
    file = io.BytesIO(content)
    with warnings.catch_warnings(action="ignore"):
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("a version that is never written")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise TypeError(f"{name} is of objects")
    return np.ndarray(shape, dtype, content, file.tell(), order="F" if by_column else "C").copy()

"""Slices as the files of other programs, and back from Li et al.'s."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from landscape.errors import InputError
from landscape.runtime.arguments import checks_arguments
from landscape.storage.files import existing, replacing
from landscape.storage.hdf5 import read_datasets, write_datasets
from landscape.storage.results import Array
from landscape.surface.directions import Direction
from landscape.surface.slice import Slice, need_slice

HDF5 = (".h5", ".hdf5")
_AXES = ("xcoordinates", "ycoordinates")


@checks_arguments
def export(slice: Slice, path: Path) -> Path:
    """Write a slice for another program, in the format that the ending of `path` names.

    - `.csv`: columns x, loss or x, y, loss; one row per point, every digit of it. What is not finite is
      written as nan, inf or -inf.
    - `.vtk`: a structured grid for ParaView (legacy format), with the points (x, y, loss) and the scalar
      `loss`; a line is a grid of n×1×1. Where a loss is not finite, the scalar is NaN and the height that
      of the largest finite loss. Binary, because the readers of ASCII stop at a NaN up to VTK 9.3.
    - `.h5`, `.hdf5`: the layout of Li et al.'s released code, see `read_hdf5`.
    - `.npz`: as `Slice.save`, the only one that keeps settings and provenance.

    Args:
        slice: a line or a plane; coordinates are in steps of its directions, losses in their own unit.
        path: the file to write; an existing one is replaced once the new one is complete.

    Returns:
        The path.

    Raises:
        InputError: not a slice, another ending, a file that cannot be written, or HDF5 without h5py.
    """
    need_slice(slice, "export writes")
    ending = path.suffix.lower()
    if ending == ".npz":
        return slice.save(path)
    if ending not in _WRITERS:
        raise InputError(f"cannot export to {path}: the ending must be .csv, .vtk, .h5, .hdf5 or .npz")
    with replacing(path) as temporary:
        _WRITERS[ending](slice, temporary)
    return path


def read_hdf5(path: Path) -> Slice:
    """Read the losses of a line or a plane as github.com/tomgoldstein/loss-landscape writes them.

    Datasets: `xcoordinates` (n,), of a plane `ycoordinates` (m,), and `train_loss` (n,) or (n, m). That
    code fills `train_loss` in the order of `np.meshgrid(x, y)`, where x runs fastest, whatever its shape
    says; of a square plane it is therefore indexed [y, x]. A point not yet evaluated has both
    `train_loss` and `train_acc` (same shape; may be missing) at -1, and becomes NaN here.

    The file says nothing of directions and weights: their norms and the cosine are NaN, as are the
    seconds, and `center` unless 0 is on every axis. Nothing outside the file is read.

    Raises:
        InputError: the file is missing, empty, damaged or no HDF5, a dataset is missing, of another shape,
            not of numbers or larger than 2²⁴ values, an axis does not increase, or h5py is not installed.
    """
    existing(path, "surface file")
    try:
        found = read_datasets(path, (*_AXES, "train_loss", "train_acc"))
        names = _AXES[: 1 + (_AXES[1] in found)]
        axes = tuple(_axis(found, name) for name in names)
        shape = tuple(axis.size for axis in axes)
        stored = _values(found, "train_loss", shape)
        unfinished = stored == -1
        if "train_acc" in found:
            unfinished &= _values(found, "train_acc", shape) == -1
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError as error:  # whatever damaged bytes provoke in the reader, the file cannot be used
        raise InputError(f"{path} is not a readable HDF5 file ({error})") from None
    losses = np.where(unfinished, np.nan, stored).reshape(shape[::-1]).T
    return _slice(path, axes, np.ascontiguousarray(losses), evaluations=int((~unfinished).sum()))


def _slice(path: Path, axes: tuple[Array, ...], losses: Array, evaluations: int) -> Slice:
    """Return the slice of which only the losses are known."""
    unknown = Direction(torch.tensor([math.nan]), "unknown").provenance()
    nearest = [np.abs(axis).argmin() for axis in axes]
    # Li et al.'s axes are np.linspace, which may miss 0 by a rounding
    centered = all(abs(axis[i]) < 1e-9 * np.ptp(axis) for axis, i in zip(axes, nearest, strict=True))
    return Slice(
        coordinates=axes,
        losses=losses,
        nodes=axes,
        samples=losses,
        certificate=None,
        deviations=np.empty((0, 0)),
        marks=[],
        trajectory=np.empty((0, len(axes))),
        center=float(losses[tuple(nearest)]) if centered else math.nan,
        directions=[dict(unknown) for _ in axes],
        cosine=math.nan if len(axes) == 2 else None,
        evaluations=evaluations,
        settings={
            "radius": max(float(np.abs(axis).max()) for axis in axes),
            "grid": list(losses.shape),
            "theta_norm": math.nan,
        },
        provenance={"source": path.name},
        seconds=math.nan,
    )


def _axis(found: Mapping[str, Array], name: str) -> Array:
    axis = _values(found, name)
    if axis.ndim != 1 or axis.size < 2 or not np.isfinite(axis).all() or (np.diff(axis) <= 0).any():
        raise InputError(f"{name} must be two or more finite numbers that increase")
    return axis


def _values(found: Mapping[str, Array], name: str, shape: tuple[int, ...] | None = None) -> Array:
    """Return a dataset, of this shape if one is asked for."""
    if name not in found:
        raise InputError(f"no dataset {name}")
    if shape is not None and found[name].shape != shape:
        raise InputError(f"{name} has the shape {found[name].shape}, expected {shape} as the coordinates say")
    return found[name]


def _write_csv(slice: Slice, path: Path) -> None:
    columns = (*np.meshgrid(*slice.coordinates, indexing="ij"), slice.losses)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*"xy"[: slice.losses.ndim], "loss"])
        rows.writerows(zip(*(column.ravel().tolist() for column in columns), strict=True))


def _write_vtk(slice: Slice, path: Path) -> None:
    axes = (*slice.coordinates, np.zeros(1))[:2]
    y, x = np.meshgrid(axes[1], axes[0])
    finite = np.isfinite(slice.losses)
    top = slice.range[1] if finite.any() else 0.0
    height = np.where(finite, slice.losses, top).reshape(x.shape)
    # x runs fastest in VTK, and its numbers are big-endian
    points = np.stack([x.T, y.T, height.T], axis=-1).astype(">f8")
    scalars = np.where(finite, slice.losses, np.nan).T.astype(">f8")
    header = (
        "# vtk DataFile Version 3.0\nloss on a slice through the weights\nBINARY\nDATASET STRUCTURED_GRID\n"
        f"DIMENSIONS {axes[0].size} {axes[1].size} 1\nPOINTS {slice.losses.size} double\n"
    )
    data = f"\nPOINT_DATA {slice.losses.size}\nSCALARS loss double 1\nLOOKUP_TABLE default\n"
    path.write_bytes(header.encode() + points.tobytes() + data.encode() + scalars.tobytes() + b"\n")


def _write_hdf5(slice: Slice, path: Path) -> None:
    shape = slice.losses.shape
    # Their plots of a line read the accuracy; and as it is not -1, a loss of -1 is a loss.
    values = {"train_loss": slice.losses.T.reshape(shape), "train_acc": np.full(shape, np.nan)}
    write_datasets(dict(zip(_AXES, slice.coordinates, strict=False)) | values, path)


_WRITERS: dict[str, Callable[[Slice, Path], None]] = {
    ".csv": _write_csv,
    ".vtk": _write_vtk,
    **dict.fromkeys(HDF5, _write_hdf5),
}

import csv
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import landscape as ll
from landscape import Direction, InputError, Slice
from landscape.storage.results import load_as
from landscape.surface.export import export, read_hdf5
from tests.conftest import ROOT

ENDINGS = [".csv", ".vtk", ".h5", ".hdf5", ".npz"]
AXES = [Direction(vector, "axis") for vector in torch.eye(2).double()]


@pytest.fixture
def line(quadratic):
    objective = quadratic(torch.eye(2).double() / 3, torch.tensor([0.1, 0.2], dtype=torch.float64))
    return ll.line(objective, grid=5, directions=AXES[:1])


@pytest.fixture
def plane(quadratic):
    """A plane of 5 × 3 points, on which no two losses are equal."""
    matrix = torch.tensor([[3, 1], [1, 0.5]], dtype=torch.float64)
    objective = quadratic(matrix, torch.tensor([0.1, 0.2], dtype=torch.float64))
    return ll.plane(objective, grid=(5, 3), radius=0.7, directions=AXES)


def formula(x, y):
    """The loss of `plane` at (x, y)."""
    u, v = x + 0.1, y + 0.2
    return (3 * u * u + 2 * u * v + 0.5 * v * v) / 2


def bent(slice):
    """The same slice, where some losses are not finite and one is -1."""
    losses = slice.losses.copy()
    losses.flat[:4] = np.nan, np.inf, -np.inf, -1
    return replace(slice, losses=losses)


@pytest.fixture(params=["line", "plane", "bent line", "bent plane"])
def any_slice(request):
    slice = request.getfixturevalue(request.param.split()[-1])
    return bent(slice) if "bent" in request.param else slice


def read_vtk(path):
    """Return dimensions, points and scalars; VTK's numbers are big-endian, and x runs fastest."""
    header, _, rest = path.read_bytes().partition(b" double\n")
    lines = header.decode().splitlines()
    assert lines[0].startswith("# vtk DataFile Version ")
    assert lines[2:4] == ["BINARY", "DATASET STRUCTURED_GRID"]
    dimensions = tuple(map(int, lines[4].removeprefix("DIMENSIONS ").split()))
    count = int(lines[5].removeprefix("POINTS "))
    between = f"\nPOINT_DATA {count}\nSCALARS loss double 1\nLOOKUP_TABLE default\n".encode()
    assert rest[24 * count : 24 * count + len(between)] == between
    assert len(rest) == 32 * count + len(between) + 1
    points = np.frombuffer(rest, ">f8", 3 * count).reshape(-1, 3)
    return dimensions, points, np.frombuffer(rest, ">f8", count, 24 * count + len(between))


def test_hdf5_comes_back(any_slice, tmp_path):
    after = read_hdf5(export(any_slice, tmp_path / "a.h5"))
    np.testing.assert_array_equal(after.losses, any_slice.losses)
    for before, axis in zip(any_slice.coordinates, after.coordinates, strict=True):
        np.testing.assert_array_equal(axis, before)
    assert after.evaluations == any_slice.losses.size
    assert after.center == (any_slice.losses[2] if after.losses.ndim == 1 else any_slice.losses[2, 1])
    assert after.settings["radius"] == any_slice.settings["radius"]
    assert after.provenance == {"source": "a.h5"}
    assert np.isnan(after.settings["theta_norm"])
    for unknown, known in zip(after.directions, any_slice.directions, strict=True):
        assert unknown.keys() == known.keys()
        assert unknown["kind"] == "unknown"
        assert np.isnan(unknown["norm"])


def test_what_hdf5_says_becomes_a_result(plane, tmp_path):
    found = read_hdf5(export(plane, tmp_path / "a.h5"))
    after = load_as(Slice, found.save(tmp_path / "a.npz"))
    np.testing.assert_array_equal(after.losses, plane.losses)
    assert np.isnan(after.cosine)


def test_csv_has_every_digit_of_every_point(any_slice, tmp_path):
    with export(any_slice, tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*"xy"[: any_slice.losses.ndim], "loss"]
    expected = [
        [*(axis[i] for axis, i in zip(any_slice.coordinates, index, strict=True)), loss]
        for index, loss in np.ndenumerate(any_slice.losses)
    ]
    np.testing.assert_array_equal([[float(number) for number in row] for row in rows], expected)


def test_csv_is_plain_text(line, tmp_path):
    text = export(bent(line), tmp_path / "a.csv").read_bytes()
    assert text.startswith(b"x,loss\n-1.0,nan\n-0.5,inf\n0.0,-inf\n0.5,-1.0\n1.0,")
    assert text.count(b"\n") == 6


def test_vtk_puts_every_loss_at_its_point(plane, tmp_path):
    dimensions, points, scalars = read_vtk(export(plane, tmp_path / "a.vtk"))
    assert dimensions == (5, 3, 1)
    assert [tuple(point[:2]) for point in points] == [
        (x, y) for y in plane.coordinates[1] for x in plane.coordinates[0]
    ]
    np.testing.assert_array_equal(points[:, 2], scalars)
    np.testing.assert_allclose(scalars, formula(*points[:, :2].T), rtol=1e-12)


def test_vtk_of_a_line_lies_in_the_plane_of_x_and_loss(line, tmp_path):
    dimensions, points, scalars = read_vtk(export(line, tmp_path / "a.vtk"))
    assert dimensions == (5, 1, 1)
    np.testing.assert_array_equal(points, np.stack([line.coordinates[0], np.zeros(5), line.losses], axis=1))
    np.testing.assert_array_equal(scalars, line.losses)


@pytest.mark.parametrize("name", ["line", "plane"])
def test_vtk_lifts_what_is_not_finite_to_the_top_and_marks_it(name, request, tmp_path):
    slice = bent(request.getfixturevalue(name))
    _, points, scalars = read_vtk(export(slice, tmp_path / "a.vtk"))
    assert np.isnan(scalars).sum() == 3
    assert (points[np.isnan(scalars), 2] == slice.range[1]).all()
    np.testing.assert_array_equal(points[~np.isnan(scalars), 2], scalars[~np.isnan(scalars)])


def test_vtk_of_no_finite_loss_is_flat(plane, tmp_path):
    nothing = replace(plane, losses=np.full_like(plane.losses, np.nan))
    _, points, scalars = read_vtk(export(nothing, tmp_path / "a.vtk"))
    assert not points[:, 2].any()
    assert np.isnan(scalars).all()


def li_file(path, loss, x, y=None, done=None):
    """Write what plot_surface.py of tomgoldstein/loss-landscape writes, having done so many points."""
    shape = (len(x),) if y is None else (len(x), len(y))
    mesh = [x] if y is None else np.meshgrid(x, y)
    values, accuracies = -np.ones(shape), -np.ones(shape)
    for index, at in list(enumerate(zip(*(m.ravel() for m in mesh), strict=True)))[:done]:
        values.ravel()[index] = loss(*at)
        accuracies.ravel()[index] = 50
    with h5py.File(path, "w") as file:
        file["dir_file"] = "trained_nets/resnet56.h5"
        file["xcoordinates"] = x
        if y is not None:
            file["ycoordinates"] = y
        file["train_loss"] = values
        file["train_acc"] = accuracies
    return path


@pytest.mark.parametrize("points", [5, 8])
def test_a_plane_of_li_et_al_is_read_as_they_measured_it(points, tmp_path):
    x, y = np.linspace(-1, 1, 5), np.linspace(-0.5, 2, points)
    found = read_hdf5(li_file(tmp_path / "a.h5", formula, x, y))
    assert found.losses.shape == (5, points)
    np.testing.assert_array_equal(found.losses, formula(x[:, None], y))
    assert found.settings["radius"] == 2
    assert found.settings["grid"] == [5, points]
    assert found.evaluations == 5 * points
    assert np.isnan(found.cosine)


def test_a_square_plane_is_written_as_li_et_al_draw_it(plane, tmp_path):
    """Their plots hand `train_loss` to contour(*np.meshgrid(x, y), train_loss)."""
    x, y = plane.coordinates
    square = replace(plane, coordinates=(x[:3], y), losses=plane.losses[:3])
    with h5py.File(export(square, tmp_path / "a.h5"), "r") as file:
        assert set(file) == {"xcoordinates", "ycoordinates", "train_loss", "train_acc"}
        x, y = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        np.testing.assert_allclose(file["train_loss"][:], formula(x, y), rtol=1e-12)


def test_points_that_are_not_finished_are_nan(tmp_path):
    x = np.linspace(-0.5, 1.5, 401)
    found = read_hdf5(li_file(tmp_path / "a.h5", lambda x: x * x + 2, x, done=150))
    assert found.evaluations == 150
    assert np.isfinite(found.losses).sum() == 150
    assert found.center == pytest.approx(2, abs=1e-12)
    assert found.cosine is None


def test_without_accuracies_a_loss_of_minus_one_is_not_finished(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["xcoordinates"] = np.array([1, 2, 3])
        file["train_loss"] = np.array([1, -1, 0.5], dtype=np.float32)
    found = read_hdf5(tmp_path / "a.h5")
    np.testing.assert_array_equal(found.losses, [1, np.nan, 0.5])
    assert found.losses.dtype == np.float64
    assert np.isnan(found.center)


def damaged(folder):
    """Yield (file, what the message says) of files that are no surfaces."""
    yield folder / "missing.h5", "No such file"
    yield folder, "is a folder"
    for name, content, message in (
        ("empty.h5", b"", "is empty"),
        ("text.h5", b"hello", "not a readable HDF5"),
    ):
        (folder / name).write_bytes(content)
        yield folder / name, message
    x = np.linspace(-1, 1, 3)
    li_file(folder / "good.h5", formula, x, x)
    (folder / "cut.h5").write_bytes((folder / "good.h5").read_bytes()[:-500])
    yield folder / "cut.h5", "not a readable HDF5"
    good = {"xcoordinates": x, "ycoordinates": x, "train_loss": np.ones((3, 3))}
    link = h5py.ExternalLink("good.h5", "train_loss")
    for number, (changed, message) in enumerate(
        [
            ({"xcoordinates": None}, "no dataset xcoordinates"),
            ({"train_loss": None}, "no dataset train_loss"),
            ({"train_loss": link}, "no dataset train_loss"),
            ({"train_loss": h5py.SoftLink("/nowhere")}, "no dataset train_loss"),
            ({"train_loss": np.ones((3, 2))}, r"train_loss has the shape \(3, 2\), expected \(3, 3\)"),
            ({"train_acc": np.ones(3)}, r"train_acc has the shape \(3,\)"),
            ({"ycoordinates": None}, "train_loss has the shape"),
            ({"xcoordinates": np.ones((3, 3))}, "xcoordinates must be two or more"),
            ({"xcoordinates": x[:1]}, "xcoordinates must be two or more"),
            ({"ycoordinates": x[::-1]}, "ycoordinates must be two or more finite numbers that increase"),
            ({"ycoordinates": x * np.nan}, "ycoordinates must be two or more finite"),
            ({"xcoordinates": "abc"}, "xcoordinates must be of numbers"),
            ({"train_loss": np.ones((3, 3), dtype=complex)}, "must be of numbers, found complex"),
            ({"train_loss": h5py.Empty("f8")}, "not a readable HDF5"),
        ]
    ):
        path = folder / f"{number}.h5"
        with h5py.File(path, "w") as file:
            for name, content in (good | changed).items():
                if content is not None:
                    file[name] = content
        yield path, message
    with h5py.File(folder / "group.h5", "w") as file:
        file.create_group("xcoordinates")
    yield folder / "group.h5", "no dataset xcoordinates"
    with h5py.File(folder / "huge.h5", "w") as file:  # claims 8 TB, and holds nothing
        file.create_dataset("xcoordinates", (10**12,), "f8", chunks=(1024,))
    yield folder / "huge.h5", "xcoordinates has 1,000,000,000,000 values"
    with h5py.File(folder / "outside.h5", "w") as file:
        file.create_dataset("xcoordinates", (3,), "f8", external=[(folder / "good.h5", 0, 24)])
    yield folder / "outside.h5", "no dataset xcoordinates"


def test_files_that_are_no_surfaces_are_one_line(tmp_path):
    for path, message in damaged(tmp_path):
        with pytest.raises(InputError, match=message) as refused:
            read_hdf5(path)
        assert "\n" not in str(refused.value)
        assert str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.npz.bak"])
def test_an_unknown_ending_is_refused(line, name, tmp_path):
    with pytest.raises(InputError, match=r"must be \.csv, \.vtk, \.h5, \.hdf5 or \.npz"):
        export(line, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [None, {"a": 1}, "surface.npz"])
def test_what_is_no_slice_is_refused(other, tmp_path):
    for taking in (ll.basins, lambda several: ll.paired_error(several, several)):
        with pytest.raises(InputError, match="takes a line or a plane"):
            taking(other)
    with pytest.raises(InputError, match="export writes a line or a plane"):
        ll.export(other, tmp_path / "a.csv")


def test_without_h5py_nothing_is_written_and_the_message_says_how_to_get_it(line, tmp_path, monkeypatch):
    path = export(line, tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for act in (lambda: export(line, tmp_path / "b.h5"), lambda: read_hdf5(path)):
        with pytest.raises(InputError, match=r"pip install h5py"):
            act()
    assert list(tmp_path.iterdir()) == [path]


def test_export_waits_for_no_h5py():
    code = "import sys, landscape.surface.export; print('h5py' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_command_writes_what_the_function_writes(answer, plane, ending, tmp_path):
    source = plane.save(tmp_path / "plane.npz")
    target = tmp_path / "sub" / f"a{ending}"
    found = answer("export", source, target)
    assert found == {"source": str(source), "file": str(target), "points": 15}
    assert target.read_bytes() == export(plane, tmp_path / f"b{ending}").read_bytes()


def test_the_command_takes_hdf5_the_other_way(answer, plane, tmp_path):
    source = export(plane, tmp_path / "a.H5")
    answer("export", source, tmp_path / "a.npz")
    np.testing.assert_array_equal(load_as(Slice, tmp_path / "a.npz").losses, plane.losses)


def test_the_command_says_one_line_to_people(landscape, plane, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, out, err = landscape("export", plane.save(tmp_path / "a.npz"), tmp_path / "a.vtk")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["15 points", f"Written to {tmp_path}: a.vtk"]


def test_what_the_command_cannot_use_is_one_line(landscape, plane, sasrec_objective, tmp_path):
    good = plane.save(tmp_path / "a.npz")
    trace = ll.trace(sasrec_objective, probes=2).save(tmp_path / "trace.npz")
    (tmp_path / "text.h5").write_text("hello")
    for source, target, message in (
        (good, tmp_path / "a.pdf", "the ending must be"),
        (tmp_path / "missing.npz", tmp_path / "b.csv", "No such file"),
        (tmp_path / "text.h5", tmp_path / "b.csv", "not a readable HDF5 file"),
        (trace, tmp_path / "b.csv", "holds a Trace, expected a Slice"),
    ):
        code, out, err = landscape("export", source, target)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "b.csv").exists()

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import landscape as ll
from landscape import InputError, Slice
from landscape.storage.files import replacing
from landscape.storage.results import load_as


@pytest.fixture(scope="module")
def results(sasrec_objective):
    return {
        "line": ll.line(sasrec_objective, grid=3),
        "plane": ll.plane(sasrec_objective, grid=3),
        "hessian": ll.top_eigenpairs(sasrec_objective, 2),
        "trace": ll.trace(sasrec_objective, probes=2),
        "sharpness": ll.sharpness(sasrec_objective, steps=2, samples=2),
    }


def test_a_result_of_a_file_whose_name_is_no_text_is_loaded(results, tmp_path):
    told = {"checkpoint": "caf\udce9/📚.pt", "data": "a\x00\x7f\u2028ä"}
    result = dataclasses.replace(results["trace"], provenance=told)
    found = ll.load(result.save(tmp_path / "result.npz"))
    assert found.provenance == {**told, "checkpoint": "caf?/📚.pt"}


@pytest.mark.parametrize("name", ["line", "plane", "hessian", "trace", "sharpness"])
def test_what_is_saved_is_loaded(results, name, tmp_path):
    before = results[name]
    after = ll.load(before.save(tmp_path / "sub" / "result.npz"))
    assert type(after) is type(before)
    for key, value in vars(before).items():
        np.testing.assert_equal(getattr(after, key), value)


def test_a_fresh_process_loads_what_is_saved(results, tmp_path):
    path = results["trace"].save(tmp_path / "a.npz")
    code = f"import landscape; print(type(landscape.load({str(path)!r})).__name__)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "Trace\n"


def test_a_loss_that_is_not_finite_survives(results, tmp_path):
    losses = np.array([1.0, np.nan, np.inf])
    bent = Slice(**{**vars(results["line"]), "losses": losses, "center": float("nan")})
    after = ll.load(bent.save(tmp_path / "a.npz"))
    np.testing.assert_array_equal(after.losses, losses)
    assert np.isnan(after.center)


def test_results_say_where_they_come_from(results):
    for result in results.values():
        assert {"torch", "numpy", "python", "device"} <= result.provenance.keys()
        assert result.seconds > 0
        assert result.settings


def broken(tmp_path):
    """Yield files that are no results."""
    yield tmp_path / "missing.npz", "cannot read"
    for name, content, message in (
        ("empty.npz", b"", "is empty"),
        ("text.npz", b"not a zip", "not a readable result"),
        ("pickle.npz", pickle.dumps({"a": 1}), "not a readable result"),
    ):
        (tmp_path / name).write_bytes(content)
        yield tmp_path / name, message
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    yield tmp_path / "other.npz", "not a readable result"
    np.savez(tmp_path / "kind.npz", header=np.array(json.dumps({"kind": "Nothing", "values": {}})))
    yield tmp_path / "kind.npz", "not a readable result"
    np.savez(tmp_path / "object.npz", header=np.array({"kind": "Slice"}, dtype=object), allow_pickle=True)
    yield tmp_path / "object.npz", "not a readable result"
    np.save(tmp_path / "array.npy", np.ones(2))
    yield tmp_path / "array.npy", "not a readable result"
    yield tmp_path, "is a folder"


def test_files_that_are_no_results_are_refused(tmp_path):
    for path, message in broken(tmp_path):
        with pytest.raises(InputError, match=message):
            ll.load(path)


def test_a_truncated_file_is_refused(results, tmp_path):
    path = results["plane"].save(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable result"):
        ll.load(path)


def test_another_kind_is_refused(results, tmp_path):
    path = results["trace"].save(tmp_path / "a.npz")
    with pytest.raises(InputError, match="holds a Trace, expected a Slice"):
        load_as(Slice, path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def failing():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"), replacing(tmp_path / "file" / "a.txt"):
        pass

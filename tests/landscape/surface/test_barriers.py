"""Barriers from one model to several."""

import numpy as np
import pytest

import landscape as ll
from landscape import InputError
from tests.landscape.surface.test_paths import ring


def test_the_first_is_joined_to_each_of_the_others(tmp_path):
    wells = {"a": ring(-1.0, 0.0), "b": ring(1.0, 0.0), "c": ring(0.0, 1.0)}
    found = ll.barriers(wells, curved=True, steps=20, folder=tmp_path)
    assert list(found) == ["b", "c"]
    for name, (line, curve) in found.items():
        assert (line.kind, curve.kind) == ("linear", "bezier")
        expected = ll.barrier(wells["a"], wells[name])
        assert line.height == expected.height
        assert np.array_equal(line.losses, expected.losses)
        for path in (line, curve):
            kept = ll.load(tmp_path / f"a-{name}.{path.kind}.npz")
            assert kept.losses.tolist() == path.losses.tolist()
            assert kept.certificate == path.certificate
    assert found["b"][0].height == 1  # through the middle of the ring


def test_a_metric_is_that_of_the_first_model():
    a, b = ring(-1.0, 0.0), ring(1.0, 0.0)
    (line,) = ll.barriers({"a": a, "b": b}, grid=5, metrics={"same": a})["b"]
    assert line.metrics["same"]["values"] == pytest.approx(line.losses.tolist())


def test_all_are_checked_before_any_is_measured(tmp_path):
    with pytest.raises(InputError, match="different models"):
        ll.barriers({"a": ring(1.0), "b": ring(-1.0), "c": ring(1.0, 0.0)}, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="at least two"):
        ll.barriers({"a": ring(1.0)})

"""The surfaces of a page, which are turned by hand."""

from dataclasses import replace

import numpy as np
import pytest

from landscape.plots.interactive import interactive_figure
from landscape.plots.surfaces import surface_figure
from tests.results import line, plane


def test_both_scales_are_one_for_all_planes():
    meta = interactive_figure({"flat": plane(0.5), "steep": plane(10.0)}).layout.meta
    low, high = meta["linear"]["range"]
    assert (low, high) == (-2.0, 12.0)  # of 10 (x² + y / 5)
    assert meta["least"] == low
    assert meta["epsilon"] == pytest.approx(1e-3 * (high - low), rel=0.5)
    assert meta["log"]["range"] == pytest.approx(np.log10([meta["epsilon"], high - low + meta["epsilon"]]))
    assert f"ε = {meta['epsilon']:g}" in meta["log"]["label"]


def test_the_page_opens_on_the_scale_of_the_picture():
    x = np.linspace(-1, 1, 5)
    spike = replace(plane(), losses=np.exp(9 * np.add.outer(x, x)))
    for slices in ({"a": plane(0.5)}, {"spike": spike}, {"a": plane(0.5), "spike": spike}, {"l": line()}):
        drawn = surface_figure(slices).axes[-1].get_ylabel()
        assert interactive_figure(slices).layout.meta["scale"] == ("log" if "log" in drawn else "linear")


@pytest.mark.parametrize("height", [1e-9, 0.5, 10.0, 1e6])
def test_numbers_of_the_upward_axis_leave_its_foot_to_those_of_another_axis(height):
    meta = interactive_figure({"a": plane(height)}).layout.meta
    for scale in ("linear", "log"):
        low, high = meta[scale]["range"]
        places = (np.array(meta[scale]["ticks"]) - low) / (high - low)
        assert len(places) > 1
        assert 0.1 < places.min() <= places.max() <= 1


def test_hovering_shows_the_loss_and_its_rise_over_the_own_centre():
    figure = interactive_figure({"a": plane(center=0.25)})
    (surface,) = figure.data
    np.testing.assert_allclose(surface.customdata[..., 0], surface.z)
    np.testing.assert_allclose(surface.customdata[..., 1], np.array(surface.z) - 0.25)
    for shown in ("α %{x", "β %{y", "loss %{customdata[0]", "%{customdata[1]"):
        assert shown in surface.hovertemplate


def test_a_loss_that_is_not_finite_is_left_out_in_3d_too():
    bent = plane()
    bent.losses[0, 0], bent.losses[4, 4] = np.nan, np.inf
    (surface,) = interactive_figure({"bent": bent}).data
    assert np.isnan([surface.z[0][0], surface.z[4][4]]).all()

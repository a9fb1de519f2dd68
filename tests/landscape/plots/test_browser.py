"""How the page of a comparison behaves in a browser."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from landscape.plots.interactive import interactive_figure, save_html
from landscape.report.report import render
from tests.browser import PATIENCE, chromium, faults, new_tab
from tests.results import HOSTILE, LONG, facts, folder_of, hostile_folder, line, plane

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser):
    """A tab of this test alone."""
    tab = new_tab(browser)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory):
    """The report on two checkpoints, in one tab: each test leaves it as it found it, but for the cameras."""
    tab = opened(new_tab(browser), render(folder_of(tmp_path_factory.mktemp("two"), ["a", "b"])))
    yield tab
    tab.close()


PLOTS = "PLOTS", "document.querySelectorAll('.plot')"
DRAWN = "#slices[data-drawn=yes]"
EYES = (
    "[...document.querySelectorAll('.plot')].map(p => {const e = p._fullLayout.scene._scene.getCamera().eye;"
    " return [e.x, e.y, e.z]})"
)


def opened(tab, path):
    tab.goto(path.as_uri())
    tab.wait_for_selector(DRAWN)
    return tab


def follows(tab, since=None):
    """Wait until all cameras have come to rest at one place, another than `since`; return it."""

    def moves(eyes):
        stray = np.ptp(eyes, axis=0).max() > 1e-3
        return stray or (since is not None and np.abs(eyes[0] - since).max() < 1e-2)

    before, eyes = None, np.array(tab.evaluate(EYES))
    for _ in range(PATIENCE // 200):
        if before is not None and np.array_equal(before, eyes) and not moves(eyes):
            return eyes[0]
        tab.wait_for_timeout(200)
        before, eyes = eyes, np.array(tab.evaluate(EYES))
    raise AssertionError(f"the cameras did not come to rest together: {eyes.tolist()}")


def test_cameras_follow_one_another(report):
    before = follows(report)
    report.evaluate(
        "window.moves = 0; for (const p of PLOTS) p.on('plotly_relayout', () => moves++)".replace(*PLOTS)
    )
    plot = report.locator(".plot").nth(1)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    report.mouse.move(x, y)
    report.mouse.down()
    report.mouse.move(x + 60, y + 20, steps=4)
    report.mouse.up()
    turned = follows(report, since=before)
    report.mouse.wheel(0, 200)
    zoomed = follows(report, since=turned)
    assert np.linalg.norm(zoomed) > np.linalg.norm(turned) + 1e-2
    report.wait_for_function("[window.last, window.last = moves][0] === moves", polling=500)
    assert report.evaluate("moves") < 60  # they come to rest
    report.get_by_role("button", name="reset the view").click()
    np.testing.assert_allclose(follows(report, since=zoomed), before, atol=1e-3)
    assert report.said == []


def test_cameras_follow_a_finger(report):
    before = follows(report)
    report.evaluate(
        """() => {
        const canvas = document.querySelector('.plot canvas'), box = canvas.getBoundingClientRect();
        const send = (kind, x, y) => {
            const touch = new Touch({identifier: 1, target: canvas, clientX: box.x + x, clientY: box.y + y});
            const changed = {changedTouches: [touch], touches: [touch], bubbles: true, cancelable: true};
            canvas.dispatchEvent(new TouchEvent(kind, changed));
        };
        send('touchstart', 100, 100); send('touchmove', 160, 120); send('touchmove', 200, 120);
        send('touchend', 200, 120);
    }"""
    )
    follows(report, since=before)
    assert report.said == []


def test_the_switch_changes_every_scene_and_nothing_else(report):
    shown = (
        "[...PLOTS].map(p => [p._fullLayout.scene.zaxis.range, p._fullLayout.coloraxis.cmin,"
        " p._fullLayout.coloraxis.cmax, p._fullData[0].z[2][2], p._fullData[0].customdata[2][2][0]])"
    ).replace(*PLOTS)
    linear = report.evaluate(shown)
    before = report.evaluate(EYES)
    report.focus("button[data-scale=log]")
    report.keyboard.press("Enter")
    report.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(p => p._fullLayout.scene.zaxis.title.text != 'loss')",
    )
    assert report.get_attribute("button[data-scale=log]", "aria-pressed") == "true"
    assert report.get_attribute("button[data-scale=linear]", "aria-pressed") == "false"
    assert "ε = 0.003" in report.inner_text(".scale-label")
    for (limits, low, high, z, loss), was in zip(report.evaluate(shown), linear, strict=True):
        assert (
            limits == [low, high] == pytest.approx([np.log10(0.003), np.log10(2.4 + 0.4 + 0.003)], abs=1e-3)
        )
        assert (loss, was[3]) == (was[4], was[4])
        assert z == pytest.approx(np.log10(loss + 0.4 + 0.003))
    np.testing.assert_allclose(report.evaluate(EYES), before, atol=1e-6)
    report.click("button[data-scale=linear]")
    report.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(p => p._fullLayout.scene.zaxis.title.text == 'loss')",
    )
    assert report.evaluate(shown) == linear
    assert report.said == []


def test_hovering_reads_the_numbers_off(tmp_path, page):
    figure = interactive_figure({"<b>a</b>": plane(grid=9, center=0.25)})
    tab = opened(page, save_html(figure, tmp_path / "s.html"))
    assert tab.get_by_text("<b>a</b>").count() == 1
    tab.evaluate("document.querySelector('.plot').on('plotly_hover', e => { window.seen = e.points[0] })")
    box = tab.locator(".plot").bounding_box()
    for nudge in range(PATIENCE // 200):  # a scene that is not yet drawn whole has nothing under the mouse
        tab.mouse.move(box["x"] + box["width"] / 2 + nudge % 2, box["y"] + box["height"] * 0.6)
        tab.wait_for_timeout(200)
        if tab.evaluate("window.seen !== undefined"):
            break
    x, y, z, (loss, rise) = tab.evaluate("[seen.x, seen.y, seen.z, [...seen.customdata]]")
    assert (loss, rise) == pytest.approx((z, z - 0.25))
    assert z == pytest.approx(x**2 + 0.2 * y)
    text = tab.locator(".hovertext").first.text_content()
    assert all(word in text for word in ("α", "β", "loss", "rise"))
    assert page.said == []


@pytest.mark.parametrize("width", [360, 1000, 1600])
def test_a_scene_is_square_where_the_window_is_high_enough(tmp_path, page, width):
    page.set_viewport_size({"width": width, "height": 1000})
    figure = interactive_figure({"a": plane(grid=9), "b": plane(grid=9)})
    box = opened(page, save_html(figure, tmp_path / "s.html")).locator(".plot").last.bounding_box()
    assert 0.8 <= box["height"] / box["width"] <= 1.01  # of a phone's window it would fill all
    assert page.said == []


def test_the_names_of_marks_stand_above_the_surface_on_both_scales(tmp_path, page):
    marks = [{"name": f"<i>{place}</i>", "at": [place, 0.5], "loss": 1.0} for place in (0.5, 9.0)]
    figure = interactive_figure({"a": plane(grid=9, marks=marks)})
    tab = opened(page, save_html(figure, tmp_path / "s.html"))
    assert tab.locator(".annotation-text").all_text_contents() == ["<i>0.5</i>"]  # the other is not on it
    height = "document.querySelector('.plot')._fullLayout.scene.annotations[0].z"
    assert tab.evaluate(height) == pytest.approx(0.5**2 + 0.2 * 0.5)
    tab.get_by_role("button", name="log").click()
    meta = figure.layout.meta
    shown = np.log10(0.35 - meta["least"] + meta["epsilon"])
    tab.wait_for_function(f"Math.abs({height} - {shown}) < 1e-6")
    assert page.said == []


def test_every_scene_is_drawn_on_a_phone_and_in_the_dark(tmp_path, page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    names = [f"{LONG}_{number}" for number in range(6)]
    tab = opened(page, render(folder_of(tmp_path, names, facts=facts())))
    assert tab.locator(".plot canvas").count() == 6
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    places = [tab.locator(".panel").nth(i).bounding_box() for i in range(6)]
    assert all(a["y"] + a["height"] <= b["y"] for a, b in pairwise(places))
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert int(ink[4:].split(",")[0]) > 200
    assert tab.evaluate("document.querySelector('.plot')._fullLayout.font.color") == "#e6e6e6"
    assert (
        tab.evaluate("getComputedStyle(document.querySelector('img')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert page.said == []


def test_nothing_overlaps_or_is_clipped_at_1200_pixels(tmp_path, page):
    names = [f"{LONG}_{number}" for number in range(3)]
    tab = opened(page, render(folder_of(tmp_path, names, facts=facts())))
    assert tab.evaluate("[...document.querySelectorAll('.wide')].every(w => w.scrollWidth <= w.clientWidth)")
    titles = [tab.locator("h3").nth(i).bounding_box() for i in range(3)]
    assert len({box["y"] for box in titles}) == 1
    assert all(a["x"] + a["width"] <= b["x"] for a, b in pairwise(titles))


def test_at_every_width_the_report_fits_reads_in_order_and_asks_for_nothing(report):
    assert faults(report, colors=True) == []


def test_in_print_pictures_stand_in_for_what_can_be_turned(report):
    report.emulate_media(media="print", color_scheme="dark")
    assert not report.locator("#slices").is_visible()
    assert report.get_by_alt_text("The same surfaces side by side").is_visible()
    assert report.evaluate("getComputedStyle(document.body).color") == "rgb(26, 26, 26)"
    assert report.evaluate(
        "[...document.querySelectorAll('.wide')].every(w => getComputedStyle(w).overflowX === 'visible')"
    )
    report.emulate_media(media="screen", color_scheme="light")


def test_lines_have_the_switch_too(tmp_path, page):
    tab = opened(
        page, save_html(interactive_figure({"<b>a</b>": line(), "b": line(2.0)}), tmp_path / "l.html")
    )
    top = "Math.max(...document.querySelector('.plot')._fullData[1].y)"
    assert tab.evaluate(top) == 2.0
    tab.click("button[data-scale=log]")
    tab.wait_for_function(f"{top} < 1")
    assert tab.evaluate(top) == pytest.approx(np.log10(2.002))
    assert page.said == []


def test_ticks_of_a_narrow_range_differ(tmp_path, page):
    flat = plane(0.01)
    found = {"a": replace(flat, losses=flat.losses + 1.35)}
    tab = opened(page, save_html(interactive_figure(found), tmp_path / "n.html"))
    labels = tab.locator(".ticks span").all_text_contents()
    assert sorted(set(labels), key=float) == labels


def test_hostile_names_are_shown_and_not_run(tmp_path, page):
    page.goto(render(hostile_folder(tmp_path)).as_uri())
    page.wait_for_selector("#slices .gl-container canvas", state="attached")
    assert page.title() == HOSTILE
    assert page.locator("img").evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 100)")
    assert page.locator("table").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.said == []

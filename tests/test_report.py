"""What the page of a comparison says, and how it behaves in a browser."""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from landscape import InputError, Sharpness, SpectralDensity, load
from landscape.curvature.trace import Trace
from landscape.flatness.comparison import compare
from landscape.flatness.measures import MEASURES
from landscape.plots.curves import eigenvalue_figure
from landscape.plots.interactive import interactive_figure, save_html
from landscape.plots.report import Compared, Comparison, read_comparison, render, result_path, write_index
from landscape.plots.report_words import sentences
from tests.test_plots import COMMON, HOSTILE, hessian, line, plane

LONG = "a_name_that_says_everything_about_its_training_and_never_takes_a_breath"
METRICS = dict.fromkeys(("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr"), 0.25)


def trace(value, noise=1.0):
    samples = value + noise * np.array([-1.0, 0.0, 1.0])
    return Trace(value=value, standard_error=noise / 3**0.5, samples=samples, **COMMON)


def sharpness(factor=1.0, noise=1e-3, measures=("sam", "asam")):
    """Measures whose draws of one seed differ by `factor`, and a little by themselves."""
    draws = factor * np.linspace(0.9, 1.1, 20) + noise * np.random.default_rng(0).normal(size=20) * factor
    rows = {name: {"value": float(draws.mean()), "se": 0.01, "rho": 0.1} for name in measures}
    return Sharpness(
        loss=0.3,
        weight_norm=2.0,
        measures=rows,
        by_draw=(draws,) * len(rows),
        by_unit=(np.empty(0),) * len(rows),
        loss_by_unit=np.linspace(0.2, 0.4, 9),
        **COMMON,
    )


def density():
    nodes = (np.array([-0.5, 1.0, 3.0]),) * 2
    own = {"settings": COMMON["settings"] | {"probes": 2, "steps": 3}}
    return SpectralDensity(
        nodes=nodes,
        weights=(np.full(3, 1 / 3),) * 2,
        moments=np.array([[3.5, 3.5], [10.25, 10.25]]),
        dimension=3,
        **COMMON | own,
    )


def folder_of(path, names, spectrum=True, **known):
    """A folder of a comparison, each checkpoint steeper than the one before."""
    for number, name in enumerate(names, start=1):
        parts = {
            "plane": plane(number, center=0.1),
            "line": line(number),
            "hessian": hessian(),
            "trace": trace(7.0),
            "sharpness": sharpness(number),
        }
        for part, result in (parts | ({"density": density()} if spectrum else {})).items():
            result.save(result_path(path, name, part))
    compared = [Compared(name=name, path=f"{name}/best.pt", **known) for name in names]
    write_index(Comparison(title="A comparison", checkpoints=compared, command="landscape compare"), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A comparison whose names are hostile."""
    checkpoints = []
    for name, height in (("plain", 1.0), ("b & <i>c", 2.0)):
        rows = {key: {"value": height, "se": 0.1, **dict.fromkeys(m.uses, 1)} for key, m in MEASURES.items()}
        for part, result in {
            "plane": plane(height),
            "line": line(height),
            "hessian": hessian(None if name == "plain" else -0.5),
            "trace": Trace(value=7.0, standard_error=0.5, samples=np.ones(3), **COMMON),
            "sharpness": Sharpness(loss=0.3, weight_norm=2.0, measures=rows, **COMMON),
        }.items():
            result.save(result_path(tmp_path, name, part))
        test = dict.fromkeys(("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr"), 0.25)
        log = [
            {"epoch": 1, "loss": 1.0},
            {"epoch": 2, "loss": 0.5, "valid": {"ndcg@10": 0.1}},
            {"epoch": 2, "test": test},
        ]
        checkpoints.append(Compared(name=name, path=HOSTILE, users=3, valid=test, test=test, log=log))
    index = Comparison(title=HOSTILE, checkpoints=checkpoints, ideal_hr10=0.9)
    (tmp_path / "compare.json").write_text(index.model_dump_json())
    return tmp_path


def test_the_report_is_one_file_and_escapes_what_it_is_given(folder):
    text = render(folder).read_text("utf-8")
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text  # shown, not computed
    assert "b &amp; &lt;i&gt;c" in text
    assert "<i>c" not in text
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for outside in ('src="http', 'href="http', '<link rel="stylesheet', "@import"):
        assert outside not in markup
    assert markup.count('src="data:image/png;base64,') == 4


def test_the_report_says_what_does_not_hold(folder):
    text = render(folder).read_text("utf-8")
    assert "is no minimum of the measured loss: ‖∇L‖ is 0.3 and λmin is -0.5" in text
    assert "1 of 2 eigenvalues have not converged" in text
    assert "against plain" in text


def test_a_folder_without_a_comparison(tmp_path):
    with pytest.raises(InputError, match="holds no comparison"):
        render(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not readable"),
        ('{"title": "x"}', "checkpoints Field required"),
        ('{"title": "x", "checkpoints": []}', "at least one checkpoint"),
        (
            '{"title": "x", "checkpoints": [{"name": "../a", "path": "b"}]}',
            "a name of its own that is no path",
        ),
    ],
)
def test_an_index_that_is_damaged(tmp_path, index, message):
    (tmp_path / "compare.json").write_text(index)
    with pytest.raises(InputError, match=message):
        render(tmp_path)


def test_a_missing_result(folder):
    result_path(folder, "plain", "trace").unlink()
    with pytest.raises(InputError, match="cannot read result file"):
        render(folder)
    assert not (folder / "report.html").exists()


def test_the_index_reloads(folder):
    text = (folder / "compare.json").read_text()
    assert json.loads(Comparison.model_validate_json(text).model_dump_json()) == json.loads(text)


def said(traces=None, spectra=None, sharp=None):
    """The sentence that contrasts b with a."""
    traces = traces or (trace(7.0), trace(7.0))
    spectra = spectra or (hessian(), hessian())
    sharp = sharp or (sharpness(), sharpness())
    found = [dict(zip("ab", pair, strict=True)) for pair in (spectra, traces, sharp)]
    return next(sentences(found[0], found[1], compare(found[2])))


def side_of(quantity, text):
    """Which of the sides a sentence puts a quantity on."""
    (side,) = [part for part in text.partition(": ")[2].split("; ") if quantity in part]
    return side.partition(" in ")[0]


def test_a_difference_within_its_error_is_not_distinguishable():
    assert side_of("trace", said(traces=(trace(7.0), trace(7.0)))) == "not distinguishable"
    apart = replace(trace(8.0), samples=np.array([5.0, 8.0, 11.0]))  # by draws of its own
    assert side_of("trace", said(traces=(trace(7.0), apart))) == "not distinguishable"
    assert side_of("(SAM)", said(sharp=(sharpness(), sharpness(1.001, noise=0.1)))) == "not distinguishable"


def test_a_difference_beyond_its_error_has_a_side():
    assert side_of("trace", said(traces=(trace(7.0), trace(8.0)))) == "higher"  # what probes share falls out
    assert side_of("trace", said(traces=(trace(8.0), trace(7.0)))) == "lower"
    assert side_of("(SAM)", said(sharp=(sharpness(), sharpness(2.0)))) == "higher"
    assert side_of("(ASAM)", said(sharp=(sharpness(2.0), sharpness(1.0)))) == "lower"


def test_eigenvalues_are_told_apart_by_their_residuals():
    near = replace(hessian(), eigenvalues=np.array([3.0005, 2.0]))
    far = replace(hessian(), eigenvalues=np.array([3.1, 2.0]))
    unsettled = replace(far, converged=[False, False])
    assert side_of("λmax", said(spectra=(hessian(), near))) == "not distinguishable"
    assert side_of("λmax", said(spectra=(hessian(), far))) == "higher"
    assert side_of("λmax", said(spectra=(far, hessian()))) == "lower"
    assert side_of("λmax", said(spectra=(hessian(), unsettled))) == "not distinguishable"


def test_without_any_error_nothing_is_claimed():
    bare = [
        replace(s, measures={"sam": s.measures["sam"] | {"se": None}}) for s in (sharpness(), sharpness(2.0))
    ]
    bare = [replace(s, by_draw=(), by_unit=()) for s in bare]
    assert side_of("(SAM)", said(sharp=bare)) == "without an error to tell"


def test_the_trace_is_said_as_the_table_below_shows_it():
    """Its error over users is in the table's interval, and not in that of the probes."""
    both = [sharpness(measures=("sam", "trace")), sharpness(1.001, 0.1, measures=("sam", "trace"))]
    text = said(traces=(trace(7.0), trace(8.0)), sharp=both)
    assert side_of("trace", text) == "not distinguishable"
    assert text.count("trace") == 1


def test_one_checkpoint_is_against_none(tmp_path):
    text = render(folder_of(tmp_path, ["alone"])).read_text("utf-8")
    assert "against" not in text.partition("<h2>Loss surface")[0].partition("<body>")[2]
    assert "alone: L(θ) 0.300" in text


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.filterwarnings("error")
def test_any_number_of_long_names_up_to_six(tmp_path, count):
    names = [f"{LONG}_{number}" for number in range(count)]
    text = render(folder_of(tmp_path, names, users=3, test=METRICS, valid=METRICS)).read_text("utf-8")
    assert text.count('<figure class="panel">') == count
    assert all(f"<h3>{name}</h3>" in text for name in names)


def test_plotly_is_embedded_once(tmp_path):
    from plotly.offline import get_plotlyjs

    text = render(folder_of(tmp_path, ["a", "b"])).read_text("utf-8")
    assert text.count(get_plotlyjs()[:2000]) == 1


def test_a_density_is_shown_where_there_is_one(tmp_path):
    assert "<h2>Spectrum" in render(folder_of(tmp_path / "new", ["a", "b"])).read_text("utf-8")
    assert "<h2>Spectrum" not in render(folder_of(tmp_path / "old", ["a", "b"], False)).read_text("utf-8")


def test_ranking_has_intervals_where_they_are_known(tmp_path):
    known = {"users": 1234, "valid": METRICS, "test": METRICS}
    between = dict.fromkeys(METRICS, (0.2, 0.3))
    old = render(folder_of(tmp_path / "old", ["a"], **known)).read_text("utf-8")
    new = render(folder_of(tmp_path / "new", ["a"], **known, test_intervals=between)).read_text("utf-8")
    assert "[0.2000, 0.3000]" not in old
    assert new.count("[0.2000, 0.3000]") == len(METRICS)
    assert "test, 1,234 users" in old


def test_what_was_measured_stands_in_the_page(tmp_path):
    folder = folder_of(tmp_path, ["a", "b"])
    for name, weights in (("a", "aaaa"), ("b", "bbbb")):
        told = {"data_sha256": "dddd", "checkpoint_sha256": weights, "torch": "9.9"}
        replace(hessian(), provenance=told).save(result_path(folder, name, "hessian"))
    text = render(folder).read_text("utf-8").partition("<h2>What was measured")[2]
    assert [text.count(word) for word in ("dddd", "aaaa", "bbbb", "9.9")] == [1, 1, 1, 1]
    assert "<code>landscape compare</code>" in text


def test_a_contrast_stands_below_its_value_and_is_bold_where_it_is_clear(tmp_path):
    text = render(folder_of(tmp_path, ["a", "b"])).read_text("utf-8")
    row = text.partition(">sam<small>")[2].partition("</tr>")[0]
    assert row.count("<td>") == 2
    assert 'class="differs">2.0' in row


def test_marks_of_equal_eigenvalues_do_not_hide_one_another():
    (axes,) = eigenvalue_figure(dict.fromkeys("abc", hessian())).axes
    marks = [m for m in axes.lines if m.get_marker() in ("o", "v")]
    places = [float(np.ravel(m.get_xdata())[0]) for m in marks]
    assert len(marks) == 3 * 3
    assert np.diff(sorted(places)).min() > 0.1


def test_both_scales_are_one_for_all_planes():
    meta = interactive_figure({"flat": plane(0.5), "steep": plane(10.0)}).layout.meta
    low, high = meta["linear"]["range"]
    assert (low, high) == (-2.0, 12.0)  # of 10 (x² + y / 5)
    assert meta["least"] == low
    assert meta["epsilon"] == pytest.approx(1e-3 * (high - low), rel=0.5)
    assert meta["log"]["range"] == pytest.approx(np.log10([meta["epsilon"], high - low + meta["epsilon"]]))
    assert f"ε = {meta['epsilon']:g}" in meta["log"]["label"]


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


def test_compare_refuses_more_than_six(landscape, tmp_path):
    given = [part for number in range(7) for part in ("--ckpt", tmp_path / f"{number}.pt")]
    code, out, err = landscape("compare", *given, "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "7 checkpoints" in err
    assert not (tmp_path / "out").exists()


COMPARE = ("--grid", 2, "--top", 1, "--users", 8)


@pytest.fixture
def measured(monkeypatch):
    """Gather which measurements `compare` makes; those of sharpness are two, since all take long."""
    import landscape as ll

    made = []

    def spied(name, function, **fixed):
        def call(*arguments, **settings):
            made.append(name)
            return function(*arguments, **settings, **fixed)

        monkeypatch.setattr(ll, name, call)

    for name in ("plane", "line", "top_eigenpairs", "trace", "spectral_density"):
        spied(name, getattr(ll, name))
    spied("sharpness", ll.sharpness, measures=("sam", "asam"))
    return made


def test_what_was_measured_is_not_measured_again(answer, runs, tmp_path, measured):
    given = ("compare", "--ckpt", runs / "sasrec" / "best.pt", "--out", tmp_path, *COMPARE)
    first = answer(*given)
    assert len(measured) == 6
    measured.clear()
    assert answer(*given) == first
    assert measured == []
    assert answer(*given, "--rho", 0.2) != first
    assert measured == ["sharpness"]
    measured.clear()
    answer(*given, "--rho", 0.2, "--seed", 1)
    assert len(measured) == 6


def test_other_weights_under_an_old_name_are_measured(answer, runs, tmp_path, measured):
    ckpt = tmp_path / "mine.pt"
    losses = []
    for method in ("sasrec", "samrec"):
        ckpt.write_bytes((runs / method / "best.pt").read_bytes())
        found = answer("compare", "--ckpt", ckpt, "--out", tmp_path / "out", *COMPARE)
        losses.append(found["checkpoints"][0]["loss"])
    assert len(measured) == 12
    assert losses[0] != losses[1]


def test_a_damaged_result_is_measured_again(answer, runs, tmp_path, measured):
    given = ("compare", "--ckpt", runs / "sasrec" / "best.pt", "--out", tmp_path, *COMPARE)
    answer(*given)
    measured.clear()
    result_path(tmp_path, "sasrec", "trace").write_bytes(b"damaged")
    answer(*given)
    assert measured == ["trace"]


def test_a_density_that_is_not_wanted_is_not_that_of_an_earlier_run(answer, runs, tmp_path, measured):
    given = ("compare", "--ckpt", runs / "sasrec" / "best.pt", "--out", tmp_path, *COMPARE)
    answer(*given)
    comparison, _ = read_comparison(tmp_path)
    (known,) = comparison.checkpoints
    assert known.test_intervals["hr@10"][0] <= known.test["hr@10"] <= known.test_intervals["hr@10"][1]
    assert comparison.title == "Loss landscape of sasrec"
    assert comparison.command.startswith("landscape compare")
    assert isinstance(load(result_path(tmp_path, "sasrec", "density")), SpectralDensity)
    answer(*given, "--no-density")
    assert not result_path(tmp_path, "sasrec", "density").exists()


def test_a_damaged_density_is_said(tmp_path):
    folder = folder_of(tmp_path, ["a"])
    result_path(folder, "a", "density").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a readable result"):
        render(folder)


def chromium():
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )


@pytest.fixture
def page():
    """A tab of a headless browser; `page.said` gathers console errors and exceptions."""
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-unsafe-swiftshader",
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.said = []
        tab.on("console", lambda m: tab.said.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else tab.said.append(r.url),
        )
        yield tab
        browser.close()


PLOTS = "PLOTS", "document.querySelectorAll('.plot')"
DRAWN = "#slices[data-drawn=yes]"
EYES = (
    "[...document.querySelectorAll('.plot')].map(p => {const e = p._fullLayout.scene._scene.getCamera().eye;"
    " return [e.x, e.y, e.z]})"
)


def opened(tab, path):
    tab.set_default_timeout(120_000)
    tab.goto(path.as_uri())
    tab.wait_for_selector(DRAWN)
    return tab


def settled(tab, condition):
    tab.wait_for_function(condition)


def follows(tab):
    tab.wait_for_timeout(2000)
    eyes = np.array(tab.evaluate(EYES))
    np.testing.assert_allclose(eyes, eyes[[0]].repeat(len(eyes), 0), atol=1e-3)
    return eyes[0]


@pytest.mark.browser
def test_cameras_follow_one_another(tmp_path, page):
    tab = opened(page, render(folder_of(tmp_path, ["a", "b", "c"])))
    before = follows(tab)
    tab.evaluate(
        "window.moves = 0; for (const p of PLOTS) p.on('plotly_relayout', () => moves++)".replace(*PLOTS)
    )
    plot = tab.locator(".plot").nth(1)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 20, steps=4)
    tab.mouse.up()
    turned = follows(tab)
    assert np.abs(turned - before).max() > 0.1
    tab.mouse.wheel(0, 200)
    zoomed = follows(tab)
    assert np.linalg.norm(zoomed) > np.linalg.norm(turned) + 1e-2
    made = tab.evaluate("moves")
    tab.wait_for_timeout(500)
    assert tab.evaluate("moves") == made < 60  # they come to rest
    tab.get_by_role("button", name="reset the view").click()
    np.testing.assert_allclose(follows(tab), before, atol=1e-3)
    assert page.said == []


@pytest.mark.browser
def test_cameras_follow_a_finger(tmp_path, page):
    tab = opened(page, render(folder_of(tmp_path, ["a", "b"])))
    before = follows(tab)
    tab.evaluate(
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
    assert np.abs(follows(tab) - before).max() > 0.1
    assert page.said == []


@pytest.mark.browser
def test_the_switch_changes_every_scene_and_nothing_else(tmp_path, page):
    tab = opened(page, render(folder_of(tmp_path, ["a", "b"])))
    shown = (
        "[...PLOTS].map(p => [p._fullLayout.scene.zaxis.range, p._fullLayout.coloraxis.cmin,"
        " p._fullLayout.coloraxis.cmax, p._fullData[0].z[2][2], p._fullData[0].customdata[2][2][0]])"
    ).replace(*PLOTS)
    linear = tab.evaluate(shown)
    before = tab.evaluate(EYES)
    tab.focus("button[data-scale=log]")
    tab.keyboard.press("Enter")
    settled(
        tab,
        "[...document.querySelectorAll('.plot')].every(p => p._fullLayout.scene.zaxis.title.text != 'loss')",
    )
    assert tab.get_attribute("button[data-scale=log]", "aria-pressed") == "true"
    assert tab.get_attribute("button[data-scale=linear]", "aria-pressed") == "false"
    assert "ε = 0.003" in tab.inner_text(".scale-label")
    for (limits, low, high, z, loss), was in zip(tab.evaluate(shown), linear, strict=True):
        assert (
            limits == [low, high] == pytest.approx([np.log10(0.003), np.log10(2.4 + 0.4 + 0.003)], abs=1e-3)
        )
        assert (loss, was[3]) == (was[4], was[4])
        assert z == pytest.approx(np.log10(loss + 0.4 + 0.003))
    np.testing.assert_allclose(tab.evaluate(EYES), before, atol=1e-6)
    tab.click("button[data-scale=linear]")
    settled(
        tab,
        "[...document.querySelectorAll('.plot')].every(p => p._fullLayout.scene.zaxis.title.text == 'loss')",
    )
    assert tab.evaluate(shown) == linear
    assert page.said == []


@pytest.mark.browser
def test_hovering_reads_the_numbers_off(tmp_path, page):
    tab = opened(page, save_html(interactive_figure({"a": plane(grid=9, center=0.25)}), tmp_path / "s.html"))
    tab.evaluate("document.querySelector('.plot').on('plotly_hover', e => { window.seen = e.points[0] })")
    box = tab.locator(".plot").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6)
    settled(tab, "window.seen !== undefined")
    x, y, z, (loss, rise) = tab.evaluate("[seen.x, seen.y, seen.z, [...seen.customdata]]")
    assert (loss, rise) == pytest.approx((z, z - 0.25))
    assert z == pytest.approx(x**2 + 0.2 * y)
    text = tab.locator(".hovertext").first.text_content()
    assert all(word in text for word in ("α", "β", "loss", "rise"))
    assert page.said == []


@pytest.mark.browser
@pytest.mark.parametrize("count", [1, 6])
def test_every_scene_is_drawn_on_a_phone_and_in_the_dark(tmp_path, page, count):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    names = [f"{LONG}_{number}" for number in range(count)]
    tab = opened(page, render(folder_of(tmp_path, names, users=3, test=METRICS, valid=METRICS)))
    assert tab.locator(".plot canvas").count() == count
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    places = [tab.locator(".panel").nth(i).bounding_box() for i in range(count)]
    assert all(a["y"] + a["height"] <= b["y"] for a, b in pairwise(places))
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert int(ink[4:].split(",")[0]) > 200
    assert tab.evaluate("document.querySelector('.plot')._fullLayout.font.color") == "#e6e6e6"
    assert (
        tab.evaluate("getComputedStyle(document.querySelector('img')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert page.said == []


@pytest.mark.browser
def test_nothing_overlaps_or_is_clipped_at_1200_pixels(tmp_path, page):
    names = [f"{LONG}_{number}" for number in range(3)]
    tab = opened(page, render(folder_of(tmp_path, names, users=3, test=METRICS, valid=METRICS)))
    assert tab.evaluate("[...document.querySelectorAll('.wide')].every(w => w.scrollWidth <= w.clientWidth)")
    titles = [tab.locator("h3").nth(i).bounding_box() for i in range(3)]
    assert len({box["y"] for box in titles}) == 1
    assert all(a["x"] + a["width"] <= b["x"] for a, b in pairwise(titles))


@pytest.mark.browser
def test_in_print_pictures_stand_in_for_what_can_be_turned(tmp_path, page):
    tab = opened(page, render(folder_of(tmp_path, ["a", "b"])))
    tab.emulate_media(media="print", color_scheme="dark")
    assert not tab.locator("#slices").is_visible()
    assert tab.get_by_alt_text("Loss surfaces side by side").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(26, 26, 26)"
    assert tab.evaluate(
        "[...document.querySelectorAll('.wide')].every(w => getComputedStyle(w).overflowX === 'visible')"
    )


@pytest.mark.browser
def test_lines_have_the_switch_too(tmp_path, page):
    tab = opened(
        page, save_html(interactive_figure({"<b>a</b>": line(), "b": line(2.0)}), tmp_path / "l.html")
    )
    top = "Math.max(...document.querySelector('.plot')._fullData[1].y)"
    assert tab.evaluate(top) == 2.0
    tab.click("button[data-scale=log]")
    settled(tab, f"{top} < 1")
    assert tab.evaluate(top) == pytest.approx(np.log10(2.002))
    assert page.said == []


@pytest.mark.browser
def test_the_report_opens_in_a_browser(folder, page):
    page.goto(render(folder).as_uri())
    page.wait_for_selector("#slices .gl-container canvas", state="attached")
    assert page.title() == HOSTILE
    assert page.locator("img").evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 100)")
    assert page.locator("table").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.said == []


@pytest.mark.browser
def test_an_interactive_surface_opens_in_a_browser(tmp_path, page):
    slices = {"<b>a</b>": plane(), "b": plane(2.0)}
    page.goto(save_html(interactive_figure(slices), tmp_path / "surface.html").as_uri())
    page.wait_for_selector(".gl-container canvas", state="attached")
    assert page.get_by_text("<b>a</b>").count() == 1
    assert page.said == []

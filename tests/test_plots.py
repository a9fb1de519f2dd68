import json
import re
import shutil

import numpy as np
import pytest

from landscape import InputError, Slice
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.trace import Trace
from landscape.flatness.measures import MEASURES, Sharpness
from landscape.plots.curves import eigenvalue_figure, training_figure
from landscape.plots.interactive import interactive_figure, save_html
from landscape.plots.report import Compared, Comparison, render, result_path
from landscape.plots.style import save_figure
from landscape.plots.surfaces import surface_figure

HOSTILE = "<script>alert('x')</script>{{ 7 * 7 }}"
COMMON = {
    "settings": {"theta_norm": 2.0, "matrix": "hessian", "tol": 1e-3},
    "provenance": {"data": HOSTILE},
    "seconds": 0.1,
}


def shown(losses, *coordinates, **changes):
    """A plain grid, or what `changes` make of it."""
    known = {
        "coordinates": coordinates,
        "losses": losses,
        "nodes": coordinates,
        "samples": losses,
        "certificate": None,
        "deviations": np.empty((0, 0)),
        "marks": [],
        "trajectory": np.empty((0, len(coordinates))),
        "center": 0.0,
        "directions": [{"kind": "random", "norm": 1.0}] * len(coordinates),
        "cosine": 0.01 if len(coordinates) == 2 else None,
        "evaluations": losses.size,
    }
    return Slice(**known | COMMON | changes)


def plane(height=1.0, grid=5, **changes):
    axis = np.linspace(-1, 1, grid)
    return shown(height * (axis[:, None] ** 2 + 0.2 * axis[None, :]), axis, axis, **changes)


def line(height=1.0, **changes):
    axis = np.linspace(-1, 1, 5)
    return shown(height * axis**2, axis, **changes)


def hessian(smallest=-0.5):
    return Eigenpairs(
        eigenvalues=np.array([3.0, 2.0]),
        eigenvectors=np.eye(2),
        residuals=np.array([1e-4, 0.5]),
        converged=[True, False],
        bottom=np.array([] if smallest is None else [smallest]),
        bottom_vectors=np.ones((int(smallest is not None), 2)),
        bottom_residuals=np.full(int(smallest is not None), 1e-4),
        products=9,
        gradient_norm=0.3,
        **COMMON,
    )


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


def panels(figure):
    return [axes for axes in figure.axes if axes.get_xlabel().startswith("step along")]


def test_planes_share_levels_colours_and_axes():
    """A flat plane beside a steep one must look flat."""
    figure = surface_figure({"flat": plane(0.1), "steep": plane(10.0)})
    flat, steep = (next(c for c in axes.collections if c.filled) for axes in panels(figure))
    np.testing.assert_array_equal(flat.levels, steep.levels)
    assert flat.get_clim() == steep.get_clim()
    assert len({axes.get_xlim() for axes in panels(figure)}) == 1


def test_a_plane_is_drawn_with_x_to_the_right():
    result = plane()  # steep along x (axis 0), gentle along y
    figure = interactive_figure({"a": result})
    (surface,) = figure.data
    assert surface.z[2][4] == result.losses[4, 2]  # plotly: z[row of y][column of x]
    assert np.ptp(surface.z[2]) > np.ptp([row[2] for row in surface.z])


def test_interactive_planes_share_their_scale():
    figure = interactive_figure({"flat": plane(0.1), "steep": plane(10.0)})
    ranges = [tuple(figure.layout[scene].zaxis.range) for scene in ("scene", "scene2")]
    assert ranges[0] == ranges[1]
    assert {figure.layout[scene].aspectmode for scene in ("scene", "scene2")} == {"cube"}
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == ranges[0]


def test_a_point_without_a_loss_is_drawn_as_missing():
    bent = plane()
    bent.losses[0, 0] = np.nan
    bent.losses[4, 4] = np.inf
    figure = surface_figure({"bent": bent, "whole": plane()})
    assert all(np.isfinite(c.levels).all() for axes in panels(figure) for c in axes.collections if c.filled)


def test_a_plane_without_any_loss_is_refused():
    empty = plane()
    empty.losses[:] = np.nan
    with pytest.raises(InputError, match="no point of these slices"):
        surface_figure({"empty": empty})


def test_lines_and_planes_do_not_mix():
    with pytest.raises(InputError, match="one dimension"):
        surface_figure({"a": line(), "b": plane()})


def test_a_constant_loss_is_a_picture_too():
    surface_figure({"constant": plane(0.0)})


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_figures_are_equal_files_when_equal(tmp_path, ending):
    a, b = (
        save_figure(surface_figure({"a": line(), "b": line(2)}), tmp_path / f"{n}.{ending}") for n in "ab"
    )
    assert a.read_bytes() == b.read_bytes()
    if ending == "pdf":
        assert b"/Type3" not in a.read_bytes()  # fonts are embedded as TrueType


def test_eigenvalues_that_have_not_converged_are_drawn_open():
    (axes,) = eigenvalue_figure({"a": hessian()}).axes
    faces = [mark.get_markerfacecolor() for mark in axes.lines if mark.get_marker() == "o"]
    assert faces[0] != "white"
    assert faces[1] == "white"


def test_training_curves_leave_out_what_was_not_evaluated():
    log = [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "valid": {"ndcg@10": 0.1}}]
    left, right = training_figure({"a": log}).axes
    assert left.lines[0].get_xdata().tolist() == [1, 2]
    assert right.lines[0].get_xdata().tolist() == [2]


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


@pytest.mark.browser
def test_the_report_opens_in_a_browser(folder, page):
    page.goto(render(folder).as_uri())
    page.wait_for_selector("#interactive-surface .gl-container canvas", state="attached")
    assert page.title() == HOSTILE
    assert page.locator("img").evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 100)")
    assert page.locator("table").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.said == []


@pytest.mark.browser
def test_an_interactive_surface_opens_in_a_browser(tmp_path, page):
    slices = {"<b>a</b>": plane(), "b": plane(2.0)}
    page.goto(save_html(interactive_figure(slices), tmp_path / "surface.html").as_uri())
    page.wait_for_selector(".gl-container canvas", state="attached")
    assert page.get_by_text("<b>a</b>").count() == 1
    assert page.said == []


def test_the_index_reloads(folder):
    text = (folder / "compare.json").read_text()
    assert json.loads(Comparison.model_validate_json(text).model_dump_json()) == json.loads(text)


def test_training_curves_compare_the_recommendation_loss():
    parts = {"recommendation": 0.5, "contrast": 0.25}
    figure = training_figure({"a": [{"epoch": 1, "loss": 0.75, "losses": parts}, {"epoch": 2, "loss": 0.7}]})
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 0.7]

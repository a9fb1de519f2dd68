"""What the page of a comparison says."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from landscape import InputError
from landscape.flatness.comparison import compare
from landscape.flatness.words import summary
from landscape.plots.curves import eigenvalue_figure
from landscape.report.report import (
    Comparison,
    _pictures,
    read_comparison,
    read_index,
    render,
    result_path,
    write_index,
)
from landscape.surface.slice import Certificate
from landscape.tasks import FactRow, Facts, FactTable
from tests.results import (
    COMMON,
    LONG,
    METRICS,
    facts,
    folder_of,
    hessian,
    hostile_folder,
    plane,
    sharpness,
    trace,
)


@pytest.fixture
def folder(tmp_path):
    return hostile_folder(tmp_path)


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
    assert "checkpoint is not a minimum: ‖∇L‖ = 0.3, λmin = -0.5" in text
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
            "a unique name that is not a path",
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
    return next(summary(found[0], found[1], compare(found[2])))


def side_of(quantity, text):
    """Which of the sides a sentence puts a quantity on."""
    (side,) = [part for part in text.partition(": ")[2].split("; ") if quantity in part]
    return re.split(" in | for ", side)[0]


def test_a_difference_within_its_error_is_not_distinguishable():
    assert side_of("trace", said(traces=(trace(7.0), trace(7.0)))) == "no clear difference"
    apart = replace(trace(8.0), samples=np.array([5.0, 8.0, 11.0]))  # by draws of its own
    assert side_of("trace", said(traces=(trace(7.0), apart))) == "no clear difference"
    assert side_of("(SAM)", said(sharp=(sharpness(), sharpness(1.001, noise=0.1)))) == "no clear difference"


def test_a_difference_beyond_its_error_has_a_side():
    assert side_of("trace", said(traces=(trace(7.0), trace(8.0)))) == "higher"  # what probes share falls out
    assert side_of("trace", said(traces=(trace(8.0), trace(7.0)))) == "lower"
    assert side_of("(SAM)", said(sharp=(sharpness(), sharpness(2.0)))) == "higher"
    assert side_of("(ASAM)", said(sharp=(sharpness(2.0), sharpness(1.0)))) == "lower"


def test_eigenvalues_are_told_apart_by_their_residuals():
    near = replace(hessian(), eigenvalues=np.array([3.0005, 2.0]))
    far = replace(hessian(), eigenvalues=np.array([3.1, 2.0]))
    unsettled = replace(far, converged=[False, False])
    assert side_of("λmax", said(spectra=(hessian(), near))) == "no clear difference"
    assert side_of("λmax", said(spectra=(hessian(), far))) == "higher"
    assert side_of("λmax", said(spectra=(far, hessian()))) == "lower"
    assert side_of("λmax", said(spectra=(hessian(), unsettled))) == "no clear difference"


def test_without_any_error_nothing_is_claimed():
    bare = [
        replace(s, measures={"sam": replace(s.measures["sam"], standard_error=None)})
        for s in (sharpness(), sharpness(2.0))
    ]
    bare = [replace(s, by_draw=(), by_unit=()) for s in bare]
    assert side_of("(SAM)", said(sharp=bare)) == "no interval"


@pytest.mark.parametrize("ends", [(1.0, np.inf), (np.inf, 1.0), (1.0, np.nan), (np.inf, np.inf)])
def test_a_measure_of_a_diverged_checkpoint_is_not_called_alike(ends):
    spread = np.linspace(-0.1, 0.1, 20)
    diverged = [replace(sharpness(), by_draw=(end + spread,) * 2) for end in ends]
    for one, end in zip(diverged, ends, strict=True):
        error = 0.01 if np.isfinite(end) else np.nan
        one.measures.update({k: replace(m, value=end, standard_error=error) for k, m in one.measures.items()})
    assert side_of("(SAM)", said(sharp=diverged)) == "no interval"


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_a_difference_of_losses_is_beyond_students_t_of_its_errors(count):
    """Two standard errors of three batches cover 82%."""
    noise = np.random.default_rng(0).normal(size=count)
    noise -= noise.mean()
    reach = student.ppf(0.975, count - 1) * noise.std(ddof=1) / count**0.5
    alike = "no clear difference"
    for share, side in ((0.99, alike), (1.01, "higher"), (-0.99, alike), (-1.01, "lower")):
        for loss in (0.3, -0.3):  # the latter has no ratio
            moved = loss + share * reach
            other = replace(sharpness(), loss=moved, loss_by_unit=moved + noise)
            one = replace(sharpness(), loss=loss, loss_by_unit=np.full(count, loss))
            assert side_of("L(θ)", said(sharp=(one, other))) == side


def test_norms_that_differ_by_rounding_are_alike():
    """As those of weights whose hidden units stand in another order."""
    near, far = (replace(sharpness(), weight_norm=2.0 * (1 + apart)) for apart in (1e-15, 1e-5))
    assert side_of("‖θ‖", said(sharp=(sharpness(), near))) == "no clear difference"
    assert side_of("‖θ‖", said(sharp=(sharpness(), far))) == "higher"
    assert side_of("‖θ‖", said(sharp=(far, sharpness()))) == "lower"


def test_the_trace_is_said_as_the_table_below_shows_it():
    """Its error over users is in the table's interval, and not in that of the probes."""
    both = [sharpness(measures=("sam", "trace")), sharpness(1.001, 0.1, measures=("sam", "trace"))]
    text = said(traces=(trace(7.0), trace(8.0)), sharp=both)
    assert side_of("trace", text) == "no clear difference"
    assert text.count("trace") == 1


def test_one_checkpoint_is_against_none(tmp_path):
    text = render(folder_of(tmp_path, ["alone"])).read_text("utf-8")
    assert "against" not in text.partition("<h2>Loss surface")[0].partition("<body>")[2]
    assert "alone: L(θ) 0.300" in text


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.filterwarnings("error")
def test_any_number_of_long_names_up_to_six(tmp_path, count):
    names = [f"{LONG}_{number}" for number in range(count)]
    text = render(folder_of(tmp_path, names, facts=facts())).read_text("utf-8")
    assert text.count('<figure class="panel">') == count
    assert all(f"<h3>{name}</h3>" in text for name in names)


@pytest.mark.parametrize("count", [2, 4, 6])
def test_lines_have_one_legend_that_stays_in_the_picture(tmp_path, count):
    folder = folder_of(tmp_path, [LONG + str(number) for number in range(count)])
    figure = _pictures(*read_comparison(folder))["lines"]
    figure.draw_without_rendering()
    (legend,) = filter(None, [figure.axes[0].get_legend(), *figure.legends])
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == count
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert figure.axes[0].get_window_extent().height > 0.25 * figure.bbox.height


def test_plotly_is_embedded_once(tmp_path):
    from plotly.offline import get_plotlyjs

    text = render(folder_of(tmp_path, ["a", "b"])).read_text("utf-8")
    assert text.count(get_plotlyjs()[:2000]) == 1


def test_a_density_is_shown_where_there_is_one(tmp_path):
    assert 'id="spectrum"' in render(folder_of(tmp_path / "new", ["a", "b"])).read_text("utf-8")
    assert 'id="spectrum"' not in render(folder_of(tmp_path / "old", ["a", "b"], False)).read_text("utf-8")


def test_a_table_has_intervals_where_they_are_known(tmp_path):
    without = render(folder_of(tmp_path / "without", ["a"], facts=facts(users=1234))).read_text("utf-8")
    with_them = render(folder_of(tmp_path / "with", ["a"], facts=facts(0.2, 0.3))).read_text("utf-8")
    assert "[0.2000, 0.3000]" not in without
    assert with_them.count("[0.2000, 0.3000]") == 2 * len(METRICS)
    assert "test, 1,234 users" in without


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.1, "0.1000"),
        (0.0, "0.0000"),
        (3.2e-5, "3.20e-5"),
        (-3.2e-5, "-3.20e-5"),
        (12.0, "12.0000"),
        (3e7, "3.00e7"),
    ],
)
def test_a_fact_that_is_not_nought_is_not_shown_as_nought(value, said, tmp_path):
    own = Facts((FactTable("Size", ("weights",), (FactRow("all", (value,)),)),))
    folder = folder_of(tmp_path, ["a"])
    write_index(read_index(folder).model_copy(update={"facts": own}), folder)
    table = render(folder).read_text("utf-8").partition(">Size</h2>")[2].partition("</table>")[0]
    assert f"<td>{said}</td>" in table


def test_tables_of_one_title_are_one_table_and_what_is_unknown_is_a_dash(tmp_path):
    folder = folder_of(tmp_path, ["a", "b"], facts=facts(note="By ranking."))
    ideal = FactTable("Ranking", ("hr@10", "beyond"), (FactRow("ideal", (0.9, None)),))
    other = FactTable("Size", ("weights",), (FactRow("all", (12.0,)),))
    write_index(read_index(folder).model_copy(update={"facts": Facts((ideal, other))}), folder)
    text = render(folder).read_text("utf-8")
    assert [text.count(f">{title}</h2>") for title in ("Ranking", "Size")] == [1, 1]
    assert text.count("By ranking.") == 1
    table = text.partition(">Ranking</h2>")[2].partition("</table>")[0]
    assert table.count("<tr>") == 1 + 2 * 2 + 1
    assert table.partition("ideal")[2].count("–") == len(METRICS)
    assert table.count("–") == len(METRICS) + 4  # nobody but the ideal ranker has the last column


def test_without_facts_there_is_no_room_for_them(tmp_path):
    text = render(folder_of(tmp_path, ["a"])).read_text("utf-8")
    assert "<h2>Curves" not in text
    assert "<h2>Ranking" not in text


def test_an_index_of_another_version_says_what_to_do(tmp_path):
    folder = folder_of(tmp_path, ["a"])
    index = json.loads((folder / "compare.json").read_text())
    for changed in (
        index | {"ideal_hr10": None},
        index | {"checkpoints": [index["checkpoints"][0] | {"test": {"hr@10": 0.1}}]},
    ):
        (folder / "compare.json").write_text(json.dumps(changed))
        with pytest.raises(
            InputError, match=r"of another version of landscape .* run landscape compare again"
        ):
            render(folder)


@pytest.mark.parametrize(
    "damaged",
    [
        {"tables": [{"title": "t", "columns": ["a", "b"], "rows": [{"name": "r", "values": [1.0]}]}]},
        {"curves": [{"title": "t", "over": "x", "x": [1.0, 2.0], "y": [1.0]}]},
        {"curves": [{"title": "t", "over": "x", "x": [1e300], "y": [1.0]}]},
    ],
)
def test_facts_that_do_not_fit_are_refused(tmp_path, damaged):
    folder = folder_of(tmp_path, ["a"])
    index = json.loads((folder / "compare.json").read_text())
    index["checkpoints"][0]["facts"] = damaged
    (folder / "compare.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="not readable"):
        render(folder)


def test_an_interval_that_is_not_finite_is_not_known(tmp_path):
    row = FactRow("test", (0.5, 0.5, math.nan), ((0.4, 0.6), (math.nan, 0.6), (0.4, math.inf)))
    assert row.intervals == ((0.4, 0.6), None, None)
    folder = folder_of(tmp_path, ["a"], facts=Facts((FactTable("t", ("x", "y", "z"), (row,)),)))
    assert "[0.4000, 0.6000]" in render(folder).read_text("utf-8")


@pytest.mark.parametrize("certified", [0, 1, 2])
def test_how_a_surface_was_checked_is_explained_where_one_was(certified, tmp_path):
    folder = folder_of(tmp_path, ["a", "b"])
    known = Certificate(True, 1e-2, 1e-3, 1e-3, 60, 1, 0.06, 1e-3, None, None, None, 1)
    settings = COMMON["settings"] | {"split": 1}
    for name in ["a", "b"][:certified]:
        plane(certificate=known, settings=settings).save(result_path(folder, name, "plane"))
    assert ("The surface is a polynomial" in render(folder).read_text("utf-8")) == bool(certified)


def test_what_was_measured_stands_in_the_page(tmp_path):
    folder = folder_of(tmp_path, ["a", "b"])
    for name, weights in (("a", "aaaa"), ("b", "bbbb")):
        told = {"data_sha256": "dddd", "checkpoint_sha256": weights, "torch": "9.9"}
        replace(hessian(), provenance=told).save(result_path(folder, name, "hessian"))
    text = render(folder).read_text("utf-8").partition(">What was measured</h2>")[2]
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


def test_a_damaged_density_is_said(tmp_path):
    folder = folder_of(tmp_path, ["a"])
    result_path(folder, "a", "density").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a readable result"):
        render(folder)

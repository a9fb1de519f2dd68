"""Checkpoints side by side: what compares, what is said of it, and where it is written."""

import csv
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from landscape import InputError
from landscape.flatness.comparison import Contrast, compare
from landscape.flatness.notation import LATEX, PLAIN
from landscape.flatness.tables import entries, to_csv, to_json, to_latex
from landscape.flatness.words import LEGEND, notes, verdict
from landscape.plots.tables import of_comparison
from tests.landscape.flatness.test_contrast import correlated
from tests.results import PROVENANCE, SETTINGS, measured, standard_error


def test_the_first_is_the_reference_and_what_does_not_apply_is_missing():
    found = compare(
        {"a": measured({"sam": 2.0}), "b": measured({"sam": 1.0, "trace": 3.0}), "c": measured({})}
    )
    assert [(row.measure, row.values) for row in found.rows] == [
        ("loss", (0.2, 0.2, 0.2)),
        ("weight_norm", (10.0, 10.0, 10.0)),
        ("sam", (2.0, 1.0, None)),
        ("trace", (None, 3.0, None)),
    ]
    assert found.rows[2].contrasts == (Contrast(-1.0, None, 0.5), None)
    assert found.rows[3].contrasts == (None, None)
    head, rows = PLAIN.table(found)
    assert head == ["", "a", "b", "c", "b / a", "c / a"]
    assert rows[3] == ["trace", "–", "3.00", "–", "", ""]


@pytest.mark.parametrize(
    ("settings", "provenance", "message"),
    [
        ({"rho": 0.2}, {}, "a was measured with rho 0.1 and b with 0.2; measure both alike"),
        ({"seed": 1}, {}, "seed 0 and b with 1"),
        ({"probes": 3}, {}, "probes None and b with 3"),
        ({}, {"data_sha256": "cd"}, "data_sha256 'ab' and b with 'cd'"),
        ({}, {"users": "41"}, "users '40' and b with '41'"),
        ({}, {"objective_seed": "1"}, "objective_seed"),
        ({}, {"exclude": "item*"}, "exclude"),
        ({}, {"metric": "valid-loss"}, "metric"),
        ({}, {"group": "norm"}, "group None and b with 'norm'"),
        ({}, {"include": "0.bias"}, "include"),
        ({}, {"statistics": "recomputed"}, "statistics None and b with 'recomputed'"),
        ({}, {"batches_sha256": "ef"}, "a and b have different batches (other users"),
    ],
)
def test_what_was_measured_otherwise_does_not_compare(settings, provenance, message):
    other = measured({"sam": 1.0}, settings=SETTINGS | settings, provenance=PROVENANCE | provenance)
    with pytest.raises(InputError, match=re.escape(message)):
        compare({"a": measured({"sam": 1.0}), "b": other})


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda one: compare([one]), "by name"),
        (lambda one: compare(one, one), "by name"),
        (lambda one: compare({"a": 1}), "not int"),
        (lambda one: compare({"a": one}, {"a": one}), "by name and group"),
        (lambda one: compare({"a": one}, {"a": {"norm": 1}}), "not int"),
        (verdict, "not Sharpness"),
    ],
)
def test_what_is_no_sharpness_does_not_compare(ask, message):
    with pytest.raises(InputError, match=message):
        ask(measured({"sam": 1.0}))


def test_nothing_does_not_compare():
    with pytest.raises(InputError, match="nothing to compare"):
        compare({})


def close(value, seed=0, n=40):
    """Pseudo-values of one mean, to a thousandth of it."""
    noise = np.random.default_rng(seed).standard_normal(n)
    return value * (1 + 1e-3 * (noise - noise.mean()))


@pytest.fixture
def pair():
    """Every kind of outcome once, and names that TeX would trip over."""
    wide = np.linspace(0, 2, 40)
    first = {
        "asam": close(1.0),
        "average-adaptive": close(1.0),
        "fisher-rao": close(1.0),
        "sam": close(1.0),
        "trace": close(1.0),
        "worst": wide,
        "lambda-max": 2.0,
        "lpf": -1.0,
    }
    second = {
        "asam": close(0.9, 1),
        "average-adaptive": close(0.8, 1),
        "fisher-rao": close(1.1, 1),
        "sam": close(1.2, 1),
        "trace": close(0.5, 1),
        "worst": wide[::-1].copy(),
        "lambda-max": 1.9,
        "lpf": 1.0,
    }
    return {"a_1": measured(first), "50% & {b}": measured(second, loss=0.3, norm=9.0)}


def test_the_verdict_tells_what_a_rescaling_could_do_from_what_it_could_not(pair):
    said, scope = verdict(compare({"a": pair["a_1"], "b": pair["50% & {b}"]}))
    numbers = r" [\d.]+× \[-?[\d.]+, [\d.]+\]"
    assert re.fullmatch(
        f"b against a: lower in asam{numbers} and average-adaptive{numbers}, and "
        f"higher in fisher-rao{numbers}, whatever the scale of the weights; "
        f"lower in trace{numbers}, and higher in sam{numbers}, "
        "which the scale of the weights alone can change; "
        "no clear difference in worst; no interval for lambda-max; no ratio for lpf\\.",
        said,
    )
    assert "asam 0.9000× [0.899" in said
    assert scope == (
        "Each of the 6 intervals holds with 95% by itself, over the draws and, where the measure allows it, "
        "over the users or examples. None of these intervals covers retraining with another seed."
    )


def test_a_verdict_claims_no_interval_that_there_is_not():
    alone = compare({"a": measured({"sam": 1.0})})
    assert verdict(alone) == ()
    exact = compare({"a": measured({"sam": 1.0}), "b": measured({"sam": 2.0})})
    assert verdict(exact) == ("b against a: no interval for sam.",)
    assert notes(exact) == verdict(exact)  # nothing bears the mark


def test_a_difference_in_place_of_a_ratio_is_said_to_be_one(tmp_path):
    """Beside it stand 95% intervals; the ± after a difference is its standard error."""
    alone, other = (measured({"sam": close(value)}) for value in (1.0, 0.8))
    two = compare({"a": alone, "b": other})
    for found, told in ((two, True), (compare({"a": alone}), False)):
        assert any(table.title == LEGEND for table in of_comparison(found)) == told
        assert (LEGEND in to_latex(found, tmp_path / "a.tex").read_text("utf-8")) == told


def test_groups_stand_below_their_measure(pair):
    one, other = pair.values()
    groups = {"a": {"embedding": one, "norm": one}, "b": {"embedding": other}}
    found = compare({"a": one, "b": other}, groups)
    rows = [row for row in found.rows if row.measure == "sam"]
    assert [row.group for row in rows] == [None, "embedding", "norm"]
    assert rows[1].contrasts == rows[0].contrasts
    assert rows[2].values == (1.0, None)
    assert [row.group for row in found.rows if row.measure == "loss"] == [None]
    assert verdict(found) == verdict(compare({"a": one, "b": other}))
    assert "  embedding" in [row[0] for row in PLAIN.table(found)[1]]


def test_groups_of_other_settings_do_not_compare():
    one, other = measured({"sam": 1.0}), measured({"sam": 1.0}, settings={"rho": 1.0})
    with pytest.raises(InputError, match="rho"):
        compare({"a": one, "b": one}, {"a": {"norm": one}, "b": {"norm": other}})


def test_values_side_by_side_have_one_power_of_ten():
    x, y = (close(value) for value in (1e-4, 8e-5))
    assert PLAIN.table(compare({"a": measured({"sam": x}), "b": measured({"sam": y})}))[1][2] == [
        "sam",
        "(1.0000 ± 0.0001)e-4",
        "(0.8000 ± 0.0001)e-4",
        "0.800× [0.800, 0.800]",
    ]


def test_settings_that_no_measure_uses_are_not_named():
    settings = {"rho": 0.1, "sigma": 0.01, "norm": 2}
    assert compare({"a": measured({"sam": 1.0}, settings=settings)}).settings == {"rho": 0.1, "norm": 2}


def test_the_loss_has_a_paired_difference():
    x, y = correlated(0)
    one, other = measured({}, loss=x.mean()), measured({}, loss=y.mean())
    (loss, _) = compare({"a": replace(one, loss_by_unit=x), "b": replace(other, loss_by_unit=y)}).rows
    assert loss.errors == pytest.approx((standard_error(x), standard_error(y)))
    assert loss.contrasts[0].difference == pytest.approx((y - x).mean())
    assert loss.contrasts[0].standard_error == pytest.approx(standard_error(y - x))
    assert compare({"a": one, "b": other}).rows[0].contrasts[0].standard_error is None


def test_json_holds_every_digit_and_no_nan(pair, tmp_path):
    a, b = pair.values()
    found = compare({"a": a, "b": measured({"sam": math.nan})})
    content = json.loads(
        to_json(found, tmp_path / "new" / "t.json").read_text("utf-8"), parse_constant=pytest.fail
    )
    assert content == entries(found)
    assert content["reference"] == "a"
    sam = next(row for row in content["rows"] if row["measure"] == "sam")
    of, known = a.measures["sam"], {"converged": True, "resolved": True}
    assert sam["checkpoints"]["a"] == {"value": of.value, "se": of.standard_error, **known}
    assert sam["checkpoints"]["b"]["value"] is None
    assert entries(compare({"a": a, "b": b}))["verdict"][0].startswith("b against a: lower in asam")


def test_csv_has_a_line_for_each_number(pair, tmp_path):
    found = compare(pair)
    with to_csv(found, tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found.rows) * 2
    (asam,) = (line for line in lines if line["measure"] == "asam" and line["checkpoint"] == "50% & {b}")
    (row,) = (row for row in found.rows if row.measure == "asam")
    assert (float(asam["value"]), asam["converged"]) == (row.values[1], "True")
    assert [float(asam[key]) for key in ("ratio", "low", "high")] == [
        row.contrasts[0].ratio,
        row.contrasts[0].low,
        row.contrasts[0].high,
    ]
    assert (asam["group"], asam["invariant"]) == ("", "True")


def test_latex_is_a_booktabs_table_whatever_the_names(pair, tmp_path):
    text = to_latex(
        compare(pair, {name: {"norm_": r} for name, r in pair.items()}), tmp_path / "t.tex"
    ).read_text("utf-8")
    lines = text.splitlines()
    comments = [line for line in lines if line.startswith("%")]
    assert comments[0].startswith("% rho 0.1, seed 0, data_sha256 ab, users 40")
    body = lines[len(comments) :]
    assert body[:2] == [r"\begin{tabular}{lrrr}", r"\toprule"]
    assert body[2] == r" & a\_1 & 50\% \& \{b\} & 50\% \& \{b\} / a\_1 \\"
    assert body[3] == r"\midrule"
    assert body[-2:] == [r"\bottomrule", r"\end{tabular}"]
    for line in body[4:-2]:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 3
        assert line.isascii()
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert not re.search(r"(?<!\\)[%#]", line)
    assert any(line.startswith(r"\quad norm\_ & ") for line in body)
    assert any(line.startswith(r"asam$^{*}$ & 1.000") for line in body)


@pytest.mark.parametrize("name", ["a\\b", "~^", "<a|b>", "50%", "#1", "two\nlines", "x_$&{}"])
def test_names_are_shown_as_they_are(name):
    escaped = LATEX.escaped(name)
    assert "\n" not in escaped
    bare = re.sub(r"\\text(asciitilde|asciicircum|backslash|less|greater|bar)\{\}|\\[&%$#_{}]", "", escaped)
    assert not re.search(r"[&%$#_{}~^<>|\\]", bare)


@pytest.mark.parametrize("write", [to_json, to_csv, to_latex])
def test_a_table_is_whole_or_not_there(write, pair, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(compare(pair), tmp_path / "file" / "t")
    assert write(compare(pair), tmp_path / "t") == tmp_path / "t"
    assert {p.name for p in tmp_path.iterdir()} == {"file", "t"}

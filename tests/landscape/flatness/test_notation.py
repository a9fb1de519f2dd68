"""Numbers as text, with as many digits as their errors leave them."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from landscape.flatness.comparison import compare
from landscape.flatness.notation import LATEX, PLAIN
from landscape.flatness.tables import to_csv
from landscape.flatness.words import notes, verdict
from tests.results import measured

DRAWS = np.linspace(-0.01, 0.01, 9)


@pytest.mark.parametrize(
    ("value", "error", "plain", "latex"),
    [
        (0.16109, 0.0057, "0.161 ± 0.006", r"0.161\,$\pm$\,0.006"),
        (179.06, None, "179", "179"),
        (36.62, 0.31, "36.6 ± 0.3", r"36.6\,$\pm$\,0.3"),
        (179.06, 0.31, "179.1 ± 0.3", r"179.1\,$\pm$\,0.3"),
        (0.002, 0.3, "0.00 ± 0.30", r"0.00\,$\pm$\,0.30"),
        (9.3e-5, 3.1e-6, "(9.30 ± 0.31)e-5", r"(9.30\,$\pm$\,0.31)\,$\times$\,10$^{-5}$"),
        (1.234e7, None, "1.23e7", r"1.23\,$\times$\,10$^{7}$"),
        (-0.042, None, "-0.0420", "$-$0.0420"),
        (9.996, None, "10.0", "10.0"),
        (-1e-9, 0.5, "0.00 ± 0.50", r"0.00\,$\pm$\,0.50"),
        (0.0, 0.0, "0.00 ± 0.00", r"0.00\,$\pm$\,0.00"),
        (2.2360679775, 2e-16, "2.24 ± 0.00", r"2.24\,$\pm$\,0.00"),
        (math.inf, None, "inf", "inf"),
        (None, None, "–", "--"),
    ],
)
def test_numbers_have_three_digits_or_what_their_error_asks_for(value, error, plain, latex):
    assert PLAIN.number(value, error) == plain
    assert LATEX.number(value, error) == latex


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_rise_that_is_rounding_is_marked_and_never_lower_or_higher(which, tmp_path):
    results = {"a": measured({"sam": 2 + DRAWS}), "b": measured({"sam": 1 + DRAWS})}
    rounded = results[which]
    row = replace(rounded.measures["sam"], settings={"resolved": False})
    found = compare(results | {which: replace(rounded, measures={"sam": row})})
    head, rows = PLAIN.table(found)
    (sam,) = (dict(zip(head, row, strict=True)) for row in rows if row[0] == "sam")
    assert [name for name in "ab" if sam[name].endswith(" (rounding)")] == [which]
    assert f"The {which} checkpoint: rounding of the loss alone can give sam; " in " ".join(notes(found))
    assert verdict(found)[0] == "b against a: no interval for sam."
    with to_csv(found, tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        cells = {of["checkpoint"]: of for of in csv.DictReader(file) if of["measure"] == "sam"}
    assert {name: cell["resolved"] for name, cell in cells.items()} == {
        name: str(name != which) for name in "ab"
    }

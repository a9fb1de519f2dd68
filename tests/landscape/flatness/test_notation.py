"""Numbers as text, with as many digits as their errors leave them."""

import math

import pytest

from landscape.flatness.notation import LATEX, PLAIN


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

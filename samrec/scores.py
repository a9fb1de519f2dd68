"""Scores whose order no rounding decides: equal items score the same, wherever and beside whatever."""

import math

from torch import Tensor

from landscape.errors import InputError

DIGITS = 53
"""Binary digits of a float64."""


def summands(rows: Tensor) -> Tensor:
    """Round each row to so few digits that its dot product with another such row is exact in float64.

    A matrix product adds up in an order that depends on shapes, columns, threads and the device, so that two
    equal items get different scores where the sums are rounded. Here they are not: with b binary digits
    below the largest number of a row, each of d products has 2b, their sum at most 2b + log2 d, and 53 are
    there. For d = 64, b is 23, about as many as float32 has.

    Args:
        rows: numbers of any real type, shape (…, d).

    Returns:
        float64, shape (…, d). What is not finite makes its row NaN.
    """
    exact = rows.double()
    digits = (DIGITS - math.ceil(math.log2(max(exact.shape[-1], 1)))) // 2
    # Adding a number this large leaves no place for more digits: the sum is rounded to its own last one.
    large = exact.abs().amax(-1, keepdim=True) * 2.0 ** (DIGITS - digits)
    return (exact + large).sub_(large)


def need_finite(finite: bool) -> None:
    """Refuse scores that are not finite: a NaN would compare as the best rank of all.

    Raises:
        InputError: they are not.
    """
    if not finite:
        raise InputError("the model's scores are not finite; its weights diverged in training")

"""Numbers as text that claims no more than is known: bounds that hold, and marks of what is not certain."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

WIDE = Context(prec=800)  # digits, enough for any float written out
UNSURE = " (not converged)"
"""What stands after a number that its method has not arrived at."""
ZERO = " (zero to rounding)"
"""What stands after a number that is no larger than the rounding of what it is made of."""
LOST = " (rounding)"
"""What stands after a difference of losses that is no larger than what the losses round off."""


def at_most(value: float, digits: int = 2) -> str:
    """Write a number that bounds another from above: rounded up, so that what is written bounds it too."""
    return _rounded(value, digits, ROUND_CEILING)


def at_least(value: float, digits: int = 2) -> str:
    """Write a number that bounds another from below: rounded down."""
    return _rounded(value, digits, ROUND_FLOOR)


def between(low: float, high: float, decimals: int) -> tuple[str, str]:
    """Write the ends of an interval with some digits after the point, so that what is written contains it.

    What is beyond their twelfth digit is rounding of the arithmetic, and not of the interval.
    """
    step = Decimal(1).scaleb(-decimals)

    def written(value: float, towards: str) -> str:
        if not math.isfinite(value):
            return f"{value:g}"
        return f"{Decimal(f'{value:.12g}').quantize(step, towards, WIDE):zf}"

    return written(low, ROUND_FLOOR), written(high, ROUND_CEILING)


def _rounded(value: float, digits: int, towards: str) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    return f"{float(Context(digits, towards).create_decimal(Decimal(value))):.{digits}g}"

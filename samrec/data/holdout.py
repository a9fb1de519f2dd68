"""Which items are held out for validation and the test: what `--split` may say. Imports nothing heavy."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LEAVE_ONE_OUT = "leave-one-out"
Moment = datetime | int | float
FORMS = "leave-one-out, time:DATE, time:DATE,DATE or ratio:TRAIN,VALID,TEST"


@dataclass(frozen=True)
class Holdout:
    """A way to split, as `samrec.data.split.split_by` carries it out.

    Attributes:
        kind: its name.
        moments: for `time`, the one or two moments that cut; a date is in UTC, a number in the units of the
            time column.
        shares: for `ratio`, the shares of validation and test.
    """

    kind: Literal["leave-one-out", "time", "ratio"]
    moments: tuple[Moment, ...] = ()
    shares: tuple[float, ...] = ()


def parsed(split: str) -> Holdout:
    """Read a setting such as `time:2014-01-01` or `ratio:.8,.1,.1`.

    Raises:
        ValueError: it is none of `FORMS`, with the reason.
    """
    kind, _, given = split.partition(":")
    if split == LEAVE_ONE_OUT:
        return Holdout("leave-one-out")
    if kind == "time" and given:
        moments = tuple(map(_moment, given.split(",")))
        if len(moments) > 2:
            raise ValueError(f"time takes one date or two, not {len(moments)}")
        if len({isinstance(moment, datetime) for moment in moments}) > 1:
            raise ValueError("time takes two dates or two numbers, not one of each")
        if len(moments) == 2 and not moments[0] < moments[1]:  # type: ignore[operator] # of one kind
            raise ValueError("the first of the two dates of time must be before the second")
        return Holdout("time", moments)
    if kind == "ratio" and given:
        return Holdout("ratio", shares=_shares(given))
    raise ValueError(f"must be {FORMS}, not {split!r:.80}")


def _moment(text: str) -> Moment:
    """Read an ISO date, or the number that a column of numbers has instead."""
    text = text.strip()
    for number in (int, float):
        try:
            moment = number(text) if "_" not in text else math.nan
        except ValueError:
            continue
        if math.isfinite(moment):
            return moment
    try:
        date = datetime.fromisoformat(text if re.match(r"\d{4}-\d\d-\d\d", text) else "")
    except ValueError:
        raise ValueError(
            f"{text!r:.40} is not a date such as 2014-01-01 or 2014-01-01T12:00, nor a number"
        ) from None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def _shares(text: str) -> tuple[float, ...]:
    try:
        train, valid, test = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"ratio takes three shares, such as ratio:.8,.1,.1, not {text!r:.40}") from None
    if not (min(train, valid, test) > 0 and abs(train + valid + test - 1) < 1e-6):
        raise ValueError(f"the shares of ratio must be above 0 and sum to 1; they are {text!r:.40}")
    return valid, test

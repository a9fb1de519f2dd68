"""Turn what a time column holds into numbers that sort: nothing is rounded, and no day taken for a month."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Literal

import polars as pl

from samrec.data.ids import extremes, only, shown_type, stripped

Unit = Literal["us", "ns"]

_DATES = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%m.%d.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%m %d, %Y",
    "%d %m, %Y",
    "%d %B %Y",
    "%d-%B-%Y",
    "%d/%B/%Y",
    "%B %d, %Y",
    "%B %d %Y",
    "%A, %d %B %Y",
    "%A %d %B %Y",
    "%A, %B %d, %Y",
)
_CLOCKS = ("%H:%M:%S", "%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S%p", "%I:%M%p")
_COMPACT_CLOCKS = ("%H%M%S", "%H%M")
_ZONES = ("", "Z", "%#z", " %#z", " UTC", " GMT")
_UNIX = ("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S UTC %Y", "%a %b %d %H:%M:%S %Y")
_SAMPLE = 64
_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_NAME = r"[A-Za-z]{3,9}"
_TWO = r"\d{1,2}"
_SHAPES = {
    **{"%Y": r"\d{4}", "%m": _TWO, "%d": _TWO, "%H": _TWO, "%I": _TWO, "%M": r"\d\d", "%S": r"\d\d"},
    **{"%a": _NAME, "%A": _NAME, "%b": _NAME, "%B": _NAME, "%p": "[AaPp][Mm]", "%.f": r"\.\d+"},
    **{"%z": r"[+-]\d\d:?\d\d", "%#z": r"[+-]\d\d(?::?\d\d)?"},
}
"""What the directives of the patterns stand for."""


class NotATimeError(Exception):
    """A value is there, and is not a time; in which row, if it is one row's fault."""

    def __init__(self, what: str, row: int | None = None) -> None:
        super().__init__(what)
        self.what, self.row = what, row


def times_of(values: pl.Series, time_format: str | None) -> pl.Series:
    """Return times as numbers or dates (UTC) in order of time, null where one is missing or not finite.

    Whole numbers stay whole numbers, of whatever precision; a number with more digits than a float holds
    becomes a decimal. Text is numbers or dates, with or without a clock time: in ISO 8601, or in another form
    in which all values can be read in one way only.

    Args:
        time_format: directives of `strptime`, for text in another form.

    Raises:
        NotATimeError: a value is not a time, with its row; or a day cannot be told from a month.
    """
    kind = values.dtype
    if kind == pl.Null:
        return values.cast(pl.Int64)
    if isinstance(kind, pl.Datetime):
        return values.to_physical().cast(pl.Datetime(kind.time_unit))  # in UTC, whatever its zone
    if kind == pl.Date:
        return values
    if kind == pl.Duration:
        return values.to_physical()
    if kind in (pl.Categorical, pl.Enum, pl.Binary):
        values = values.cast(pl.String)
    if not (values.dtype == pl.String or kind.is_numeric()):
        raise NotATimeError(
            f"the time column holds {shown_type(kind)}, not times; name another with --columns"
        )
    if time_format is not None:
        return _in_format(stripped(values.cast(pl.String)), time_format)
    found = _from_numbers(values) if kind.is_numeric() else _from_text(values)
    if found.dtype.is_numeric():
        _need_one_unit(found)
    return found


def _need_one_unit(times: pl.Series) -> None:
    """Make sure that numbers which can only be times since 1970 have one unit.

    Raises:
        NotATimeError: each is one in seconds, milliseconds, microseconds or nanoseconds, and they differ.
    """
    numbers = times.cast(pl.Float64)
    low, high = 5e8, 4e9  # seconds: 1985 to 2096
    units = {name: numbers.is_between(low * unit, high * unit) for name, unit in _UNITS.items()}
    counts = {name: int(within.sum()) for name, within in units.items() if within.any()}
    known = len(numbers) - numbers.null_count() - int((numbers == 0).sum())  # 0 stands for a missing time
    if len(counts) > 1 and sum(counts.values()) == known:
        rare, *_, most = sorted(counts, key=lambda name: counts[name])
        said = f"a time in {rare} among others in {most}; write all in one unit"
        raise NotATimeError(said, int(units[rare].arg_true()[0]))


def _from_numbers(values: pl.Series) -> pl.Series:
    if values.dtype.is_integer():
        return _whole(values)
    return only(values, values.is_finite()) if values.dtype.is_float() else values


def _from_text(values: pl.Series) -> pl.Series:
    numbers = values.cast(pl.Int64, strict=False)
    if numbers.null_count() == values.null_count():
        return _whole(numbers)
    text = stripped(values)
    found = _numbers(text)
    return _dates(text) if found is None else found


def _numbers(text: pl.Series) -> pl.Series | None:
    """Return numbers without rounding them, null where one is not finite; None if a value is not a number."""
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() == text.null_count():
        return _whole(whole)
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() > text.null_count():
        return None
    finite = numbers.is_finite()
    if _longest(text) > 15:  # more digits than a float is sure to hold
        exact = only(text, finite).cast(pl.Decimal(38, 12), strict=False)
        if len(exact) - exact.null_count() == finite.sum():
            return exact
    return only(numbers, finite)


def _longest(text: pl.Series) -> int:
    """Return the bytes of the longest text."""
    return extremes(text.str.len_bytes())[1]


def _whole(numbers: pl.Series) -> pl.Series:
    """Return whole numbers; dates written as 20100818 among others as 201008181530 at their place in time."""
    least, most = extremes(numbers)
    dated = r"(19|20)\d\d(0[1-9]|1[0-2])[0-3]\d(\d{4}|\d{6})?"
    if len(str(least)) < len(str(most)) and re.fullmatch(dated, str(least)):
        try:
            return _dates(numbers.cast(pl.String))
        except NotATimeError:
            pass
    return numbers


def _in_format(text: pl.Series, time_format: str) -> pl.Series:
    """Read text in the format that was asked for; without a day or a minute in it, the first one."""
    pattern = re.sub(r"(?<!%)\.%f", "%.f", time_format)
    has = set(re.findall(r"%[-_0:#.]?\d?([a-zA-Z+])", pattern))
    if has.isdisjoint("dejDFxcvs+"):
        pattern, text = f"{pattern}|%d", text + "|01"
    if has.isdisjoint("MRTcXrs+") and not has.isdisjoint("HIkl"):
        pattern, text = f"{pattern}|%M", text + "|00"
    unit: Unit = "ns" if "f" in has else "us"
    if (found := _parsed(text, pattern, unit)) is None:
        raise NotATimeError(
            f"{time_format!r} is not a time format; --time-format takes strptime's directives"
        )
    bad = found.is_null() & text.is_not_null()
    if bad.any():
        row = bad.arg_max() or 0
        shown = str(text[row]).partition("|")[0]
        raise NotATimeError(f"{shown!r} is not a time in the --time-format {time_format!r}", row)
    return found.cast(pl.Datetime(unit))


def _dates(text: pl.Series) -> pl.Series:
    """Read text as dates.

    Raises:
        NotATimeError: see `times_of`.
    """
    sample = text.drop_nulls().head(_SAMPLE)
    if sample.str.contains(r"^\d{4}[-/.]\d{1,2}$").all():  # a year and a month: from its first day on
        text = text + text.str.slice(4, 1) + "01"
        sample = text.drop_nulls().head(_SAMPLE)
    unit: Unit = "us"
    if _longest(text) > 26 and text.str.contains(r"\.\d{7}").any():
        unit = "ns"
    readings: dict[str, pl.Series] = {}
    row = (text.is_not_null().arg_max() or 0) if len(sample) else 0
    for form, patterns in _FORMS.items():
        found = _read(text, patterns, unit)
        if isinstance(found, pl.Series):
            readings[form] = found
        else:
            row = max(row, found)
    if not readings:
        raise NotATimeError(
            f"{text[row]!r} is not a time; give its format with --time-format, such as %d.%m.%y", row
        )
    first, *others = readings
    for other in others:
        if not readings[other].equals(readings[first]):
            raise NotATimeError(
                f"times such as {sample[0]!r} may be {first} or {other}; say which with --time-format"
            )
    return readings[first].cast(pl.Datetime(unit))


def _read(text: pl.Series, patterns: Sequence[str], unit: Unit) -> pl.Series | int:
    """Read text in one form of the date, with any clock time; or return the first row not in this form.

    Raises:
        NotATimeError: some times have an offset from UTC, and some none.
    """
    found = pl.repeat(None, len(text), dtype=pl.Int64, eager=True)
    tried: list[str] = []
    while len(rest := (found.is_null() & text.is_not_null()).arg_true()):
        sample = text.gather(rest.head(_SAMPLE)).to_list()
        likely = [one for one in patterns if one not in tried and any(map(_shape(one).fullmatch, sample))]
        if not likely:
            return int(rest[0])
        for pattern in likely:
            whole = len(rest) == len(text)
            part = _parsed(text if whole else text.gather(rest), pattern, unit)
            if part is not None:
                found = part if whole else found.scatter(rest, part)
            rest = (found.is_null() & text.is_not_null()).arg_true()
        tried += likely
    clocks = [pattern for pattern in tried if "%H" in pattern or "%I" in pattern]
    if len({pattern.endswith(_ZONES[1:]) or "%z" in pattern or "UTC" in pattern for pattern in clocks}) > 1:
        raise NotATimeError(
            "some times have an offset from UTC and some have none; write all of them with one"
        )
    return found


@cache
def _shape(pattern: str) -> re.Pattern[str]:
    """Return what text in this pattern looks like: to leave out most patterns without reading with them."""
    date = pattern.replace("%Y%m%d", r"\d{8}")
    return re.compile(
        re.sub(r"%#?\.?[a-zA-Z]", lambda one: _SHAPES[one.group()], re.sub(r"([.+])(?!f)", r"\\\1", date))
    )


def _parsed(text: pl.Series, pattern: str, unit: Unit) -> pl.Series | None:
    """Return units since 1970, null where the pattern does not fit; None if it is not a pattern."""
    try:
        found = text.str.to_datetime(pattern, time_unit="us", strict=False)
        years = found.dt.year()
        # Chrono takes a year of two digits for the year 10, and nanoseconds hold only the years 1678 to 2261.
        known = (years >= 1000) if unit == "us" else (years > 1677) & (years < 2262)
        if unit == "ns":
            found = text.str.to_datetime(pattern, time_unit="ns", strict=False)
    except pl.exceptions.PolarsError:
        return None
    return only(found.to_physical(), known)


def _patterns(date: str) -> list[str]:
    """Return the patterns of a form of the date: alone, and with a clock time and an offset from UTC."""
    patterns = [date]
    for gap, clock, zone in product((" ", "T", ", ", ":"), _CLOCKS, _ZONES):
        patterns.append(f"{date}{gap}{clock}{zone}")
    if date == "%Y%m%d":
        patterns += [
            f"{date}{gap}{clock}{zone}"
            for gap, clock, zone in product(("", "T", " "), _COMPACT_CLOCKS, _ZONES)
        ]
    return patterns


_FORMS: dict[str, Sequence[str]] = {_UNIX[0]: _UNIX, **{date: _patterns(date) for date in _DATES}}

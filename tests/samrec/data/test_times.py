"""Times are read exactly, in whatever form they come, and a day is never guessed from a month."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from samrec.data.readers import read
from tests.samrec.data.test_reading import refused, written
from tests.samrec.data.test_tables import histories

AT = datetime(2010, 3, 14, 5, 6, 7, tzinfo=UTC)
FORMS = [
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S.%f+00:00",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
]
FORMS += [
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%a %b %d %H:%M:%S +0000 %Y",
    "%d-%b-%Y %H:%M",
]
FORMS += ["%Y%m%d%H%M%S", "%Y%m%dT%H%M%SZ", "%b %d, %Y %I:%M %p", "%a, %d %b %Y %H:%M:%S GMT", "%B %d, %Y"]


@pytest.mark.parametrize("form", FORMS)
def test_dates_in_every_form_are_in_the_order_of_time(tmp_path, form):
    draw = random.Random(2)
    moments = [AT + timedelta(minutes=draw.randrange(500_000)) for _ in range(60)]
    text = "".join(f'1,{n},"{moment.strftime(form)}"\n' for n, moment in enumerate(moments))
    shown = [datetime.strptime(moment.strftime(form), form) for moment in moments]
    expected = sorted(range(60), key=lambda n: shown[n])
    path = written(tmp_path, "user,item,time\n" + text)
    assert histories(read(path)) == histories(read(path, time_format=form)) == [expected]


def test_mixed_precision_and_offsets_are_one_time(tmp_path):
    times = ["2010-01-02", "2010-01-01T23:59:59.5Z", "2010-01-01T20:00:00-05:00", "2010-01-02T03:00:00+02:00"]
    path = written(tmp_path, "user,item,time\n" + "".join(f"1,{n},{t}\n" for n, t in enumerate(times)))
    assert histories(read(path)) == [[1, 0, 2, 3]]
    naive = written(tmp_path, "user,item,time\n1,1,2010-01-02 03:04\n1,2,2010-01-02 03:04+01:00\n")
    assert "some times have an offset from UTC and some have none" in refused(naive)


def test_a_fraction_keeps_its_digits(tmp_path):
    times = [f"2010-01-01 00:00:00.{n:09d}" for n in (300, 200, 100)]
    path = written(tmp_path, "user,item,time\n" + "".join(f"1,{n},{t}\n" for n, t in enumerate(times)))
    assert histories(read(path)) == [[2, 1, 0]]
    numbers = written(
        tmp_path, "user,item,time\n" + "".join(f"1,{n},1700000000.{9 - n:09d}\n" for n in range(5))
    )
    assert histories(read(numbers)) == [[4, 3, 2, 1, 0]]


@pytest.mark.parametrize("time", ["01/02/2010", "3-4-2010 10:00", "05.06.2010", "07-08-10", "01 02, 2010"])
def test_a_day_is_not_guessed_from_a_month(tmp_path, time):
    path = written(tmp_path, f'user,item,time\n1,1,"{time}"\n')
    assert "--time-format" in refused(path)


def test_a_format_of_times_that_is_asked_for(tmp_path):
    path = written(tmp_path, "user,item,time\n1,1,01/03/2010\n1,2,02/01/2010\n")
    assert histories(read(path, time_format="%d/%m/%Y")) == [[2, 1]]
    assert histories(read(path, time_format="%m/%d/%Y")) == [[1, 2]]
    assert "row 1: '01/03/2010' is not a time in the --time-format '%Y'" in refused(path, time_format="%Y")
    assert "--time-format" in refused(path, time_format="%Q")
    months = written(tmp_path, "user,item,time\n1,1,03.2010\n1,2,01.2010\n")
    assert histories(read(months, time_format="%m.%Y")) == [[2, 1]]
    other = written(tmp_path, "user,item,weather\n1,1,03.2010\n1,2,01.2010\n")
    assert "no column is known as a time" in refused(other, time_format="%m.%Y")


def test_dates_without_signs_among_those_with_a_clock_time(tmp_path):
    path = written(tmp_path, "user,item,time\n1,1,20100818\n1,2,201008171530\n1,3,20100819\n")
    assert histories(read(path)) == [[2, 1, 3]]


@pytest.mark.parametrize("kind", [pl.Int64, pl.String, pl.Decimal(38, 3), pl.Int128])
def test_no_time_is_rounded(tmp_path, kind):
    start = 1_700_000_000_000_000_000
    order = random.Random(1).sample(range(50), 50)
    times = pl.Series([start + n for n in order]).cast(kind)
    frame = pl.DataFrame({"user": 1, "item": order, "time": times})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        found = read(tmp_path / name)
        assert histories(found) == [list(range(50))]
        assert found.ties == 0

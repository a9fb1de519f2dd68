"""Splits by time and by ratio: who is asked for what, and that nothing later is seen before it."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape import InputError
from samrec.cli.options import listed
from samrec.config import configure
from samrec.data.holdout import parsed
from samrec.data.interactions import Interactions
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import split_by
from samrec.evaluation import candidates
from tests.samrec.data.test_reading import written

CPU = torch.device("cpu")
TIMES = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12).map(sorted), min_size=1, max_size=9)
SHARES = st.tuples(*3 * [st.integers(1, 30)]).map(lambda parts: [part / sum(parts) for part in parts])
TWO = [[1, 2, 5, 6, 9], [1, 5, 9], [1, 2, 5, 5, 9, 9], [1, 2, 3, 4]]


def at(times):
    """Interactions at these times, user after user, each with an item of its own."""
    numbers = iter(range(1, 1000))
    data = Interactions.from_histories([[next(numbers) for _ in own] for own in times], "here")
    return replace(data, times=np.concatenate([np.array(own, np.int64) for own in times]))


def tried(rule, data):
    """The split; None where nobody is left in a part."""
    with suppress(InputError):
        return split_by(rule, data)


def seen(split):
    """Every interaction (its item) that is an input or a target in an epoch of training."""
    if not len(split.trained):
        return set()
    batches = TrainingBatches(split, 50, CPU).epoch(4, (0, 1))
    used = [(batch.inputs.segments > 0, batch) for batch in batches]
    return {i for on, b in used for part in (b.inputs.items, b.targets) for i in part[on].tolist()}


def shown(split, part):
    """For each evaluated user, the items shown to the model, and the one that is asked for."""
    (batch,) = candidates(split, part, 50, CPU)
    histories, targets = batch.histories, batch.targets.tolist()
    own = [histories.items[histories.segments == number + 1].tolist() for number in range(len(targets))]
    return dict(zip(split.evaluated(part).tolist(), zip(map(set, own), targets, strict=True), strict=True))


@pytest.mark.filterwarnings("ignore:.*no item to predict")
@given(TIMES, st.integers(0, 20), st.integers(1, 20))
def test_a_split_in_time_sees_nothing_from_its_dates_on(times, first, gap):
    data = at([*times, *[[t + first - 4 for t in own] for own in TWO]])
    when = data.times
    split = tried(f"time:{first},{first + gap}", data)
    if split is None:
        return
    assert all(when[item] < first for item in seen(split))
    for part, cut in (("valid", first), ("test", first + gap)):
        for history, target in shown(split, part).values():
            assert max(when[list(history)]) < cut <= when[target]


@pytest.mark.filterwarnings("ignore:.*no item to predict")
@given(TIMES, st.integers(0, 20))
def test_one_date_keeps_the_test_after_it_and_each_user_in_order(times, cut):
    data = at([*times, [cut - 2, cut - 1, cut, cut + 1]])
    split = split_by(f"time:{cut}", data)
    trained = seen(split)
    assert all(data.times[item] < cut for item in trained)
    for history, target in shown(split, "test").values():
        assert max(data.times[list(history)]) < cut <= data.times[target]
    for history, target in shown(split, "valid").values():
        assert max(history) < target  # items are numbered in order
        assert target not in trained


@pytest.mark.filterwarnings("ignore:.*no item to predict")
@given(TIMES, SHARES)
def test_a_ratio_sees_nothing_of_a_user_from_the_target_on(times, shares):
    data = at([*times, list(range(100))])
    split = split_by("ratio:" + ",".join(map(str, shares)), data)
    trained, users = seen(split), data.users
    for part in ("valid", "test"):
        for user, (history, target) in shown(split, part).items():
            own = np.flatnonzero(users == user)
            assert history <= {item for item in own.tolist() if item < target}
            assert target - 1 in history
            assert not {item for item in trained if users[item] == user and item >= target}


@pytest.mark.filterwarnings("ignore:.*no item to predict")
@given(TIMES, st.integers(0, 20), st.integers(1, 20))
def test_who_is_asked_for_what_is_a_loop_over_users(times, first, gap):
    data = at([*times, *[[t + first - 4 for t in own] for own in TWO]])
    second, starts = first + gap, data.offsets[:-1].tolist()
    expected = {"two": {}, "one": {}}, {"two": {}, "one": {}}
    for user, own in enumerate(map(np.ndarray.tolist, np.split(data.times, starts[1:]))):
        early, middle = sum(t < first for t in own), sum(first <= t < second for t in own)
        if early and middle:
            expected[0]["two"][user] = starts[user] + early
        if early + middle and early + middle < len(own):
            expected[1]["two"][user] = starts[user] + early + middle
        if early >= 2:
            expected[0]["one"][user] = starts[user] + early - 1
        if 0 < early < len(own):
            expected[1]["one"][user] = starts[user] + early
    for kind, rule in (("two", f"time:{first},{second}"), ("one", f"time:{first}")):
        split = tried(rule, data)
        if split is None:
            assert not (expected[0][kind] and expected[1][kind])
            continue
        for part, known in zip(("valid", "test"), expected, strict=True):
            _, _, target = split.history(part)
            assert dict(zip(split.evaluated(part).tolist(), target.tolist(), strict=True)) == known[kind]


@pytest.mark.parametrize(
    ("length", "rule", "train", "valid", "test"),
    [
        (10, "ratio:.8,.1,.1", 8, 8, 9),
        (30, "ratio:.8,.1,.1", 24, 24, 27),
        (19, "ratio:.8,.1,.1", 17, 17, 18),
        (5, "ratio:.8,.1,.1", 3, 3, 4),
        (100, "ratio:.42,.29,.29", 42, 42, 71),  # .29 · 100 is 28.999… in binary
        (3, "ratio:.6,.2,.2", 1, 1, 2),
        (2, "ratio:.6,.2,.2", 2, 0, 0),
        (3, "ratio:.02,.08,.9", 3, 0, 0),  # 1 for validation and 2 for the test leave nothing
    ],
)
@pytest.mark.filterwarnings("ignore:.*no item to predict")
def test_parts_of_a_ratio(length, rule, train, valid, test):
    split = split_by(rule, at([list(range(length)), list(range(60))]))
    assert (split.train_lengths[0], split.targets["valid"][0], split.targets["test"][0]) == (
        train,
        valid,
        test,
    )


def test_a_ratio_of_short_histories_is_leave_one_out():
    data = at([[1, 2, 3], list(range(19)), [1, 2, 3, 4]])
    one, other = split_by("ratio:.8,.1,.1", data), split_by("leave-one-out", data)
    assert np.array_equal(one.train_lengths, other.train_lengths)
    assert all(np.array_equal(one.targets[part], other.targets[part]) for part in ("valid", "test"))


def test_who_is_not_evaluated_is_counted():
    with pytest.warns(UserWarning, match=r"of 4 users, 2 have no .* validation part and 2 none in the test"):
        split_by("time:5", at([[1, 2, 5], [1, 7], [5, 6], [1, 2, 3]]))


@pytest.mark.filterwarnings("ignore:.*no item to predict")
@given(TIMES, st.floats(0, 1), st.integers(0, 99), st.sampled_from(["valid", "test"]))
def test_noise_at_the_test_moves_targets_of_every_split(times, share, seed, part):
    split = split_by("time:5,9", at([*times, *TWO]))
    disturbed = split.disturbed(part, share, seed)
    assert np.array_equal(disturbed.evaluated(part), split.evaluated(part))
    assert np.array_equal(disturbed.history(part)[2], split.history(part)[2])
    for other in ("valid", "test"):
        assert np.array_equal(disturbed.evaluated(other), split.evaluated(other))


# The units of times

MOMENTS = [datetime(2014, 1, 1, 12, tzinfo=UTC) + timedelta(days=n, microseconds=7 * n) for n in range(8)]
CUT = 5  # the sixth is the first that is not before it


def file_of(folder, values):
    path = folder / "a.parquet"
    users = [user for user in range(3) for _ in values]
    items = [f"{n}" for _ in range(3) for n in range(len(values))]
    pl.DataFrame({"user": users, "item": items, "time": [*values] * 3}).write_parquet(path)
    return path


def unix(unit):
    return [
        (m - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * unit // 10**6 for m in MOMENTS
    ]


@pytest.mark.parametrize(
    "values",
    [
        *(pytest.param(unix(unit), id=f"{unit} per second") for unit in (1, 10**3, 10**6, 10**9)),
        pytest.param([at / 10**6 for at in unix(10**6)], id="float"),
        pytest.param([m.isoformat() for m in MOMENTS], id="text"),
        pytest.param([m.replace(tzinfo=None) for m in MOMENTS], id="datetime"),
        pytest.param(pl.Series(MOMENTS).dt.convert_time_zone("Asia/Tokyo"), id="zone"),
        pytest.param(pl.Series(MOMENTS).dt.cast_time_unit("ns"), id="ns"),
        pytest.param(pl.Series(MOMENTS).dt.cast_time_unit("ms"), id="ms"),
        pytest.param([m.date() for m in MOMENTS], id="date"),
    ],
)
def test_a_date_is_the_same_moment_in_every_column(tmp_path, values):
    data = read(file_of(tmp_path, values), times=True)
    days = isinstance(values, list) and type(values[0]) is date
    dates = ["2014-01-06"] if days else ["2014-01-06", "2014-01-06T12:00", "2014-01-06T14:00+02:00"]
    for day in dates:
        assert split_by(f"time:{day}", data).targets["test"].tolist() == 3 * [CUT]
    if not days:  # 35 µs after noon is before 36 µs, also where the column rounds it down
        split = split_by("time:2014-01-06T12:00:00.000036", data)
        assert split.targets["test"].tolist() == 3 * [CUT + 1]


@pytest.mark.parametrize("unit", [1, 10**3])
@pytest.mark.parametrize("fraction", [".1", ".35", ".5", ".999999"])
def test_a_moment_within_a_second_cuts_times_with_fractions_there(tmp_path, unit, fraction):
    """What is at the moment or after it, in the same second, is not before it."""
    second = int(datetime(2014, 1, 6, tzinfo=UTC).timestamp())
    at = (second * 10**6 + round(float(fraction) * 10**6)) * unit / 10**6
    values = [
        float(second * unit - 1),
        second * unit + 0.01,
        at,
        at + 0.0009 * unit,
        float((second + 1) * unit),
    ]
    split = split_by(f"time:2014-01-06T00:00:00{fraction}", read(file_of(tmp_path, values), times=True))
    assert split.targets["test"].tolist() == [2, 2, 2]


def test_a_number_is_in_the_units_of_the_column(tmp_path):
    path = file_of(tmp_path, [1, 2, 3, 10, 11])
    data = read(path, times=True)
    assert split_by("time:3,10", data).targets["test"].tolist() == [3, 3, 3]
    assert split_by("time:2.5", data).targets["test"].tolist() == [2, 2, 2]
    with pytest.raises(InputError, match="has times from 1 to 11, which are not seconds since 1970"):
        split_by("time:2014-01-01", data)
    with pytest.raises(
        InputError, match="holds out no item of any user for test; the times are from 1 to 11"
    ):
        split_by("time:12", data)
    dated = read(file_of(tmp_path, MOMENTS), times=True)
    with pytest.raises(InputError, match="has dates as times; write time:5 with a date"):
        split_by("time:5", dated)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (0, "which are not seconds since 1970 or a finer unit"),
        (10**8, "which are not seconds since 1970 or a finer unit"),
        (1_400_000_000_000, "row 5: a time in milliseconds among others in seconds"),
    ],
)
def test_a_date_does_not_cut_times_of_which_one_is_of_another_unit_or_missing(tmp_path, odd, said):
    path = file_of(tmp_path, [*(1_400_000_000 + day * 86_400 for day in range(4)), odd])
    with pytest.raises(InputError, match=said):
        split_by("time:2014-05-15", read(path, times=True))


def test_times_are_kept_only_if_asked_for_and_are_part_of_the_data(tmp_path):
    path = file_of(tmp_path, [1, 2, 3, 10, 11])
    assert read(path).times is None
    kept = read(path, times=True)
    assert kept.digest != read(path).digest
    assert kept.digest != read(file_of(tmp_path, [1, 2, 9, 10, 11]), times=True).digest
    rows = "".join(
        f"{u},{i},{t}\n" for u, i, t in [(1, 1, 1), (1, 2, 2), (1, 1, 3), (2, 1, 4), (2, 2, 5), (3, 9, 6)]
    )
    filtered = read(written(tmp_path, "user,item,time\n" + rows), deduplicate=True, core=2, times=True)
    assert filtered.times.tolist() == [1, 2, 4, 5]


def test_data_without_times_are_refused(tmp_path):
    lines = written(tmp_path, "1 1 2 3\n2 3 2 1\n", "a.txt")
    with pytest.raises(InputError, match=r"a.txt has no times, which split time:2014-01-01 needs"):
        split_by("time:2014-01-01", read(lines, times=True))


# The setting


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("half", "must be leave-one-out, time:DATE"),
        ("leave-one-out:2", "must be leave-one-out"),
        ("time:", "must be leave-one-out"),
        ("time:yesterday", "'yesterday' is not a date such as 2014-01-01"),
        ("time:01/02/2014", "is not a date"),
        ("time:nan", "is not a date"),
        ("time:1_0", "is not a date"),
        ("time:2014-02-30", "is not a date"),
        ("time:2014-01-01,2014-01-01", "the first of the two dates"),
        ("time:1,2,3", "one date or two"),
        ("time:1,2014-01-01", "not one of each"),
        ("ratio:.8,.2", "takes three shares"),
        ("ratio:.8,.1,.2", "sum to 1"),
        ("ratio:.9,.1,0", "above 0"),
        ("ratio:nan,.1,.1", "sum to 1"),
    ],
)
def test_what_is_no_split_is_refused(split, said):
    with pytest.raises(InputError, match="setting split: ") as caught:
        configure({"data": "a.csv", "split": split})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_date_has_no_zone_but_its_own_or_utc():
    assert parsed("time:2014-01-01").moments == parsed("time:2014-01-01T02:00+02:00").moments


def test_values_with_commas_stand_in_quotes():
    assert listed('leave-one-out, "ratio:.8,.1,.1",time:5') == ["leave-one-out", "ratio:.8,.1,.1", "time:5"]

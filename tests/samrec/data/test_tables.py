import gzip
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from landscape import InputError
from samrec.data.describe import describe
from samrec.data.filters import first_of_each, k_core
from samrec.data.interactions import Interactions
from samrec.data.readers import read

ROWS = [("u2", "b", 30), ("u1", "a", 20), ("u2", "c", 10), ("u1", "b", 10), ("u1", "c", 20), ("u2", "a", 10)]
# Sorted by user, then time, ties in file order:
HISTORIES = [["b", "a", "c"], ["c", "a", "b"]]


def histories(interactions):
    ids = interactions.item_ids[interactions.items]
    return [h.tolist() for h in np.split(ids, interactions.offsets[1:-1])]


def lines(separator, header=None):
    body = "".join(separator.join(map(str, row)) + "\n" for row in ROWS)
    return ((header + "\n" if header else "") + body).encode()


def tables(folder):
    """Yield files that hold ROWS, each in its own way."""
    for name, content in {
        "a.csv": lines(",", "user_id,item_id,timestamp"),
        "a.tsv": lines("\t", "userId\tmovieId\ttime"),
        "a.inter": lines("\t", "user_id:token\titem_id:token\ttimestamp:float"),
        "a.json": b"".join(
            b'{"reviewerID": "%s", "asin": "%s", "unixReviewTime": %d, "x": {"y": 1}}\n'
            % (u.encode(), i.encode(), t)
            for u, i, t in ROWS
        ),
    }.items():
        (folder / name).write_bytes(content)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        yield from (folder / name, folder / f"{name}.gz")
    (folder / "a.dat").write_bytes(
        b"".join(b"%s::%s::5::%d\n" % (u.encode(), i.encode(), t) for u, i, t in ROWS)
    )
    yield folder / "a.dat"
    (folder / "a.data").write_bytes(
        b"".join(b"%s\t%s\t5\t%d\n" % (u.encode(), i.encode(), t) for u, i, t in ROWS)
    )
    yield folder / "a.data"
    pl.DataFrame(ROWS, schema=["user", "item", "date"], orient="row").write_parquet(folder / "a.parquet")
    yield folder / "a.parquet"


def test_one_table_in_every_format_is_one_data_set(tmp_path):
    found = [read(path) for path in tables(tmp_path)]
    assert len(found) == 11
    for interactions in found:
        assert histories(interactions) == HISTORIES
        assert interactions.ties == 2
    assert len({interactions.digest for interactions in found}) == 1


def written(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_columns_by_name_and_by_number(tmp_path):
    path = written(tmp_path, "t,who,what\n2,1,10\n1,1,11\n")
    assert histories(read(path, columns="who,what,t")) == [[11, 10]]
    assert histories(read(path, columns="who,what")) == [[10, 11]]  # no times: the file's order
    assert histories(read(written(tmp_path, "1,10,5.0,2\n1,11,3.0,1\n"), columns="0,1,3")) == [[11, 10]]


def test_dates_are_times(tmp_path):
    text = "user,item,date\n1,1,2020-02-01 10:00:00\n1,2,2020-01-01 11:00:00\n"
    assert histories(read(written(tmp_path, text))) == [[2, 1]]


def test_ids_with_leading_zeros_stay_text(tmp_path):
    assert histories(read(written(tmp_path, "user,item\n1,007\n1,7\n"))) == [["007", "7"]]


def test_many_users_are_sorted_as_a_loop_would(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, (50, 40, 30), (2000, 3))
    path = written(tmp_path, "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    expected = {}
    for user, item, _ in sorted(rows.tolist(), key=lambda r: r[2]):  # stable
        expected.setdefault(user, []).append(item)
    assert histories(read(path)) == [expected[user] for user in sorted(expected)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "user,thing\n1,2\n", "cannot tell user from item among user, thing"),
        ("a.csv", "user,item\n", "holds no interactions"),
        ("a.csv", "user,item\n1,2\n1,\n", "have no item, the first is row 2"),
        ("a.csv", "user,item,time\n1,2,noon\n", "row 1: 'noon' is not a time"),
        ("a.csv", "user,item\n1,2,3,4\n", "not readable as .csv"),
        ("a.parquet", "hello", "not readable as .parquet"),
        ("a.json", "hello\n", "line 1: expected one JSON object per line"),
        ("a.json", '{"user": 1, "item": 2}\n{"user": \n', "not readable as .json"),
        ("a.csv.gz", "not gzip", "cannot tell user from item"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(written(tmp_path, text, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", ["user", "user,nothing", "user,user", "a,b,c,d"])
def test_columns_that_are_not_there(tmp_path, columns):
    with pytest.raises(InputError, match="name them with --columns"):
        read(written(tmp_path, "user,item\n1,2\n"), columns=columns)


def test_repeats_are_left_out_after_the_first():
    data = first_of_each(Interactions.from_histories([[5, 6, 5, 7, 6], [7, 7]], "here"))
    assert histories(data) == [[5, 6, 7], [7]]


def test_a_core_is_the_largest_that_holds():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(60)]
    core = k_core(replace(Interactions.from_histories(sequences, "here"), user_ids=10 * np.arange(60)), 4)
    assert core.lengths.min() >= 4
    assert np.bincount(core.items).min() >= 4
    remaining = {u: list(s) for u, s in enumerate(sequences)}
    while True:  # one user or item at a time, in any order, ends in the same core
        counts = {}
        for s in remaining.values():
            for item in s:
                counts[item] = counts.get(item, 0) + 1
        few = {item for item, count in counts.items() if count < 4}
        shorter = {u: [i for i in s if i not in few] for u, s in remaining.items() if len(s) >= 4}
        if shorter == remaining:
            break
        remaining = shorter
    assert histories(core) == list(remaining.values())
    assert core.user_ids.tolist() == [10 * user for user in remaining]


def test_a_core_of_nothing_is_refused():
    with pytest.raises(InputError, match="no user and item have 3 interactions"):
        k_core(Interactions.from_histories([[1, 2], [3]], "here"), 3)


def test_reading_can_filter(tmp_path):
    path = written(tmp_path, "1 1 1 2 3\n2 1 2 9\n3 2 1\n", "a.txt")
    assert histories(read(path, deduplicate=True, core=2)) == [[1, 2], [1, 2], [2, 1]]


def test_ties_are_those_of_what_is_left(tmp_path):
    """As a file says that holds no more than the filters left, whatever was tied to what they left out."""
    rng = np.random.default_rng(0)
    rows = sorted((u, t, int(rng.integers(6))) for u in range(8) for t in rng.integers(5, size=9).tolist())
    path = written(tmp_path, "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, t, i in rows))
    for filters in ({}, {"deduplicate": True}, {"core": 7}, {"deduplicate": True, "core": 3}):
        left = read(path, times=True, **filters)
        ids = left.user_ids[left.users], left.item_ids[left.items], left.times
        assert set(zip(*(own.tolist() for own in ids), strict=True)) <= {(u, i, t) for u, t, i in rows}
        text = "".join(f"{u},{i},{t}\n" for u, i, t in zip(*ids, strict=True))
        alone = read(written(tmp_path, "user,item,time\n" + text, "left.csv"))
        assert describe(read(path, **filters))["time_ties"] == describe(alone)["time_ties"]


def test_a_description(tmp_path):
    found = describe(read(written(tmp_path, "user,item,time\n1,1,5\n1,2,5\n1,1,6\n2,1,1\n")))
    assert (found["users"], found["items"], found["interactions"]) == (2, 2, 4)
    assert found["density"] == 3 / 4
    assert found["repeats"] == 1 / 4
    assert found["time_ties"] == 1 / 4
    assert found["users_with_fewer_than_three"] == 1
    assert found["lengths"]["max"] == 3


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [("a.dat", "1::2::3::4\n", "user,item"), ("a.csv", "1,2\n", "0,,1"), ("a.csv", "1,2\n", "0,7")],
)
def test_columns_that_are_no_numbers_of_a_table_without_a_header(tmp_path, name, text, columns):
    with pytest.raises(InputError, match="name them with --columns"):
        read(written(tmp_path, text, name), columns=columns)


def test_times_with_a_fraction_in_json(tmp_path):
    text = '{"user": 1, "item": 1, "timestamp": 2.5}\n{"user": 1, "item": 2, "timestamp": 1.5}\n'
    assert histories(read(written(tmp_path, text, "a.jsonl"))) == [[2, 1]]

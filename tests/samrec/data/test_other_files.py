"""Files that are not what their name says, or not one interaction per row: one line says what they are."""

import bz2
import gzip
import json
import lzma
import pickle
import re
import zipfile

import polars as pl
import pytest

from samrec.data.readers import read
from tests.samrec.data.test_reading import refused, written
from tests.samrec.data.test_tables import histories

ROWS = [(f"u{n % 3}", f"i{n}", 1_600_000_000 + 60 * n) for n in range(12)]
FRAME = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")


def packed(write, folder):
    write(folder / "packed")
    return (folder / "packed").read_bytes()


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.dat", "a.txt", "a.other"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: packed(FRAME.write_parquet, folder), r"is a Parquet file; name it \.parquet"),
        (lambda folder: packed(FRAME.write_ipc, folder), "is an Arrow"),
        (lambda folder: packed(FRAME.write_avro, folder), "is an Avro file"),
        (lambda folder: packed(FRAME.clear().write_parquet, folder), "is a Parquet file"),
        (lambda folder: bz2.compress(b"1 2 3"), "compressed by bzip2"),
        (lambda folder: pickle.dumps(ROWS), "is a pickle, which can run code and is not read"),
        (lambda folder: b"SQLite format 3\0" + bytes(80), "is an SQLite database"),
        (lambda folder: b"PK\3\4" + bytes(80), "is an Excel workbook or another archive"),
        (lambda folder: b"<!DOCTYPE html>\n<html>404</html>\n", "is a web page"),
        (lambda folder: b"<!doctype html>\n<title>404</title>\n", "is a web page"),
        (lambda folder: b"<html><body>404</body></html>\n", "is a web page"),
        (lambda folder: b"\x89HDF\r\n\x1a\n" + bytes(80), "is an HDF5 file"),
        (lambda folder: b"\x93NUMPY\1\0" + bytes(80), "is an array of NumPy"),
        (lambda folder: bz2.compress(b"1 2 3\n"), "is compressed by bzip2"),
        (lambda folder: lzma.compress(b"1 2 3\n"), "is compressed by xz"),
        (lambda folder: b"(\xb5/\xfd" + bytes(80), "is compressed by Zstandard"),
        (
            lambda folder: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            "git lfs pull",
        ),
    ],
)
def test_what_is_no_text_is_told_by_how_it_begins(tmp_path, name, make, said):
    message = refused(written(tmp_path, make(tmp_path), name))
    assert re.search(said, message)
    assert str(tmp_path / name) in message


@pytest.mark.parametrize("user", ["BZhang", "BZh9", "PAR1", "PAR1001", "ARROW1", "PK34"])
def test_a_table_may_begin_with_the_name_of_a_user(tmp_path, user):
    path = written(tmp_path, f"{user},i1,1\n{user},i2,2\nb,i1,3\n")
    assert histories(read(path, columns="0,1,2")) == [["i1", "i2"], ["i1"]]


def test_a_file_within_an_archive_is_told_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", b"SQLite format 3\0" + bytes(80))
    assert "a.csv is an SQLite database" in refused(tmp_path / "a.zip")


def test_lines_that_are_packed_are_not_numbers(tmp_path):
    message = refused(written(tmp_path, gzip.compress(b"1 2 3\n"), "a.txt.gz"))
    assert "compressed by gzip; unpack it" in message


@pytest.mark.parametrize("sign", ["", "u"])
def test_dictionaries_of_python_are_not_json(tmp_path, sign):
    lines = [f"{{{sign}'user_id': {u!r}, {sign}'item_id': {i!r}, 'timestamp': {t}}}\n" for u, i, t in ROWS]
    message = refused(written(tmp_path, "".join(lines), "a.json"))
    assert "line 1 is a dictionary of Python, not JSON" in message
    assert "ast.literal_eval(line)" in message
    lines = [json.dumps(row) + "\n" for row in FRAME.to_dicts()]
    assert len(histories(read(written(tmp_path, "".join(lines), "a.json")))) == 3


def test_a_row_that_holds_a_history_is_not_one_interaction(tmp_path):
    content = "user_id:token\titem_id_list:token_seq\titem_id:token\nu1\ti1 i2 i3\ti4\nu2\ti2 i3\ti1\n"
    path = written(tmp_path, content, "a.inter")
    assert "item_id_list:token_seq holds a history in each row" in refused(path)
    assert histories(read(path, columns="user_id:token,item_id:token")) == [["i4"], ["i1"]]
    genres = content.replace("item_id_list", "genre")  # a list of something else
    with pytest.warns(UserWarning, match="no column is known as a time"):
        assert histories(read(written(tmp_path, genres, "b.inter"))) == [["i4"], ["i1"]]


@pytest.mark.parametrize(
    "name", ["item_seq", "item_genre:token_seq", "item_vector:float_seq", "itemized:token_seq"]
)
def test_what_else_is_known_of_an_item_is_no_history(tmp_path, name):
    """A number within the session, or what describes the item."""
    lines = f"user:token\titem:token\ttime:float\t{name}\nu1\ti4\t1\t1\nu2\ti1\t2\t2\n"
    path = written(tmp_path, lines, "a.inter")
    assert histories(read(path)) == [["i4"], ["i1"]]


@pytest.mark.parametrize("fraction", ["", ".25"])
@pytest.mark.parametrize(
    ("factor", "unit"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")]
)
@pytest.mark.parametrize("odd", [{7}, {2, 3}, set(range(0, 12, 2)), set(range(11))])
def test_times_in_two_units_are_no_order(tmp_path, odd, factor, unit, fraction):
    def column(of):
        lines = [f"{u},{i},{t * int(of(n))}{fraction}\n" for n, (u, i, t) in enumerate(ROWS)]
        return written(tmp_path, "user_id,item_id,timestamp\n" + "".join(lines))

    message = refused(column(lambda n: factor if n in odd else 1))
    assert "a time in" in message
    assert "write all in one unit" in message
    assert unit in message
    assert "seconds" in message.replace(unit, "")
    for of in (lambda n: factor, lambda n: 1, lambda n: n in odd, lambda n: n * 10**4):  # 0 is a missing time
        assert len(histories(read(column(of)))) == 3


def test_the_rarer_unit_of_times_is_named_by_its_row_though_some_times_are_missing(tmp_path):
    times = [1_600_000_000 + n for n in range(9)]
    times[2], times[5] = 0, times[5] * 1000
    lines = "".join(f"u,i{n},{time or ''}\nv,i{n},{time}\n" for n, time in enumerate(times))
    message = refused(written(tmp_path, "user_id,item_id,timestamp\n" + lines))
    assert "a time in milliseconds among others in seconds" in message
    assert "row 11" in message


def test_numbers_that_need_not_be_times_since_1970_are_an_order(tmp_path):
    lines = "".join(f"u,i{n},{10**n}\n" for n in range(16))  # a second, a millisecond and others
    path = written(tmp_path, "user_id,item_id,timestamp\n" + lines)
    assert histories(read(path)) == [[f"i{n}" for n in range(16)]]

"""What data files out there hold: each is read right, or refused in one line that names the remedy."""

import gzip
import json
import random
import zipfile
from decimal import Decimal

import polars as pl
import pytest

from landscape import InputError
from samrec.config import Config, configure
from samrec.data.columns import may_be_time
from samrec.data.describe import describe
from samrec.data.readers import read
from samrec.data.record_count import count_records
from samrec.data.sources import last_change
from tests.samrec.data.test_tables import histories

HEADER = "user_id,item_id,timestamp,title\n"
BIG = 2**63


def written(folder, content, name="a.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# How many rows there are


@pytest.mark.parametrize("title", ['12" mix', '"Heroes"', '"Unclosed', '"A" and "B"', 'Say "Yes'])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_quotes_in_other_text_than_csv_are_data(tmp_path, title, count):
    lines = [f"u\ti{n}\t{n}\t{title if n in (3, 9, 20)[:count] else 'Plain'}\n" for n in range(30)]
    found = read(written(tmp_path, "user\titem\ttime\ttitle\n" + "".join(lines), "a.tsv"))
    assert histories(found) == [[f"i{n}" for n in range(30)]]


@pytest.mark.parametrize("rows", [(5,), (5, 6), (5, 20), (5, 6, 20)])
def test_quotes_within_a_csv_field_enclose_nothing(tmp_path, rows):
    lines = [f"u,i{n},{n},{'Remix 12' + chr(34) + ' mix' if n in rows else 'Plain'}\n" for n in range(30)]
    assert histories(read(written(tmp_path, HEADER + "".join(lines)))) == [[f"i{n}" for n in range(30)]]


def test_quotes_that_leave_out_lines_are_data_and_it_is_said(tmp_path):
    lines = [f"u,i{n},{n},{(chr(34) + 'Unclosed') if n in (5, 9) else 'Plain'}\n" for n in range(12)]
    with pytest.warns(UserWarning, match="quotes are part of the fields; --quote says otherwise"):
        assert histories(read(written(tmp_path, HEADER + "".join(lines)))) == [[f"i{n}" for n in range(12)]]
    lines[9] = 'u,i9,9,"\n'  # now the two quotes enclose the lines between them, and whole fields
    path = written(tmp_path, HEADER + "".join(lines))
    with pytest.warns(UserWarning, match="since every line is a row without them"):
        assert len(read(path).items) == 12
    assert len(read(path, quote='"').items) == 8
    assert len(read(path, quote="none").items) == 12


@pytest.mark.parametrize("title", ['"a ""b"", c"', '"two\nlines, here"', r'"He said \"a, b\""'])
@pytest.mark.filterwarnings("ignore:.*on the assumption that")
def test_quoted_fields_hold_separators_and_line_breaks(tmp_path, title):
    lines = [f"u,i{n},{n},{title if n % 3 else 'Plain'}\n" for n in range(30)]
    assert histories(read(written(tmp_path, HEADER + "".join(lines)))) == [[f"i{n}" for n in range(30)]]


def test_tsv_that_quotes_fields_is_read_as_before(tmp_path):
    plain = "user\titem\ttime\ttitle\nu\ta\t1\tx\nv\tb\t2\ty\n"
    digest = read(written(tmp_path, plain, "a.tsv")).digest
    quoted = '"user"\t"item"\t"time"\t"title"\n"u"\t"a"\t1\t"x"\n"v"\t"b"\t2\t"y"\n'  # as R writes it
    assert read(written(tmp_path, quoted, "a.tsv")).digest == digest
    with pytest.warns(UserWarning, match="a quote within quotes is doubled"):
        assert read(written(tmp_path, plain.replace("y\n", '"y\tz"\n'), "a.tsv")).digest == digest


def test_a_record_of_another_length_is_named_by_its_line(tmp_path):
    path = written(tmp_path, HEADER + "1,2,3,a\n1,2,3,a, b\n")
    assert "not readable as .csv: line 3 has 5 fields, expected 4" in refused(path, columns="user_id,item_id")


def test_records_are_counted_across_chunks(monkeypatch):
    draw = random.Random(0)
    fields = ["a", "", '"x\ny"', '"a ""b"", c"', '"\n\n,"', "é"]
    for chunk in (1, 7, 64, 2**20):
        monkeypatch.setattr("samrec.data.record_count.CHUNK", chunk)
        for _ in range(20):
            rows = [f"{draw.choice(fields)},{draw.choice(fields)}" for _ in range(30)]
            ends = [draw.choice(["\n", "\r\n", "\n\n", "\n\r\n"]) for _ in rows]
            text = "".join(map(str.__add__, rows, ends)).removesuffix("\n" * draw.randrange(2))
            found = count_records(text.encode(), ",", '"', 2)
            blank = sum(len(end.replace("\r", "")) - 1 for end in ends)
            assert (found.records, found.clean) == (30, True)
            assert blank - 1 <= found.blank <= blank  # the last one may have been taken off


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.data", "a.dat"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_are_no_rows(tmp_path, name, end):
    between = {"a.csv": ",", "a.dat": "::"}.get(name, "\t")
    rows = [["u1", "a", "5", "30"], ["u1", "b", "5", "10"], ["u1", "c", "5", "20"]]
    head = [] if name in ("a.data", "a.dat") else [["user", "item", "rating", "time"]]
    lines = [between.join(row) for row in head + rows]
    for extra in ([], [""], ["", "", "  "]):
        path = written(tmp_path, end.join([*extra, *lines, *extra, ""]), name)
        assert histories(read(path)) == [["b", "c", "a"]]


# Encodings, separators, headers


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_encodings_that_a_file_tells(tmp_path, encoding, kind):
    text = "user,item,time\nU,é,2\nU,b,1\n"
    if kind == "json":
        text = '{"user": "U", "item": "é", "time": 2}\n{"user": "U", "item": "b", "time": 1}\n'
    path = written(tmp_path, text.encode(encoding), f"a.{kind}")
    assert histories(read(path)) == [["b", "é"]]


def test_an_encoding_counts_only_in_the_columns_that_count(tmp_path):
    content = f"{HEADER}u,a,2,Amélie\nu,b,1,x\n".encode("latin-1")
    assert histories(read(written(tmp_path, content))) == [["b", "a"]]
    path = written(tmp_path, content.replace(b",a,", b",\xe9,"))
    assert "--encoding" in refused(path)
    assert histories(read(path, encoding="latin-1")) == [["b", "é"]]
    assert "--encoding" in refused(path, encoding="utf-16-le")
    assert "no encoding is called 'latin9000'" in refused(path, encoding="latin9000")


@pytest.mark.parametrize("separator", [";", "|", "\t", "::", "tab", "||", "^"])
def test_separators(tmp_path, separator):
    between = "\t" if separator == "tab" else separator
    text = "".join(
        between.join(row) + "\n" for row in (["user", "item", "time"], ["u", "a:x", "2"], ["u", "b", "1"])
    )
    path = written(tmp_path, text)
    assert histories(read(path, separator=separator)) == [["b", "a:x"]]
    if separator != "^":
        assert histories(read(path)) == [["b", "a:x"]]  # the only one in the header
    else:
        assert "--separator" in refused(path)


def test_a_header_among_the_data_is_no_row(tmp_path):
    rows = "user,item,time\nu1,a,2\nu1,b,1\n"
    with pytest.warns(UserWarning, match="the header occurs 1 more time"):
        found = read(written(tmp_path, rows + "user,item,time\nu1,c,3\n"))
    assert histories(found) == [["b", "a", "c"]]
    assert found.understood.left_out == {"header among the rows": 1}
    assert histories(read(written(tmp_path, rows), columns="0,1,2")) == [["b", "a"]]
    assert histories(read(written(tmp_path, rows.replace(",", "\t"), "a.data"))) == [["b", "a"]]
    with pytest.warns(UserWarning, match="the first row, who, what, is taken for a header"):
        assert histories(read(written(tmp_path, "who,what\n1,5\n1,4\n"), columns="0,1")) == [[5, 4]]


def test_a_dat_file_of_another_layout_is_not_taken_for_movielens(tmp_path):
    rows = "0,2001-01-10T21:37:21Z,36,0\n0,2001-01-09T21:37:21Z,5,0\n"
    for text in (rows, rows.replace(",", "\t")):
        assert "name them with --columns" in refused(written(tmp_path, text, "a.dat"))
        assert histories(read(tmp_path / "a.dat", columns="0,2,1")) == [[5, 36]]


# Which columns


@pytest.mark.parametrize(
    "name", ["event_time", "ts", "t", "time_ms", "click_time", "TIME", "unixTimestamp", "created_at", "t_dat"]
)
def test_a_time_column_by_any_usual_name(tmp_path, name):
    assert histories(read(written(tmp_path, f"user,item,{name}\n1,7,2\n1,8,1\n"))) == [[8, 7]]


@pytest.mark.parametrize(
    "name", ["release_date", "play_time", "duration", "updated_at", "time_zone", "weight", "title"]
)
def test_no_other_column_is_taken_for_a_time_and_it_is_said(tmp_path, name):
    assert not may_be_time(name)
    path = written(tmp_path, f"user,item,{name}\n1,7,2\n1,8,1\n")
    with pytest.warns(UserWarning, match=f"no column is known as a time among {name}"):
        assert histories(read(path)) == [[7, 8]]
    assert histories(read(path, columns="user,item")) == [[7, 8]]  # asked for: nothing to say


def test_of_several_times_the_finest_is_taken_and_it_is_said(tmp_path):
    rows = "".join(f"1,{n},2020-01-0{1 + n // 5},{1000 - n},12:00\n" for n in range(10))
    path = written(tmp_path, "user,item,date,event_time,time\n" + rows)
    with pytest.warns(UserWarning, match="event_time is the finest, so it is used"):
        assert histories(read(path)) == [list(range(9, -1, -1))]


def test_columns_that_may_both_be_it_are_refused_unless_they_say_the_same(tmp_path):
    path = written(tmp_path, "user,item,item_id,time\n1,a,7,1\n1,b,7,2\n")
    assert "item and item_id may both be the item, and differ; choose with --columns" in refused(path)
    assert histories(read(written(tmp_path, "user,item,item_id,time\n1,a,7,2\n1,b,8,1\n"))) == [["b", "a"]]
    path = written(tmp_path, "user,item,time,time\n1,a,1,2\n1,b,2,1\n")
    assert "several columns are called time" in refused(path)
    assert histories(read(path, columns="0,1,3")) == [["b", "a"]]


def test_json_has_the_columns_of_all_its_objects(tmp_path):
    rows = [{"user": 1, "item": n} for n in range(1500)] + [{"user": 1, "item": 1500, "timestamp": 5}]
    text = "\n".join(map(json.dumps, rows))
    assert "1500 row(s) have no time, the first is row 1; --drop-missing" in refused(
        written(tmp_path, text, "a.json")
    )
    assert "no time, the first is row 1" in refused(written(tmp_path, json.dumps(rows), "a.json"))


# Missing values


@pytest.mark.parametrize(
    "missing", ["", '""', "NULL", "null", "NaN", "nan", "None", "NA", "N/A", "<NA>", "\\N", "  "]
)
@pytest.mark.parametrize("role", [0, 1, 2])
@pytest.mark.parametrize("text", [False, True])
def test_a_missing_value_is_refused_or_left_out_and_counted(tmp_path, missing, role, text):
    rows = (
        [["u1", "i1", "1"], ["u1", "i2", "2"], ["u2", "i3", "3"]]
        if text
        else [list("111"), list("122"), list("233")]
    )
    rows.insert(1, list(rows[0]))
    rows[1][role] = missing
    name = ["user", "item", "time"][role]
    path = written(tmp_path, "user,item,time\n" + "".join(",".join(row) + "\n" for row in rows))
    assert f"1 row(s) have no {name}, the first is row 2; --drop-missing leaves them out" in refused(path)
    found = read(path, drop_missing=True)
    assert found.understood.left_out == {f"no {name}": 1}
    assert (
        found.digest
        == read(
            written(tmp_path, "user,item,time\n" + "".join(",".join(r) + "\n" for r in rows[:1] + rows[2:]))
        ).digest
    )


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity", "nan"])
def test_a_time_that_is_not_finite_is_missing(tmp_path, value):
    assert "no time, the first is row 2" in refused(
        written(tmp_path, f"user,item,time\n1,1,1.5\n1,2,{value}\n")
    )
    frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1.5, float(value)]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert "no time, the first is row 2" in refused(tmp_path / "a.parquet")


def test_nothing_remains(tmp_path):
    assert "no row remains" in refused(written(tmp_path, "user,item\nNA,1\n"), drop_missing=True)


# Ids and numbers


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([BIG, BIG + 1, 2 * BIG - 1], pl.UInt64),
        ([BIG * BIG, 1, 2], pl.Int128),
        ([2, 10, 7], pl.UInt64),
        ([Decimal("10"), Decimal("7"), Decimal("2")], pl.Decimal(38, 0)),
        (["10", "7", "2"], pl.Categorical),
        ([b"x", b"y", b"z"], pl.Binary),
        ([1.0, 2.0, 4.0], pl.Float64),
    ],
)
def test_ids_of_every_type_stay_apart_and_in_order(tmp_path, values, kind):
    frame = pl.DataFrame({"item": pl.Series(values, dtype=kind), "user": 1, "time": [5, 3, 4]})
    frame.write_parquet(tmp_path / "a.parquet")
    text = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    assert [str(item) for item in histories(read(tmp_path / "a.parquet"))[0]] == [text[1], text[2], text[0]]


@pytest.mark.parametrize("values", [[[1], [2, 3]], [{"a": 1}, {"a": 2}], [True, False]])
def test_ids_that_are_none_are_refused(tmp_path, values):
    pl.DataFrame({"user": [1, 1], "item": values, "time": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    assert "the column item holds" in refused(tmp_path / "a.parquet")
    text = "\n".join(json.dumps({"user": 1, "item": value, "time": 1}) for value in values)
    assert "row 1: item holds" in refused(written(tmp_path, text, "a.json"))


def test_json_values_of_changing_types(tmp_path):
    rows = [(1, "b", 5), ("1", "a", 4.5), (1, "a", 4), ("x", 5, 3), ("x", "5", 2)]
    text = "\n\n".join(json.dumps({"user": u, "item": i, "time": t}) for u, i, t in rows)
    for content in (text, "[" + text.replace("\n\n", ",\n") + "]"):
        assert histories(read(written(tmp_path, content, "a.json"))) == [["a", "a", "b"], ["5", "5"]]


def test_spaces_around_fields_are_none_of_them(tmp_path):
    path = written(tmp_path, "user, item, time\n1, a, 2\n1 ,a ,1\n")
    found = read(path)
    assert (found.num_users, found.num_items) == (1, 1)


# Several files, ratings, what is shown


def test_several_files_are_one(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    frame = pl.DataFrame({"user": [n % 3 for n in range(30)], "item": range(30)})
    for part in range(12):  # part-10 comes after part-9: without times, the order counts
        frame[part * 2 : part * 2 + 2 if part < 11 else 30].write_parquet(folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").write_bytes(b"")
    frame.write_parquet(tmp_path / "whole.parquet")
    whole = read(tmp_path / "whole.parquet").digest
    assert read(folder).digest == read(folder / "part-*.parquet").digest == whole
    assert last_change(folder) == last_change(folder / "part-*.parquet") > 0
    frame.rename({"item": "movie_id"}).write_parquet(folder / "part-12.parquet")
    assert "part-12.parquet: the columns are not those of the first file" in refused(folder)
    (folder / "part-12.parquet").unlink()
    written(folder, "user,item\n1,2\n", "a.csv")
    assert "holds .csv and .parquet files" in refused(folder)
    assert "no file matches" in refused(folder / "*.tsv")


def test_a_row_of_several_files_is_named_by_its_file(tmp_path):
    written(tmp_path, "user,item\n1,2\n1,3\n", "a-1.csv")
    written(tmp_path, "user,item\n1,2\n,3\n", "a-2.csv")
    assert "the first is row 4" in (said := refused(tmp_path / "a-*.csv"))
    assert "a-2.csv, row 2" in said


def test_a_member_of_an_archive(tmp_path):
    text = "user,item,time\n1,7,2\n1,8,1\n"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/ratings.csv", text)
        archive.writestr("data/README.txt", "hello")
        archive.writestr("__MACOSX/data/._ratings.csv", "x")
    assert histories(read(tmp_path / "a.zip")) == [[8, 7]]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("data/more.csv.gz", gzip.compress(text.encode()))
    assert "name the member to read: " in refused(tmp_path / "a.zip")
    for member in ("data/ratings.csv", "data/more.csv.gz"):
        assert histories(read(tmp_path / "a.zip" / member)) == [[8, 7]]
    assert "name the member to read" in refused(tmp_path / "a.zip/nothing.csv")
    assert "not readable as .zip" in refused(written(tmp_path, "hello", "b.zip"))


def test_low_ratings_are_left_out_and_counted(tmp_path):
    path = written(tmp_path, "user,item,rating,time\n1,7,4.5,3\n1,8,3,2\n1,9,4,1\n")
    found = read(path, min_rating=4)
    assert histories(found) == [[9, 7]]
    assert found.understood.left_out == {"rating below 4": 1}
    assert histories(read(written(tmp_path, "1::7::5::3\n1::8::3::2\n", "a.dat"), min_rating=4)) == [[7]]
    bare = written(tmp_path, "1,7,5,3\n1,8,3,2\n")
    assert histories(read(bare, columns="0,1,3,2", min_rating=4)) == [[7]]
    assert "name it with --columns USER,ITEM,TIME,RATING" in refused(bare, columns="0,1,3", min_rating=4)


def test_what_was_understood_is_described(tmp_path):
    found = describe(read(written(tmp_path, HEADER + "1,2,5,a\n1,3,4,b\nNA,3,4,b\n"), drop_missing=True))
    assert found["columns"] == {"user": "user_id", "item": "item_id", "time": "timestamp"}
    assert (found["order"], found["rows"], found["left_out"]) == ("by timestamp", 3, {"no user": 1})
    assert found["first_rows"] == [["1", "2", "5"], ["1", "3", "4"], ["NA", "3", "4"]]


def test_options_of_tables_are_refused_for_lines(tmp_path):
    assert "--min-rating is for tables" in refused(written(tmp_path, "1 2 3\n", "a.txt"), min_rating=4)


def test_options_of_text_that_say_nothing_about_another_table_are_named(tmp_path):
    pl.DataFrame({"user": [1, 1], "item": [2, 3], "time": [5, 6]}).write_parquet(tmp_path / "a.parquet")
    lines = '{"user": 1, "item": 2, "time": 5}\n{"user": 1, "item": 3, "time": 6}\n'
    path = written(tmp_path, lines, "a.jsonl")
    for file, option in (
        (path, "separator"),
        (path, "quote"),
        (tmp_path / "a.parquet", "separator"),
        (tmp_path / "a.parquet", "quote"),
        (tmp_path / "a.parquet", "encoding"),
    ):
        with pytest.warns(UserWarning, match=f"is read as {file.suffix}, so --{option} has no effect"):
            assert len(read(file, **{option: "utf-8"}).items) == 2


def test_settings_travel_with_a_checkpoint_and_old_ones_lack_them():
    given = {
        "separator": ";",
        "quote": "none",
        "encoding": "latin-1",
        "time_format": "%d.%m.%Y",
        "min_rating": 4.0,
    }
    config = configure({"data": "a.csv", "drop_missing": True, **given})
    assert config.reading.items() >= {"drop_missing": True, **given}.items()
    assert configure(config.settings) == config
    old = {
        name: value
        for name, value in Config(data="a.csv").settings.items()
        if name not in ("drop_missing", *given)
    }
    assert configure(old) == Config(data="a.csv")

"""Delimited text is read as Python's csv module reads it, or not in silence: every row, in its order.

Files are drawn from a seed: 200 in the suite, TABLES or 10,000 with `pytest -m soak`.
"""

import csv
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from landscape import InputError
from samrec.data.readers import read

SOME, MANY = 200, int(os.environ.get("TABLES", "10000"))
TITLES = [
    "Plain",
    'Say "Yes',
    '12" mix',
    '"Heroes"',
    '"A" and "B"',
    '"Unclosed',
    "",
    " ",
    '"',
    "a,b;c|d",
    "naïve",
    "日",
]
BREAKS = ["two\nlines", "two\r\nlines", 'q"\n,"', "tab\there"]
Row = tuple[str, str, str, str]


def rows_of(random: Random) -> list[Row]:
    users = random.choice([["7", "07", "8"], ["alice", "bob,b", "c"], ["u 1", "é", "9" * 25]])
    items = random.choice([[str(n) for n in range(9)], ["x", "y z", "w'"], ["0012", "12", "B00"]])
    titles = TITLES + random.choice([[], BREAKS])
    return [
        (random.choice(users), random.choice(items), str(random.randrange(10**9)), random.choice(titles))
        for _ in range(random.randrange(1, 40))
    ]


def with_blanks(random: Random, lines: list[str]) -> str:
    """Put blank lines between some records."""
    return "".join(
        line + (random.choice(["\n", "\r\n", "\n\n"]) if random.random() < 0.05 else "") for line in lines
    )


def written_as_csv(random: Random, rows: list[Row], separator: str) -> str:
    """What csv.writer makes of the rows."""
    lines = []
    settings = {
        "delimiter": separator,
        "quoting": random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "lineterminator": random.choice(["\n", "\r\n", "\r"] if random.random() < 0.3 else ["\n"]),
    }
    for row in [("user", "item", "timestamp", "title"), *rows]:
        line = io.StringIO(newline="")
        csv.writer(line, **settings).writerow(row)
        lines.append(line.getvalue())
    return (
        with_blanks(random, lines)
        if random.random() < 0.3 and settings["lineterminator"] != "\r"
        else "".join(lines)
    )


def written_bare(random: Random, rows: list[Row], separator: str) -> str:
    """The rows without quoting, as many tools write them."""
    bare = [tuple(" ".join(field.replace(separator, ".").split()) or "-" for field in row) for row in rows]
    lines = [separator.join(row) + "\n" for row in [("user", "item", "timestamp", "title"), *bare]]
    return with_blanks(random, lines) if random.random() < 0.3 else "".join(lines)


def by_csv(text: str, separator: str, quoting: int) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    return [row for row in reader if len(row) > 1][1:]


def histories_of(rows: list[list[str]]) -> list[list[str]]:
    histories: dict[str, list[str]] = {}
    for user, item, *_ in sorted(rows, key=lambda row: int(row[2])):
        histories.setdefault(user, []).append(item)
    return sorted(histories.values())


def encoded(random: Random, text: str) -> tuple[bytes, str | None]:
    """The text in some encoding, and what to call it where the file does not tell."""
    name = random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
    try:
        content = text.encode(name)
    except UnicodeEncodeError:
        return text.encode(), None
    return content, name if name in ("latin-1", "cp1252") else None


def drawn(seed: int) -> tuple[str, bytes, dict[str, str], list[list[str]]]:
    """A file: its name, content, the options to read it with, and its rows by the csv module."""
    random = Random(seed)
    rows = rows_of(random)
    kind = random.choice([".csv", ".csv", ".csv", ".tsv", ".inter"])
    separator = random.choice(",,,;|\t") if kind == ".csv" else "\t"
    bare = kind != ".csv" or random.random() < 0.4
    text = (written_bare if bare else written_as_csv)(random, rows, separator)
    if random.random() < 0.2:
        text = text.removesuffix("\n").removesuffix("\r")
    quoting = csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
    content, encoding = encoded(random, text)
    options = {"separator": separator} if separator != "," or random.random() < 0.5 else {}
    options |= {"encoding": encoding} if encoding else {}
    return f"a{kind}", content, options, by_csv(text, separator, quoting)


def faults(seeds: range, folder: Path) -> Iterator[str]:
    """Yield what was read wrongly without a word, and in the end how many files were refused if many were."""
    refused = 0
    for seed in seeds:
        name, content, options, rows = drawn(seed)
        (folder / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = read(folder / name, **options)
            except InputError:
                refused += 1
                continue
        ids = found.item_ids[found.items].tolist()
        read_as = [ids[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]
        if sorted([str(item) for item in history] for history in read_as) != histories_of(rows) and not said:
            yield f"seed {seed}: {len(found.items)} rows of {len(rows)}: {content[:200]!r}"
    if refused > len(seeds) // 20:
        yield f"{refused} of {len(seeds)} files refused"


def test_no_row_and_no_order_is_lost_in_silence(tmp_path):
    assert list(faults(range(SOME), tmp_path)) == []


@pytest.mark.soak
def test_no_row_and_no_order_is_lost_in_silence_for_long(tmp_path):
    assert list(faults(range(10**6, 10**6 + MANY), tmp_path)) == []

"""The numbers that the study's sentences quote are those of its tables."""

import re

import pytest

from figures.__main__ import FOLDER

ROOT = FOLDER.parent
STUDY = (ROOT / "docs" / "study.md").read_text("utf-8")
TABLES = "\n".join(path.read_text("utf-8") for path in sorted((FOLDER / "gallery").glob("*.md")))
QUOTED = re.compile(r"\d*\.\d+|\d+(?=%|°| degrees)")
ELSEWHERE = {
    "11.04": "the paper",
    "15.48": "the paper",
    "3": "the rule of decision",
    "5": "the level of the tests, and the withdrawn study on Beauty",
    "17": "the withdrawn study",
    "0.02": "the initialization",
    "0.1": "the default radius",
    "5.7": "an estimate near its error, from figures/results/minima",
    "1.2": "a training that is no longer recorded",
    "1.3": "Yelp under its first limits",
    "1.8": "the pair that is recorded in its place",
}


def numbers(text: str, pattern: re.Pattern[str] = QUOTED) -> set[str]:
    """Every decimal number and percentage without its sign, .05 as 0.05."""
    return {f"0{one}" if one.startswith(".") else one for one in pattern.findall(text)}


KNOWN = numbers(TABLES, re.compile(r"\d*\.?\d+")) | ELSEWHERE.keys()


def prose(text: str) -> str:
    """The sentences alone, without tables, pictures and code."""
    text = re.sub(r"<!-- \S+\.md -->\n.*?<!-- end -->", "", text, flags=re.DOTALL)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)|`[^`]*`|\]\([^)]*\)", "", text)


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", STUDY, flags=re.DOTALL | re.MULTILINE)
    return prose(found)


@pytest.mark.parametrize("title", ["What was found", "Landscapes"])
def test_a_number_of_the_study_stands_in_one_of_its_tables(title):
    quoted = numbers(section(title))
    assert len(quoted) > 10
    assert quoted <= KNOWN


@pytest.mark.parametrize(
    ("page", "start"), [("README.md", "Does SAM help"), ("docs/study.md", "**In short:**")]
)
def test_a_summary_quotes_the_studys_tables(page, start):
    text = (ROOT / page).read_text("utf-8")
    (found,) = re.findall(rf"^{re.escape(start)}.*?\n\n", text, re.DOTALL | re.MULTILINE)
    quoted = numbers(prose(found))
    assert len(quoted) > 3
    assert quoted <= KNOWN


def test_a_number_that_no_table_has_is_found():
    assert numbers(prose("It is 12.3% [−4.5, .67] and 89%, not `1.2`, by 3.4°.")) == {
        "12.3",
        "4.5",
        "0.67",
        "89",
        "3.4",
    }

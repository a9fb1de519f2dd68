"""Pages, help texts, docstrings and messages avoid the phrases that no native speaker would say here.

Only what a pattern can find without false alarms is listed. The rest needs a reader.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = (
    "(?:batch|card|checkpoint|core|direction|epoch|item|layer|pair|point|position|rank|row|run|slot|step|tensor|"
    "user|vector|view)"
)
PATTERNS = {
    "'A is no B' is literary; write 'A is not a B'": (
        r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|evidence\b|\w+er\b)[a-z]",
        "sasrec is no minimum of this loss",
        "there is no such file; it is no longer there; it is no larger",
    ),
    "a sentence that begins with 'Of' hides its subject; begin with the subject": (
        r"(?:^|[.!?] )Of (?!course\b|these\b|those\b|\d|two\b|three\b|four\b|five\b)",
        "Of everything that is drawn.",
        "Of five measures, one says that it is flatter. Of course.",
    ),
    "'so many' is not a number; name the number": (
        r"\b[Ss]o (?:many|few)\b(?! (?:\w+ )?that\b)",
        "At most so many (400).",
        "So few digits that the sum is exact, in as many steps.",
    ),
    "'a step' for a rate; write 'per step'": (
        rf"(?:\b(?:one|row|number|negatives?|heads|steps|products|draws|seconds|minutes|hours|bytes|[kMG]B|ms)"
        rf"|\d) an? {UNIT}\b",
        "One negative a position, 2.22 a slot.",
        "It takes a step. Each row has a point; once a step.",
    ),
    "'told apart'; write 'distinguished'": (
        r"\bt(?:old|ell|ells|elling)(?: \w+)? apart\b",
        "The two are not told apart.",
        "The two are not distinguished.",
    ),
    "'one's own'; write 'your own'": (
        r"\bone's own\b",
        "a picture of one's own model",
        "a picture of your own model",
    ),
    "'none of a B'; write 'not a B', 'nothing' or 'no part of it'": (
        r"\b(?:is|are|was|were) none of (?:an?|it|the)\b|\bnone of it\b",
        "line 3 is none of a training",
        "None of them covers it, and it is none of these.",
    ),
    "'is beside it'; write 'is next to it'": (
        r"\b(?:is|are|stands?|stood) beside\b",
        "The errors are beside it.",
        "The errors are next to it.",
    ),
    "a predicate before its verb; put the subject first": (
        r"(?:^|[.!?] )(?:Not \w+|Public|Published) (?:is|are) ",
        "Not distinguishable is what lies within its interval.",
        "Not all of them are. Nothing is missing.",
    ),
    "'no A is named X'; write 'no A matches X'": (
        r"\b[Nn]o \w+ is named\b",
        "no parameter is named weight; there are bias",
        "no parameter matches weight; parameters: bias",
    ),
}
"""What is wrong and what to write: a pattern, a text that it finds, and one that it leaves alone."""


def paragraphs() -> Iterator[tuple[str, str]]:
    """Yield every paragraph of the pages, and of the strings in the code, with the file that it is in."""
    folders = ("", "docs", "docs/howto", "examples", "benchmarks")
    pages = [page for folder in folders for page in sorted((ROOT / folder).glob("*.md"))]
    for page in pages:
        if page.name != "CHANGELOG.md":  # it quotes what earlier versions said
            text = re.sub(r"^```.*?^```|<!-- .*? -->", "", page.read_text("utf-8"), flags=re.S | re.M)
            yield from ((page.name, part) for part in re.split(r"\n\s*\n|\n(?=[-|] )", text))
    for package in ("landscape", "samrec"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield from ((where, part) for part in re.split(r"\n\s*\n", node.value))


@pytest.mark.parametrize("reason", PATTERNS)
def test_a_pattern_finds_what_it_is_for_and_nothing_else(reason):
    pattern, bad, good = PATTERNS[reason]
    assert re.search(pattern, bad)
    assert not re.search(pattern, good)


def test_nothing_is_said_that_the_patterns_find():
    found = []
    for where, part in paragraphs():
        said = " ".join(re.sub(r"`[^`]*`", "X", part).split()).removeprefix("- ").removeprefix("| ")
        found += [
            f"{where}: …{said[max(0, hit.start() - 40) : hit.end() + 40]}… ({reason})"
            for reason, (pattern, *_) in PATTERNS.items()
            for hit in re.finditer(pattern, said)
        ]
    assert not found, "\n".join(found)

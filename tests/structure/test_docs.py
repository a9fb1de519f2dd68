"""The documentation: its links lead somewhere, it says what the code says, and it builds."""

import dataclasses
import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import landscape
import landscape.plots
import samrec
from landscape.cli.app import _commands, _declared
from landscape.flatness.measures import MEASURES
from landscape.surface.certificate import FRESH, uncovered
from tests.browser import chromium, faults, new_tab
from website.generated import generated, modules
from website.links import links

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDERS = ("", "docs", "docs/howto", "benchmarks", "examples")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
HOME = ROOT / "docs" / "index.md"


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for path, anchor in links(page.read_text("utf-8")):
        target = (page.parent / path).resolve() if path else page
        if page == HOME and not target.exists():  # the home page of the site links to what only the site has
            assert target.relative_to(ROOT).as_posix() in dict(generated(ROOT)), path
            continue
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_explained_as_the_code_has_it(name):
    text = (ROOT / "docs" / "measures.md").read_text("utf-8")
    (section,) = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    words = " ".join(section.split())
    assert f"`{MEASURES[name].formula}`" in words
    assert MEASURES[name].source in words
    assert ("`*`" in words) == MEASURES[name].invariant
    (latex,) = re.findall(r"^\$\$(.*)\$\$$", section, flags=re.MULTILINE)
    symbols = {"θ": "theta", "ρ": "rho", "σ": "sigma", "ε": "varepsilon", "δ": "delta"}
    for letter, command in symbols.items():
        assert (letter in MEASURES[name].formula) == (re.search(rf"\\{command}(?![a-z])", latex) is not None)


def test_the_certificate_covers_what_the_pages_say():
    covered = math.floor(100 * (1 - uncovered(FRESH, 1)))
    for page, times in (("surfaces", 2), ("reading", 1)):
        text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
        assert re.findall(r"(\d+)% of (?:it \(95%|the plane)", text) == [str(covered)] * times


def test_sentences_on_the_gallery_are_of_its_present_tables():
    gallery, docs = ROOT / "figures" / "gallery", ROOT / "docs"
    table = (gallery / "sharpness.md").read_text("utf-8")
    ends = re.findall(r"^\|[^|]* \* \|.*\[([\d.]+), ([\d.]+)\] \|$", table, flags=re.MULTILINE)
    counts = (
        len(ends),
        sum(float(high) < 1 for _, high in ends),
        sum(float(low) <= 1 <= float(high) for low, high in ends),
    )
    (said,) = re.findall(
        r"Of (\w+) measures with a `\*`, (\w+) says? that this SAMRec is flatter, and (\w+) shows? no clear",
        (docs / "reading.md").read_text("utf-8"),
    )
    assert said == tuple(["none", "one", "two", "three", "four", "five"][count] for count in counts)
    heights = re.findall(
        r"(one start|two starts) \| \d+ \| ([\d.]+ ± [\d.]+)", (gallery / "barriers.md").read_text("utf-8")
    )
    words = " ".join((docs / "surfaces.md").read_text("utf-8").split())
    (one, first), (two, second), *_ = heights
    assert f"it is {first} from SASRec to SAMRec of {one}, and {second} of {two}" in words


def options():
    """The options of each command, by its name."""
    for name, command in _commands().items():
        declared = _declared(name, command.found)
        for below, each in getattr(declared, "commands", {"": declared}).items():
            yield f"{name} {below}".strip(), {option for of in each.params for option in of.opts}


def test_all_measurements_that_take_a_task_are_named():
    text = (ROOT / "examples" / "README.md").read_text("utf-8")
    (said,) = re.findall(r"^(`surface`, .*) take `--task`", text, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", said)) == {name for name, of in options() if "--task" in of}


def test_every_option_on_a_command_line_of_a_page_exists():
    known, found = dict(options()), 0
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for name, given in re.findall(r"landscape ((?:data )?[a-z]+)([^`|#\n]*)", text):
            if name in known:
                asked = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", given))
                assert asked <= known[name], f"{page.name}: landscape {name} {asked - known[name]}"
                found += len(asked)
    assert found > 50


PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (landscape, landscape.plots, samrec)
    for name in package.__all__
    if callable(getattr(package, name))
}


def described(doc, section):
    """The names that a section of a docstring describes."""
    found = re.findall(rf"^{section}:\n((?:    .*\n|\n)*)", doc + "\n", flags=re.MULTILINE)
    names = re.findall(r"^    (\w+(?:, \w+)*): ", "".join(found), flags=re.MULTILINE)
    return {name for part in names for name in part.split(", ")}


def raises_here(function):
    """Whether a function's own lines refuse what they are given."""
    return "raise InputError(" in inspect.getsource(function)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_says_what_it_takes_returns_and_refuses(name):
    public = PUBLIC[name]
    doc = inspect.getdoc(public) or ""
    assert doc
    if not inspect.isclass(public):
        assert set(inspect.signature(public).parameters) <= described(doc, "Args")
        if inspect.signature(public).return_annotation not in {"Figure", Any, Iterator[None]}:
            assert doc.startswith("Return ") or "\nReturns:\n" in doc
        assert "\nRaises:\n" in doc or not raises_here(public)
        return
    if dataclasses.is_dataclass(public):
        docs = [inspect.getdoc(base) or "" for base in public.__mro__ if dataclasses.is_dataclass(base)]
        fields = {field.name for field in dataclasses.fields(public) if field.init and field.repr}
        assert fields <= set.union(*(described(text, "Attributes") for text in docs))
    for method, member in inspect.getmembers(public, inspect.isfunction):
        if not method.startswith("_") and member.__module__.partition(".")[0] in {"landscape", "samrec"}:
            said = inspect.getdoc(member) or ""
            assert said, method
            assert "Raises:" in said or not raises_here(member), method


LOOKED_AT = (
    "index", "docs/tutorial", "docs/measures", "docs/study", "docs/commands", "docs/gallery",
    "docs/howto/index", "docs/api/index", "docs/api/surface", "benchmarks/index",
)  # fmt: skip
"""Pages with pictures, tables, formulas, code, and what is generated."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it; a warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_the_site_has_each_command_and_each_public_name(site):
    commands = (site / "docs" / "commands.html").read_text("utf-8")
    for path in (*(ROOT / "landscape" / "cli").glob("*.py"), *(ROOT / "samrec" / "cli").glob("*.py")):
        if "\ndef command(" in path.read_text("utf-8"):
            assert f'id="landscape-{path.stem}"' in commands
    for name, public in modules().items():
        page = (site / "docs" / "api" / f"{name}.html").read_text("utf-8")
        assert all(f'id="{of}"' in page for of in public)
    shown = [name for public in modules().values() for name in public]
    assert set(PUBLIC) <= set(shown)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in [page.relative_to(ROOT).as_posix() for page in PAGES] + [page for page, _ in generated(ROOT)]:
        assert f" {page}\n" in navigation, page


def test_formulas_are_drawn_without_a_script(site):
    for name in ("measures", "bounds", "curvature", "surfaces"):
        page = (site / "docs" / f"{name}.html").read_text("utf-8")
        assert "<math" in page
        assert "arithmatex" not in page
        assert not re.search(r"\$\$|\\[a-z]+\{|\\(frac|theta|lVert)\b", page)


@pytest.mark.parametrize(
    ("words", "page"),
    [("notebook", "notebook"), ("out of memory", "memory"), ("huggingface", "huggingface")],
)
def test_the_search_finds_what_people_ask_for(site, words, page):
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    separator = index["config"]["separator"]
    found = {
        entry["location"].partition("#")[0]
        for entry in index["docs"]
        if set(words.split()) <= set(re.split(separator, f"{entry['title']} {entry['text']}".lower()))
    }
    assert f"docs/howto/{page}.html" in found


def test_the_home_page_is_its_own(site):
    home = (site / "index.html").read_text("utf-8")
    assert HOME.read_text("utf-8").splitlines()[0].removeprefix("# ") in home
    assert all(
        f'href="docs/{name}.html"' in home for name in ("tutorial", "commands", "api/index", "gallery")
    )


def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?([^\s\">]+)", page.read_text("utf-8")
        )
        assert not [url for url in loaded if url.startswith(("http", "//"))], page.name


@pytest.mark.browser
def test_at_every_width_pages_fit_read_in_order_and_ask_for_nothing(site):
    with chromium() as browser:
        tab, found = new_tab(browser), {}
        for name in LOOKED_AT:
            tab.goto((site / f"{name}.html").as_uri())
            if wrong := faults(tab):
                found[name] = wrong
        assert not found

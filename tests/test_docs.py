"""The documentation: its links lead somewhere, it says what the code says, and it builds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import landscape
import samrec
from landscape.flatness.measures import MEASURES
from website.links import links

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for folder in ("", "docs", "benchmarks", "examples") for path in (ROOT / folder).glob("*.md")
)


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for path, anchor in links(page.read_text("utf-8")):
        target = (page.parent / path).resolve() if path else page
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
    for path in (ROOT / "landscape" / "cli").glob("*.py"):
        if "\ndef command(" in path.read_text("utf-8"):
            assert f'id="landscape-{path.stem}"' in commands
    for package in (landscape, samrec):
        page = (site / "docs" / f"{package.__name__}.html").read_text("utf-8")
        assert all(f'id="{package.__name__}.{name}"' in page for name in package.__all__)


def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?([^\s\">]+)", page.read_text("utf-8")
        )
        assert not [url for url in loaded if url.startswith(("http", "//"))], page.name

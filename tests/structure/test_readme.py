"""What the README and the tutorial show must run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(page):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", [*python("README.md"), "\n".join(python("docs/tutorial.md"))])
def test_the_python_of_the_readme_and_the_tutorial_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page.md", "exec"), {})  # our own file
    assert capsys.readouterr().out.split()[0] == "True"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_pictures_exist_and_tables_are_those_of_the_gallery(page):
    text = page.read_text("utf-8")
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (page.parent / path).exists(), path
    for path, table in re.findall(r"<!-- (\S+\.md) -->\n(.*?)<!-- end -->", text, flags=re.DOTALL):
        assert table == (ROOT / path).read_text("utf-8"), path

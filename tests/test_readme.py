"""What the README shows must run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_the_python_of_the_readme_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # our own file
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

"""What the README, the home page, the tutorial and the how-tos show must run."""

import ast
import re
import warnings
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import landscape as ll
from landscape.errors import InputError

ROOT = Path(__file__).parents[2]
HOWTOS = sorted((ROOT / "docs" / "howto").glob("*.md"))


def python(page):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", ["docs/index.md", "docs/tutorial.md"])
def test_the_home_page_and_the_tutorial_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(python(page)), page, "exec"), {})  # our own file
    assert capsys.readouterr().out.split()[0] == "True"


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)
def test_the_blocks_of_a_how_to_run_one_after_another(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    try:
        for code in python(page):
            exec(compile(code, page.name, "exec"), names)  # our own file
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    except InputError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    finally:
        plt.close("all")


def quoted(page):
    """The expressions in a page's text that ask something of the package or of an objective."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`((?:ll|objective)\.[^`]+)`", text):
        with suppress(SyntaxError):  # a part is left out: …
            yield code, ast.parse(code, mode="eval")


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)
def test_what_a_how_to_quotes_in_its_text_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randint(2, (32,))
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    criterion, loader = torch.nn.CrossEntropyLoss(), [(x, y)]
    objective = ll.supervised(model, loader, criterion)
    ll.line(objective, grid=3).save("surface.npz")
    names = {"ll": ll, "model": model, "x": x, "y": y, "criterion": criterion, "loader": loader}
    names |= {"objective": objective, "objective_a": objective}
    for code, parsed in quoted(page):
        if {node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)} <= names.keys():
            with warnings.catch_warnings(action="ignore"):  # of a small model at a radius of 1
                eval(code, names)  # our own file


def ten_lines():
    """Return the README's Python, and what stands below it as its output."""
    text = (ROOT / "README.md").read_text("utf-8")
    (found,) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)
    return found


def printed_alike(said, printed):
    """Check two texts for the same words, and for numbers that are close."""
    number = r"\d+(?:\.\d*)?"
    assert re.sub(number, "", said) == re.sub(number, "", printed)
    # another machine rounds otherwise on the way through a hundred steps
    found, expected = (list(map(float, re.findall(number, part))) for part in (said, printed))
    assert found == pytest.approx(expected, rel=0.1, abs=2e-3)


def test_the_readmes_python_prints_what_stands_below_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, printed = ten_lines()
    exec(compile(code, "README.md", "exec"), {})  # our own file
    printed_alike(capsys.readouterr().out, printed)


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("\n") <= 130
    assert len(text.split()) <= 1300


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_pictures_exist_and_tables_are_those_of_the_gallery(page):
    text = page.read_text("utf-8")
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (page.parent / path).exists(), path
    for path, table in re.findall(r"<!-- (\S+\.md) -->\n(.*?)<!-- end -->", text, flags=re.DOTALL):
        assert table == (ROOT / path).read_text("utf-8"), path

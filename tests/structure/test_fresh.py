"""From a clone to the first picture of one's own model, by the README's words alone."""

import json
import os
import re
import resource
import subprocess
import time

import pytest

from tests.structure.test_readme import ROOT, printed_alike, ten_lines

SHOWN = ("import landscape", "objective = ", "surface = ", "surface.plot_3d()")
"""What the README's Python does with a model and its data: the lines that one types for one's own."""
LINES, SECONDS = 12, 180


def installing():
    """Return the lines of the README's section on installing, with that for a machine without a GPU first."""
    section = (ROOT / "README.md").read_text("utf-8").partition("## Install")[2].partition("\n## ")[0]
    (export,) = re.findall(r"`(export \S+)`", section)
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return [export, *block.splitlines()]


def using():
    """Return the lines of the README's Python before one's own model is drawn, and those that draw it."""
    lines = ten_lines()[0].splitlines()
    drawing = [line for line in lines if line.startswith(SHOWN)]
    assert len(drawing) == len(SHOWN)
    return [line for line in lines[: lines.index(drawing[1])] if line not in drawing], drawing


def test_twelve_lines_are_typed_at_most():
    typed = [*installing(), *using()[1]]
    assert len(typed) <= LINES, typed


@pytest.mark.soak
def test_the_readmes_words_lead_from_a_clone_to_a_picture(tmp_path, capsys):
    """In an empty home, an empty environment and a shell that asks nothing: a script, and then a notebook."""
    home, notebook = tmp_path / "home", tmp_path / "first.ipynb"
    home.mkdir()
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}  # of this machine
    clean = {"HOME": str(home), "PATH": os.environ["PATH"], **index}
    export, *words = installing()
    words = [export] * ("PIP_EXTRA_INDEX_URL" not in index) + [
        line.replace("REPOSITORY", str(ROOT)) for line in words
    ]
    assert any(str(ROOT) in line for line in words)
    code, printed = ten_lines()
    (tmp_path / "first.py").write_text(code, "utf-8")
    notebook.write_text(json.dumps(as_notebook(*using())), "utf-8")

    def shell(*lines):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        ran = subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=tmp_path, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return ran.stdout, cpu, time.perf_counter() - started

    entered = ["cd landscape", ". .venv/bin/activate"]
    _, installed, waited = shell(*words)
    said, ran, waiting = shell(*entered, "cd ..", "python first.py")
    printed_alike(said, printed)
    with capsys.disabled():
        print(f"\nclone and install: {waited:.0f} s ({installed:.0f} s of a core)")
        print(f"the README's Python: {waiting:.0f} s ({ran:.0f} s of a core)")
    # Not the wall's clock, on which other work, the disk and the network are seen.
    assert installed + ran < SECONDS

    shell(*entered, "pip install --constraint constraints.txt nbconvert ipykernel")
    shell(*entered, "cd ..", "jupyter nbconvert --to notebook --execute --inplace first.ipynb")
    *_, drawn = json.loads(notebook.read_text("utf-8"))["cells"]
    assert any("image/png" in output.get("data", {}) for output in drawn["outputs"])


def as_notebook(*cells):
    """Return a notebook of Python with a cell for each list of lines."""
    made = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": "\n".join(lines),
            "outputs": [],
            "execution_count": None,
        }
        for number, lines in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}

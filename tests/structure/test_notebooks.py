"""The notebooks run in a fresh kernel, and show what they draw."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "digits": ("EPOCHS, WIDTH, IMAGES, TOL = 5, 8, 256, 1e-2", "EPOCHS, WIDTH, IMAGES, TOL = 1, 2, 64, 0.3"),
    "recommender": ("USERS, EPOCHS, TOL = 300, 12, 1e-2", "USERS, EPOCHS, TOL = 60, 2, 0.3"),
}
"""The sizes that each notebook has at its top, and those of the tests."""


def test_every_notebook_is_tried():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)
    shown = (EXAMPLES / "README.md").read_text("utf-8")
    assert all(f"[{name}.ipynb]({name}.ipynb)" in shown for name in SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_stored_as_it_ran_and_small(name):
    path = EXAMPLES / f"{name}.ipynb"
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 300_000
    assert "/home/" not in path.read_text("utf-8")


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_in_a_fresh_kernel_and_each_plot_is_shown(name, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # which the command line sets for itself, in other tests
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if SMALL[name][0] in cell.source)
    first.source = first.source.replace(*SMALL[name])
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=EXAMPLES.parent)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        *_, last = cell.source.splitlines()
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if ".plot" in last or "plots." in last:
            assert kinds >= {"image/png"}, last
        elif last.isidentifier() and last not in ("between", "objectives"):
            assert kinds >= {"text/html", "text/plain"}, last

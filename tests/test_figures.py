from pathlib import Path

import pytest

from figures.__main__ import FIGURES, FOLDER, render
from figures.beauty import store
from landscape import load


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_from_stored_results(name, tmp_path):
    written = render([name], FOLDER / "results", tmp_path)
    assert {p.suffix for p in written} == {".png", ".pdf"}
    shown = {p.name for p in (FOLDER / "gallery").iterdir()}
    assert {p.name for p in written if p.suffix == ".png"} <= shown


def test_stored_results_are_small_and_whole(tmp_path):
    results = FOLDER / "results" / "beauty"
    store(results, tmp_path)
    files = sorted(Path(tmp_path).iterdir())
    assert [f.name for f in files] == sorted(f.name for f in results.iterdir())
    assert sum(f.stat().st_size for f in files) < 300_000
    assert {load(f).settings["seed"] for f in files if f.match("*.hessian.npz")} == {0}
    assert len(files) == 2 * 5 + 1  # plane, line, hessian, trace, sharpness; and the index

"""`python -m figures [NAME …]`: render figures into figures/gallery/, all of them if none is named."""

import sys
from pathlib import Path

from figures import beauty, curvature, valley
from landscape.plots.style import save_figures

FOLDER = Path(__file__).parent
FIGURES = {"beauty": beauty.figures, "curvature": curvature.figures, "valley": valley.figures}


def render(names: list[str], results: Path, gallery: Path) -> list[Path]:
    """Draw the named figures from `results` into `gallery`, as PNG and PDF; return the files."""
    written = []
    for name in names:
        drawn = FIGURES[name](results / name)
        written += save_figures({f"{name}-{part}": figure for part, figure in drawn.items()}, gallery)
    return written


if __name__ == "__main__":
    asked = sys.argv[1:] or list(FIGURES)
    if unknown := [name for name in asked if name not in FIGURES]:
        sys.exit(f"no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    for path in render(asked, FOLDER / "results", FOLDER / "gallery"):
        print(path)

"""`python -m figures [NAME …]`: render figures into figures/gallery/, all of them if none is named.

Behind every picture stands NAME.json, all that it shows, made of the results in figures/results/ alone.
The tables are also written into the pages that show them, between `<!-- figures/gallery/NAME.md -->` and
`<!-- end -->`.
"""

import argparse
import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from figures.style import rounded
from landscape.plots.interactive import save_html
from landscape.plots.style import save_figures
from landscape.storage.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
PAGES = ("README.md", "docs/study.md", "docs/sam-step.md")
TABLE = re.compile(r"(<!-- (\S+\.md) -->\n).*?(?=<!-- end -->)", re.DOTALL)
FIGURES = (
    "surfaces",
    "slices",
    "spectra",
    "sharpness",
    "minima",
    "training",
    "barriers",
    "stages",
    "levels",
    "ranking",
    "groups",
    "trials",
    "start",
    "generalization",
    "architecture",
    "steps",
)


class Drawn(Protocol):
    """What a file of a figure holds."""

    def data(self, results: Path) -> dict[str, Any]:
        """Return what the figure shows, as JSON holds it, of the stored results."""

    def draw(self, found: dict[str, Any]) -> "dict[str, Figure]":
        """Draw that: pictures by their part's name, empty where there is one alone. Few figures have none."""

    def texts(self, found: dict[str, Any]) -> dict[str, str]:
        """Return what is no picture, by its ending: a table (md). Not every figure has one."""

    def interactive(self, results: Path) -> Any:
        """Return a plotly figure to be turned in a browser, if there are results for one. Few figures do."""


def render(names: Sequence[str], results: Path, gallery: Path) -> list[Path]:
    """Draw the named figures from `results` into `gallery`, with the numbers behind; return the files."""
    written = []
    for name in names:
        drawn: Drawn = importlib.import_module(f"figures.{name}")
        found = rounded(drawn.data(results))
        texts = {"json": json.dumps(found, indent=1, ensure_ascii=False) + "\n"}
        texts |= drawn.texts(found) if hasattr(drawn, "texts") else {}
        for ending, text in texts.items():
            written.append(write_text(gallery / f"{name}.{ending}", text))
        if hasattr(drawn, "interactive") and (turned := drawn.interactive(results)):
            written.append(save_html(turned, gallery / f"{name}.html"))
        parts = drawn.draw(found) if hasattr(drawn, "draw") else {}
        pictures = {f"{name}-{part}" if part else name: figure for part, figure in parts.items()}
        written += save_figures(pictures, gallery)
    return written


def fill(page: Path, root: Path) -> None:
    """Write the tables that a page names, by their paths from `root`, where it shows them."""
    filled = TABLE.sub(lambda at: at[1] + (root / at[2]).read_text("utf-8"), page.read_text("utf-8"))
    write_text(page, filled)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--results", type=Path, default=FOLDER / "results")
    parser.add_argument("--gallery", type=Path, default=FOLDER / "gallery")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in FIGURES]:
        parser.error(f"no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    for path in render(asked.names or FIGURES, asked.results, asked.gallery):
        print(path)
    if asked.gallery == FOLDER / "gallery":
        for name in PAGES:
            fill(FOLDER.parent / name, FOLDER.parent)


if __name__ == "__main__":
    main()

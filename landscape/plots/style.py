"""One style for all figures: paper widths, embedded fonts, colours that the colour-blind can distinguish."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import printable
from landscape.storage.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.33, 7.0  # inches, ACM's column and page
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
DASHES = ("-", "--", ":")  # of lines, once all colours are in use
LOSS_MAP = "cividis"
DOLLAR = "\ue000"  # a single character in place of an escaped one, while lines are broken
DIFFERENCE_MAP = "PuOr"
MISSING = "#d9d9d9"

_SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.formatter.limits": (-4, 4),  # 19000 is 1.9 × 10⁴: long numbers push the panels together
    "lines.linewidth": 1.2,
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@contextmanager
def paper() -> Iterator[None]:
    """Use this style while the block runs.

    Only its own settings are put back at the end. Where pyplot is first imported in the block, it sets
    others, by which a notebook shows what is drawn later.
    """
    from matplotlib import rcParams

    before = {key: rcParams[key] for key in _SETTINGS}
    rcParams.update(_SETTINGS)
    try:
        yield
    finally:
        rcParams.update(before)


def save_figure(figure: "Figure", path: str | Path, dpi: int = 200) -> Path:
    """Write a figure, as png, pdf or svg by the ending of `path`.

    Args:
        figure: Matplotlib's, of a fixed size in inches.
        path: the file; an existing one is replaced.
        dpi: pixels per inch, for png.

    Returns:
        The path.
    """
    path = Path(path)
    # No date: the same figure is the same file.
    dated = {"pdf": "CreationDate", "svg": "Date"}.get(path.suffix[1:])
    with paper(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={dated: None} if dated else None)
    return path


def save_figures(figures: "Mapping[str, Figure]", folder: Path) -> list[Path]:
    """Write each figure as NAME.png and NAME.pdf; return the files.

    The second has the layout of the first: laying out takes as long as drawing.
    """
    files = []
    for name, figure in figures.items():
        files.append(save_figure(figure, folder / f"{name}.png"))
        figure.set_layout_engine("none")
        files.append(save_figure(figure, folder / f"{name}.pdf"))
    return files


def shown(name: str) -> str:
    """Escape a name for matplotlib: $…$ is a formula, and a legend leaves out names that begin with _."""
    plain = printable(name).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def folded(text: str, characters: int) -> str:
    """Break a text that matplotlib shows into lines that are not longer than a number of characters."""
    lines = text.replace(r"\$", DOLLAR).split("\n")
    return "\n".join(textwrap.fill(line, characters) for line in lines).replace(DOLLAR, r"\$")


def line_look(number: int) -> dict[str, Any]:
    """Return the colour and the dashes of a line, which differ for the first 21 of a figure."""
    again = number // len(COLORS) % len(DASHES)
    return {"color": COLORS[number % len(COLORS)], "ls": DASHES[again]}


def power_of_ten(written: str) -> str:
    """Return a number that Python wrote as 3e+05 as 3×10⁵."""
    digits, _, power = written.partition("e")
    if not power:
        return written
    raised = f"10{superscript(int(power))}"
    return {"1": raised, "-1": f"-{raised}"}.get(digits, f"{digits}×{raised}")


def subscript(number: int) -> str:
    """Return a number in subscript digits."""
    return "".join(chr(0x2080 + int(digit)) for digit in str(number))


def superscript(number: int) -> str:
    """Return a number in superscript digits."""
    return str(number).translate(_RAISED)

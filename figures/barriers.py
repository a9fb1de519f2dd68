"""The loss and NDCG@10 on the straight way between minima: of one start, and of two."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.style import COLOR, PAIR, missing, title
from landscape.plots.style import PAGE, paper
from landscape.storage.results import load_as
from landscape.surface.paths import STATIONS, PathProfile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAYS = {
    "one-start": ("SASRec to SAMRec, one start", COLOR["samrec"], "-"),
    "two-starts": ("SASRec to SAMRec, two starts", COLOR["samrec"], "--"),
    "two-sasrec": ("SASRec to SASRec, two starts", COLOR["sasrec"], "--"),
    "two-samrec": ("SAMRec to SAMRec, two starts", COLOR["cl4srec"], ":"),
}


def data(results: Path) -> dict[str, Any]:
    """Collect the ways by data set and loss."""
    found: dict[str, Any] = {}
    for path in sorted((results / PAIR / "barriers").glob("*.npz")):
        label, name = path.stem.rsplit(".", 1)
        way = load_as(PathProfile, path)
        found.setdefault(label, {})[name] = {
            "from": way.provenance["checkpoint"],
            "to": way.provenance["other"]["checkpoint"],
            "t": way.positions.tolist(),
            "losses": way.losses.tolist(),
            "height": way.height,
            "standard_error": way.standard_error,
            "distance": way.distance,
            "metrics": {key: dict(value) for key, value in way.metrics.items()},
        }
    return found


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw loss and NDCG@10, a row for each data set and loss."""
    from matplotlib.figure import Figure

    with paper():
        figure = Figure(figsize=(PAGE, 2.1 * max(1, len(found)) + 0.2))
        grid = figure.subplots(max(1, len(found)), 2, squeeze=False)
        for axes in grid.flat if not found else ():
            missing(axes)
        for (left, right), (label, ways) in zip(grid, found.items(), strict=False):
            for name, (said, color, style) in WAYS.items():
                if name not in ways:
                    continue
                way = ways[name]
                text = f"{said}: barrier {way['height']:.2g}"
                left.plot(way["t"], way["losses"], style, color=color, label=text)
                known = way["metrics"]["ndcg@10"]
                right.errorbar(
                    known["positions"],
                    known["values"],
                    known["standard_errors"],
                    fmt="o",
                    ls=style,
                    color=color,
                    ms=3,
                    lw=0.8,
                    elinewidth=0.6,
                    capsize=1.5,
                )
            left.set(ylabel=f"training loss ({title(label)})")
            right.set(ylabel="test NDCG@10", ylim=(0, None))
            left.legend(fontsize=6)
            for axes in (left, right):
                axes.set(xlabel="t", xticks=STATIONS)
        return {"": figure}

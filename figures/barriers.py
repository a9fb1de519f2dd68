"""The loss and NDCG@10 on the straight way between minima: of one start, and of two."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.style import COLOR, PAIR, markdown, missing, title
from landscape.plots.style import PAGE, paper
from landscape.storage.results import load_as
from landscape.surface.paths import STATIONS, PathProfile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETWEEN = "0.2"  # the colour of neither method
SHIFT = 0.012  # between the error bars of ways at one t, which would hide each other
WAYS = {
    "one-start": ("SASRec to SAMRec, one start", BETWEEN, "-"),
    "two-starts": ("SASRec to SAMRec, two starts", BETWEEN, "--"),
    "two-sasrec": ("SASRec to SASRec, two starts", COLOR["sasrec"], "--"),
    "two-samrec": ("SAMRec to SAMRec, two starts", COLOR["samrec"], "--"),
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
        figure = Figure(figsize=(PAGE, 2.1 * max(1, len(found)) + 0.4))
        grid = figure.subplots(max(1, len(found)), 2, squeeze=False)
        for axes in grid.flat if not found else ():
            missing(axes)
        for (left, right), (label, ways) in zip(grid, found.items(), strict=False):
            for number, (name, way) in enumerate((name, ways[name]) for name in WAYS if name in ways):
                _, color, style = WAYS[name]
                left.plot(way["t"], way["losses"], style, color=color, label=name)
                known = way["metrics"]["ndcg@10"]
                right.errorbar(
                    [t + SHIFT * (number - (len(ways) - 1) / 2) for t in known["positions"]],
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
            for axes in (left, right):
                axes.set(xlabel="t, from the first model to the second", xticks=STATIONS)
        lines = {line.get_label(): line for left in grid[:, 0] for line in left.lines}
        shown = [name for name in WAYS if name in lines]
        if shown:
            texts = [_said(name, found) for name in shown]
            figure.legend([lines[name] for name in shown], texts, loc="outside upper center", ncols=2)
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table: how far each pair of models is apart, and how high the loss rises between them."""
    rows = [
        [
            f"{title(label)}: {WAYS[name][0]}",
            f"{way['distance']:.0f}",
            f"{way['height']:.3f} ± {way['standard_error']:.3f}",
        ]
        for label, ways in found.items()
        for name, way in ((name, ways[name]) for name in WAYS if name in ways)
    ]
    head = ["straight way", "length", "barrier of the training loss"]
    return {"md": markdown(head, rows) if rows else "No way is measured yet.\n"}


def _said(name: str, found: dict[str, Any]) -> str:
    """Return what a way is, and its barrier for each data set and loss."""
    heights = ", ".join(f"{ways[name]['height']:.2g}" for ways in found.values() if name in ways)
    return f"{WAYS[name][0]}: barrier {heights}"

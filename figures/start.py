"""What SAM repairs: validations along the training from a good start and from a bad one, both methods."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.plan import LIMITS, ranked, starts
from figures.records import read_records
from figures.style import METHODS, METRICS, SETS, line
from landscape.plots.style import COLUMN, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = "Beauty"
METRIC = "ndcg@10"
STARTS = {"normal": ("N(0, 0.02²)", "-"), "xavier": ("Xavier", ":")}
CAPTION = (
    "Validation NDCG@10 on Beauty along the training, with linear weights from N(0, 0.02²), the default, and "
    "from Xavier's uniform distribution, the start of the first study. A line is a seed. SAMRec has half as "
    "many epochs for the same work."
)


def data(results: Path) -> dict[str, Any]:
    """Collect the validations of the runs from Xavier's start, and of the same seeds from the default one."""
    records = read_records(results)
    runs = [run for run in starts(records) if run.name in records]
    lines = []
    for run in runs:
        method, seed = str(run.settings.get("method", "sasrec")), run.settings["seed"]
        for start, own in (("normal", ranked(DATA, method, seed)), ("xavier", run)):
            if record := records.get(own.name):
                log = {key: [row[key] for row in record.log] for key in ("epoch", METRIC)}
                lines.append({"start": start, "method": method, "run": own.name, **log})
    return {"caption": CAPTION, "lines": lines}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw a line for each run; nothing while no run from the bad start is recorded."""
    from matplotlib.figure import Figure

    if not found["lines"]:
        return {}
    with paper():
        figure = Figure(figsize=(COLUMN, 2.4))
        axes = figure.subplots()
        named = set[str]()
        for method in LIMITS:
            for run in (run for run in found["lines"] if run["method"] == method):
                said, style = STARTS[run["start"]]
                text = f"{METHODS[method]}, {said}"
                label = None if text in named else text
                named.add(text)
                line(axes, method, run["epoch"], run[METRIC], ls=style, marker="", lw=0.9, label=label)
        axes.set(title=SETS[DATA], xlabel="epoch", ylabel=f"validation {METRICS[METRIC]}", ylim=(0, None))
        axes.legend(loc="lower right")
        return {"": figure}

"""What one step of SAM changes of the gradient of a training batch, before training and after."""

import json
from pathlib import Path
from typing import Any

from figures.measure import BATCHES, RHO, SATURATED
from figures.style import METHODS, PAIR, markdown, title


def data(results: Path) -> dict[str, Any]:
    """Collect what was measured: both methods begin with the same weights."""
    found: dict[str, Any] = {}
    for path in sorted((results / PAIR / "steps").glob("*.json"), reverse=True):
        label, method = path.stem.split(".")
        known = json.loads(path.read_text("utf-8"))
        rows = found.setdefault(label, {"before training": known["initial"]})
        rows[f"{METHODS[method]}, best epoch"] = known["best"]
    return {"rho": RHO, "batches": BATCHES, "saturated": SATURATED, "found": found}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table, means over batches ± their standard deviation."""
    head = ["", "loss", "saturated targets, negatives", "longer by", "turned by", "from batch to batch"]
    rows = []
    for label, known in found["found"].items():
        for name, row in known.items():
            rows.append(
                [
                    f"{title(label)}: {name}",
                    f"{row['loss']['mean']:.2f}",
                    f"{row['saturated_targets']['mean']:.0%}, {row['saturated_negatives']['mean']:.0%}",
                    f"{row['longer']['mean']:.1%} ± {row['longer']['sd']:.1%}",
                    f"{row['angle']['mean']:.1f}° ± {row['angle']['sd']:.1f}°",
                    f"{row['angle_of_batches']['mean']:.1f}° ± {row['angle_of_batches']['sd']:.1f}°",
                ]
            )
    return {"md": markdown(head, rows)}

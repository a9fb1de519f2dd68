"""What was run of the study, what was not, and what it costs."""

import inspect
from itertools import product
from pathlib import Path
from typing import Any

from figures.plan import CHOSEN_SEEDS, DATA, LIMITS, STAGES, by_stage, cut_off, ranked
from figures.records import read_records
from figures.style import markdown


def data(results: Path) -> dict[str, Any]:
    """Collect by stage the runs that are recorded and those that are not, with hours of one core.

    `taken` are hours of training alone, as they were logged. `left` is `Training.core_seconds`; runs of
    `tuned` whose settings are not known yet count as the default.
    """
    records = read_records(results)
    found = {}
    for stage, runs in by_stage(records).items():
        done = [run for run in runs if run.name in records and not cut_off(records[run.name], run)]
        left = [run for run in runs if run not in done]
        if stage == "tuned":
            left += [ranked(*place) for place in product(DATA, LIMITS, CHOSEN_SEEDS)][len(runs) :]
        found[stage] = {
            "contents": " ".join((inspect.getdoc(STAGES[stage]) or "").split()),
            "recorded": len(done),
            "runs": len(done) + len(left),
            "taken": sum(records[run.name].log[-1]["seconds"] for run in done) / 3600,
            "left": sum(run.core_seconds for run in left) / 3600,
        }
    return found


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table, a row for each stage and one for all."""
    whole = {
        key: sum(stage[key] for stage in found.values()) for key in ("recorded", "runs", "taken", "left")
    }
    rows = [
        [name, f"{of['recorded']} of {of['runs']}", f"{of['taken']:.1f}", f"{of['left']:.1f}", contents]
        for name, of, contents in (
            *((f"`{stage}`", of, of["contents"]) for stage, of in found.items()),
            ("all", whole, ""),
        )
    ]
    return {"md": markdown(["stage", "runs recorded", "hours of training", "hours left", "contents"], rows)}

"""Whom SAM suits: its gain for popular and other items, and for users with short and long histories."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.datasets import described, read_groups
from figures.gains import compared, holm, values
from figures.questions import LEVEL, PRIMARY, QUESTIONS, pairs_of, ranks_of
from figures.records import read_records
from figures.style import METRICS, SETS, gain_lines, gained, markdown, share
from landscape.plots.style import PAGE, paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "ndcg@10"
ASKED = (PRIMARY, "equal epochs")
GROUPS = {
    "head": "popular item",
    "tail": "other item",
    "cold": "short history",
    "warm": "longer history",
    "new": "new item",
    "repeated": "repeated item",
}
CAPTION = (
    "Gains of SAMRec over SASRec in test NDCG@10 in groups of users, means of the late checkpoints, with 95% "
    "intervals as in `ranking`. A popular item is among the fifth of all items with the most interactions; a "
    "short history has at most five interactions before the test item; a repeated item is in the history "
    "already, as on Yelp alone. Filled: p < .05 after Holm over the groups of all data sets."
)


def data(results: Path) -> dict[str, Any]:
    """Collect the gain in each group of users at equal work and at equal epochs; p by Holm over groups."""
    records = read_records(results)
    found: dict[str, Any] = {}
    for asked in ASKED:
        rows: list[dict[str, Any]] = []
        for name in QUESTIONS[asked].data:
            pairs = list(pairs_of(QUESTIONS[asked], name, records))
            if not pairs or not described(name, results):
                continue
            ours, theirs = (values(side, METRIC) for side in ranks_of(pairs, results))
            members = read_groups(name, results)
            for group in (group for group in GROUPS if not members[group].all() and members[group].any()):
                own, other = (side[:, members[group]] for side in (ours, theirs))
                row = {"data": name, "group": group, "share": float(members[group].mean())}
                levels = {"ours": float(own.mean()), "theirs": float(other.mean())}
                rows.append(row | compared(own, other)._asdict() | levels)
        known = [row for row in rows if row["p"] is not None]
        for row, p in zip(known, holm([row["p"] for row in known]).tolist(), strict=True):
            row["p"] = p
        found[asked] = rows
    return {"caption": CAPTION, "questions": found}


def draw(found: dict[str, Any]) -> "dict[str, Figure]":
    """Draw the gains, a panel for each question and a line for each group of a data set; nothing of none."""
    from matplotlib.figure import Figure

    questions = {name: rows for name, rows in found["questions"].items() if rows}
    if not questions:
        return {}
    with paper():
        figure = Figure(figsize=(PAGE, 0.9 + 0.17 * max(6, *map(len, questions.values()))))
        panels = figure.subplots(1, len(questions), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, rows) in zip(panels, questions.items(), strict=True):
            sections = [
                [(f"{SETS[data_set]}: {GROUPS[row['group']]}", row) for row in own]
                for data_set, own in groupby(rows, itemgetter("data"))
            ]
            gain_lines(axes, sections, LEVEL)
            axes.set(title=name, xlabel=f"gain in {METRICS[METRIC]}, %")
        return {"": figure}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table: a row for each group of a data set's users, for each question NDCG@10 and gain."""
    head = ["data", "users with a", "share of users"]
    for name in found["questions"]:
        head += [f"{name}: NDCG@10", "gain"]
    rows = [
        [
            SETS[same[0]["data"]],
            GROUPS[same[0]["group"]],
            f"{same[0]['share']:.0%}",
            *(
                cell
                for row in same
                for cell in (f"{share(row['theirs'])}, {share(row['ours'])}", gained(row))
            ),
        ]
        for same in zip(*found["questions"].values(), strict=True)
    ]
    return {"md": markdown(head, rows) if rows else "No pair of runs is recorded yet.\n"}

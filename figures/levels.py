"""What each method reaches on each data set, beside counting and what the authors of S3Rec print."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from figures.datasets import described, read_groups
from figures.plan import DATA
from figures.questions import PRIMARY, QUESTIONS
from figures.records import LARGEST, Record, read_ranks, read_records
from figures.style import METHODS, METRICS, SETS, markdown, share
from samrec.evaluation import metrics

COUNTED = {
    "popularity": "popularity",
    "markov": "Markov chain",
    "item-knn": "item-kNN",
    "recent-knn": "item-kNN, recent items count more",
}
MISSED = "Yelp, repeats missed"
"""Yelp with each test item that is in the history already counted as missed. No other data set has any."""
COLUMNS = {**SETS, MISSED: MISSED}
PUBLISHED = {
    "Beauty": (0.0605, 0.0318),
    "Toys_and_Games": (0.0675, 0.0374),
    "Sports_and_Outdoors": (0.0350, 0.0192),
    MISSED: (0.0274, 0.0136),
}
"""SASRec's HR@10 and NDCG@10 as the authors of S3Rec print them: this split, all items, repeats missed."""


def data(results: Path) -> dict[str, Any]:
    """Collect mean and standard deviation over seeds of the test metrics at the best epoch, by method."""
    records = read_records(results)
    rows: list[dict[str, Any]] = []
    for name, text in COUNTED.items():
        reached = {}
        for data in DATA:
            if known := described(data, results):
                reached[data] = _of([known["baselines"][name]])
                if data == "Yelp":
                    reached[MISSED] = _of([known["missed"][name]])
        rows.append({"method": text, "reached": reached})
    printed = {data: _of([dict(zip(METRICS, values, strict=True))]) for data, values in PUBLISHED.items()}
    rows.append({"method": "SASRec, as printed", "reached": printed})
    for method, by_data in _trained(records):
        reached = {data: _of([run.test for run in runs]) for data, runs in by_data.items()}
        if "Yelp" in by_data and described("Yelp", results):
            repeated = read_groups("Yelp", results)["repeated"]
            ranks = [read_ranks(run, results)[0] for run in by_data["Yelp"]]
            reached[MISSED] = _of([metrics(np.where(repeated, LARGEST, of_run)) for of_run in ranks])
        rows.append({"method": method, "reached": reached})
    return {"rows": rows}


def _trained(records: Mapping[str, Record]) -> Iterator[tuple[str, dict[str, list[Record]]]]:
    """Yield each method that a question compares, with its recorded runs by data set; each run once."""
    seen: set[str] = set()
    for name, question in QUESTIONS.items():
        for method in reversed(question.methods):
            by_data: dict[str, list[Record]] = {}
            for data in question.data:
                runs = [question.run(records, data, method, seed) for seed in question.seeds]
                if known := [records[run.name] for run in runs if run and run.name in records]:
                    by_data[data] = known
            names = {run.name for runs in by_data.values() for run in runs}
            if names - seen:
                seen |= names
                yield _label(name, method), by_data


def _label(question: str, method: str) -> str:
    """Return the method's name, and under what question its runs differ from the plain ones."""
    if method not in METHODS or METHODS[method] == question:
        return question if question in METHODS.values() else f"SASRec, {question}"
    return METHODS[method] if question == PRIMARY else f"{METHODS[method]}, {question}"


def _of(tested: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return how many runs there are, and each metric's mean and standard deviation, None of one run."""
    found: dict[str, Any] = {"seeds": len(tested)}
    for key in METRICS:
        values = np.array([of_run[key] for of_run in tested])
        found[key] = [float(values.mean()), float(values.std(ddof=1)) if len(tested) > 1 else None]
    return found


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table: a row for each method, for each data set HR@10 and NDCG@10."""
    head = ["", *(f"{COLUMNS[data]}: {title}" for data in COLUMNS for title in METRICS.values())]
    rows = [
        [row["method"], *(_cell(row["reached"].get(data), key) for data in COLUMNS for key in METRICS)]
        for row in found["rows"]
    ]
    return {"md": markdown(head, rows)}


def _cell(reached: dict[str, Any] | None, key: str) -> str:
    if reached is None:
        return "–"
    mean, deviation = reached[key]
    return share(mean) + (f" ± {share(deviation)}" if deviation is not None else "")

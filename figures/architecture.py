"""How SASRec ranks with each change of its architecture: what its default preset was chosen by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures.ablation import DATA, VARIANTS, Variant, ablation
from figures.plan import late_validation
from figures.records import Record, read_records
from figures.style import SETS, markdown, share

NEAR = 0.98
"""Validations differ by more than this from one to the next, so the best epoch alone is a matter of luck."""


def data(results: Path) -> dict[str, Any]:
    """Collect, by variant and data set, what each seed's validation reached, and when."""
    records = read_records(results / "ablation")
    found: dict[str, Any] = {label: {name: [] for name in DATA} for label in VARIANTS}
    for run in ablation():
        if run.name in records:
            found[run.label][run.data].append(_reached(records[run.name], run))
    return {"near": NEAR, "variants": found}


def _reached(record: Record, run: Variant) -> dict[str, Any]:
    by_epoch = {int(line["epoch"]): line["ndcg@10"] for line in record.log}
    best = max(by_epoch.values())
    near = min(epoch for epoch, value in by_epoch.items() if value >= NEAR * best)
    return {"best": best, "late": late_validation(record, run.rule), "near": near}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return the table, the best variant by the mean of both data sets first."""
    variants = found["variants"]

    def mean(label: str) -> float:
        first: list[float] = [variants[label][name][0]["late"] for name in DATA if variants[label][name]]
        return sum(first) / len(DATA)

    head = ["changed setting"]
    for name in DATA:
        head += [f"{SETS[name]}: late", "best", f"epochs to {NEAR:.0%} of it"]
    rows = []
    for label in sorted(variants, key=mean, reverse=True):
        cells = [f"`{label}`" if VARIANTS[label] else "none"]
        for name in DATA:
            seeds = variants[label][name]
            cells += [
                _values(seeds, "late"),
                _values(seeds, "best"),
                ", ".join(str(s["near"]) for s in seeds),
            ]
        rows.append(cells)
    return {"md": markdown(head, rows)}


def _values(seeds: Sequence[dict[str, Any]], key: str) -> str:
    return ", ".join(share(seed[key]) for seed in seeds) or "–"

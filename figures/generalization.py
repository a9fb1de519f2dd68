"""Do flat minima generalize? Sharpness beside the generalization gap, among runs that differ in one thing."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from figures.correlation import granulated
from figures.gains import holm
from figures.plan import DATA, LIMITS, SEEDS, Training, ranked, trials
from figures.records import Record, read_records
from figures.style import markdown, quantity

SHOWN = ("lambda_max", "trace", "sam", "asam", "average-adaptive", "fisher-rao")
FEWEST = 3  # pairs of which a correlation is shown: of one or two it is 1, 0 or -1 whatever they are
OUTCOMES = {"gap": "gap", "ndcg@10": "test NDCG@10"}
CAPTION = (
    "Kendall's τ of sharpness at a run's best epoch (512 users, dropout off) with the generalization gap, "
    "the loss of the validation items less that of training, and with test NDCG@10: over pairs of runs of "
    "one stratum alone, whose runs differ in the column's setting alone, except that SASRec may train twice "
    "as many epochs as SAMRec. Sharpness and outcomes change along a training, and SAM may change each by "
    "itself, so τ does not say that one causes the other. p by permutations within strata, after Holm over "
    "the measures. If flat minima generalize, τ is above 0 with the gap and below 0 with NDCG@10."
)


def data(results: Path) -> dict[str, Any]:
    """Correlate each measure with each outcome, along each setting."""
    records = read_records(results)
    looks = {name: look for name, record in records.items() if (look := _look(record, results))}
    found = {}
    for setting, strata in _strata().items():
        runs = [(stratum, run.name) for stratum, own in strata for run in own if run.name in looks]
        table = {}
        for outcome in OUTCOMES:
            cells = {
                key: granulated(
                    [looks[name][key] for _, name in runs],
                    [looks[name][outcome] for _, name in runs],
                    [stratum for stratum, _ in runs],
                )
                for key in SHOWN
            }
            known = {key: cell for key, cell in cells.items() if cell}
            ps = holm([cell.p for cell in known.values()]).tolist()
            table[outcome] = {
                key: {"tau": cell.tau, "p": p, "pairs": cell.pairs, "by_stratum": cell.by_stratum}
                for (key, cell), p in zip(known.items(), ps, strict=True)
            }
        if any(table.values()):
            found[setting] = {"runs": [name for _, name in runs], **table}
    return {"caption": CAPTION, "settings": found}


def _strata() -> dict[str, list[tuple[str, list[Training]]]]:
    """Return by setting the runs that differ in it alone, each group with its name."""
    pairs = [
        (f"{data} {seed}", [ranked(data, method, seed) for method in LIMITS])
        for data, seed in product(DATA, SEEDS)
    ]
    return {
        "SAM": pairs,
        "radius": [(data, list(_along(data, "samrec", "rho"))) for data in DATA],
        "dropout": [
            (f"{data} {method}", list(_along(data, method, "dropout")))
            for data, method in product(DATA, LIMITS)
        ],
    }


def _along(data: str, method: str, setting: str) -> Iterator[Training]:
    """Yield the trials that differ from the default in a setting alone, and the default."""
    first, *others = trials(data, method)
    yield first
    yield from (run for run in others if setting in run.settings)


def _look(record: Record, results: Path) -> dict[str, float]:
    path = results / "minima" / f"{record.name}.json"
    if not path.exists():
        return {}
    look = json.loads(path.read_text("utf-8"))
    known = {key: look[key] if key in look else look["measures"][key]["value"] for key in SHOWN}
    return known | {"gap": look["valid_loss"] - look["loss"], "ndcg@10": record.test["ndcg@10"]}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """Return a table: a row for each measure, for each setting a column with the gap and one with NDCG@10."""
    settings = found["settings"]
    if not settings:
        return {"md": "No pair of runs is measured yet.\n"}
    head = ["measure", *(f"{name}: {of}" for name in settings for of in OUTCOMES.values())]
    rows = [
        [
            quantity(key),
            *(_cell(settings[name][outcome].get(key)) for name in settings for outcome in OUTCOMES),
        ]
        for key in SHOWN
    ]
    return {"md": markdown(head, rows)}


def _cell(known: dict[str, Any] | None) -> str:
    if known is None:
        return "–"
    pairs = f"({known['pairs']} pair{'s' * (known['pairs'] > 1)})"
    return f"{known['tau']:+.2f}, p {known['p']:.2g} {pairs}" if known["pairs"] >= FEWEST else f"– {pairs}"

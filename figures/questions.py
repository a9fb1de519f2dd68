"""What the study asks, as pairs of runs, and the rule by which each is decided: docs/study.md."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from figures.gains import compared, holm, smallest, values
from figures.plan import (
    CHOSEN_SEEDS,
    CONTROLS,
    DATA,
    LIMITS,
    SEEDS,
    SHARES,
    THREE,
    TWO,
    Training,
    bert_run,
    chosen_run,
    ranked,
    rival,
    shared,
    softmax_run,
)
from figures.records import Record, read_ranks
from figures.stopping import Rule, Stopped, stopped
from landscape.errors import InputError
from samrec.data.interactions import Ints

LEVEL = 0.05
MARGIN = 0.03  # of a gain: a smaller one is of no practical use, whatever its sign
CLAIMED = (0.1104, 0.1548)  # the paper's gains, over four data sets, in HR@10 and NDCG@10
METRICS = ("ndcg@10", "hr@10")
PRIMARY = "equal work"
CHECKPOINTS = ("late", "best")
Asked = Callable[[Mapping[str, Record], str, str, int], Training | None]
Side = tuple[Record, Stopped]  # a run, and what it comes to under the rule by which it is looked at
Pair = tuple[Side, Side]  # ours and theirs, of one seed


class Question(NamedTuple):
    """A method beside another, on each data set; the p-values of a question are one family.

    Attributes:
        run: of the records, a data set, a method and a seed.
        methods: ours and theirs, as `run` takes them.
        seeds: of the pairs.
        data: the data sets.
        replayed: whether each run is looked at under another rule of stopping than its own, if it has one.
    """

    run: Asked
    methods: tuple[str, str] = ("samrec", "sasrec")
    seeds: tuple[int, ...] = THREE
    data: tuple[str, ...] = tuple(DATA)
    replayed: bool = False

    def rule(self, run: Training) -> Rule:
        """Return the rule of stopping under which a run is looked at."""
        return run.rules[0] if self.replayed and run.rules else run.rule


def _planned(make: Callable[..., Training], **own: Any) -> Asked:
    """Return what finds a run that is known beforehand."""
    return lambda records, data, method, seed: make(data, method, seed, **own)


def _controlled(records: Mapping[str, Record], data: str, method: str, seed: int) -> Training:
    return ranked(data, "sasrec", seed, **CONTROLS.get(method, {}))


def _rival(records: Mapping[str, Record], data: str, method: str, seed: int) -> Training:
    return bert_run(data, method, seed) if method in LIMITS else rival(data, method, seed)


QUESTIONS: Mapping[str, Question] = {
    PRIMARY: Question(_planned(ranked), seeds=SEEDS),
    "equal epochs": Question(_planned(ranked), seeds=SEEDS, replayed=True),
    "tuned": Question(chosen_run, seeds=CHOSEN_SEEDS),
    "sasrec-bert": Question(_planned(bert_run)),
    "sasrec-bert, stopped as S3Rec": Question(_planned(bert_run), replayed=True),
    "cross-entropy": Question(_planned(softmax_run)),
    "CL4SRec": Question(_rival, ("cl4srec", "sasrec"), data=TWO),
    "S3Rec": Question(_rival, ("s3rec", "sasrec"), data=TWO),
    **{name: Question(_controlled, (name, "sasrec"), data=TWO) for name in CONTROLS},
    **{f"{share:.0%} of the users": Question(_planned(shared, share=share), data=TWO) for share in SHARES},
    "Xavier's start": Question(_planned(ranked, init="xavier"), seeds=SEEDS[:2], data=("Beauty",)),
}
"""One is primary; the others are secondary, and decide nothing about it."""


def answers(question: Question, records: Mapping[str, Record], results: Path) -> list[dict[str, Any]]:
    """Return of each data set with a pair of runs the gains of both metrics at both kinds of checkpoints.

    `p` is adjusted by Holm over the data sets of the question, recorded or not; `seen` is the smallest gain
    that would have been seen with a probability of 80%, whatever the other data sets show.
    """
    rows = [_row(question, data, records, results) for data in question.data]
    found = [row for row in rows if row]
    for metric, which in ((metric, which) for metric in METRICS for which in CHECKPOINTS):
        cells = [row[metric][which] for row in found if row[metric][which]["p"] is not None]
        absent = [1.0] * (len(question.data) - len(cells))
        adjusted = holm([cell["p"] for cell in cells] + absent)
        for cell, p in zip(cells, adjusted.tolist(), strict=False):
            cell["p"] = p
    for row in found:
        row["decision"] = decision(row)
    return found


def _row(
    question: Question, data: str, records: Mapping[str, Record], results: Path
) -> dict[str, Any] | None:
    pairs = list(pairs_of(question, data, records))
    if not pairs:
        return None
    row: dict[str, Any] = {
        "data": data,
        "seeds": [ours.seed for (ours, _), _ in pairs],
        "planned": len(question.seeds),
        "runs": [[ours.name, theirs.name] for (ours, _), (theirs, _) in pairs],
        "unfinished": [any(end.unfinished for _, end in side) for side in zip(*pairs, strict=True)],
    } | {metric: {} for metric in METRICS}
    for which in CHECKPOINTS:
        sides = ranks_of(pairs, results, which)
        for metric in METRICS:
            ours, theirs = (values(side, metric) for side in sides)
            found = compared(ours, theirs)._asdict()
            error = found.pop("error")
            level = LEVEL / len(question.data)
            found["seen"] = smallest(error, len(pairs), level) if error else None
            row[metric][which] = found | {"ours": float(ours.mean()), "theirs": float(theirs.mean())}
    return row


def ranks_of(pairs: Sequence[Pair], results: Path, which: str = "late") -> list[list[Ints]]:
    """Return the ranks of the test items by ours and by theirs: shape (checkpoints, users) of each pair."""
    return [
        [read_ranks(record, results, end.late if which == "late" else (end.best,)) for record, end in side]
        for side in zip(*pairs, strict=True)
    ]


def pairs_of(question: Question, data: str, records: Mapping[str, Record]) -> Iterator[Pair]:
    """Yield the pairs of runs that are recorded.

    Raises:
        InputError: runs of a data set were trained on different data.
    """
    digests: dict[str, str] = {}
    for seed in question.seeds:
        sides = []
        for method in question.methods:
            run = question.run(records, data, method, seed)
            if run and run.name in records:
                record = records[run.name]
                sides.append((record, stopped(record.log, question.rule(run), record.epochs)))
        for record, _ in sides:
            digests.setdefault(record.digest, record.name)
        if len(digests) > 1:
            raise InputError(f"{' and '.join(digests.values())} were trained on different data of one name")
        if len(sides) == 2:
            yield sides[0], sides[1]


def decision(row: Mapping[str, Any]) -> str:
    """Decide one data set of a question, by NDCG@10 of the late checkpoints alone (docs/study.md).

    `helps` or `hurts`: p is below 5% after Holm, and the best checkpoints have the same sign. `no more than
    3%`: the interval lies within ±3%. `open`: neither. `unfinished`: seeds are missing, or a run ended within
    its patience of its best epoch.
    """
    late, best = (row["ndcg@10"][which] for which in CHECKPOINTS)
    if len(row["seeds"]) < row["planned"] or any(row["unfinished"]) or late["p"] is None:
        return "unfinished"
    if late["p"] < LEVEL and np.sign(late["gain"]) == np.sign(best["gain"]):
        return "helps" if late["gain"] > 0 else "hurts"
    if late["low"] > -MARGIN and late["high"] < MARGIN:
        return f"no more than {MARGIN:.0%}"
    return "open"


def overall(rows: list[dict[str, Any]]) -> str:
    """Decide the primary question over its four data sets."""
    found = [row["decision"] for row in rows]
    if len(found) < len(DATA) or "unfinished" in found:
        return "unfinished"
    helps, hurts = found.count("helps"), found.count("hurts")
    if helps >= 3 and not hurts:
        return "SAM helps"
    if hurts >= 3 and not helps:
        return "SAM hurts"
    if helps or hurts:
        return "it depends on the data"
    return "no effect was seen"

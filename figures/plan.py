"""What the study trains: every run, known by name before anything runs, by stage, in order of importance."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from figures.records import Record
from figures.stopping import Rule, stopped
from samrec.config import Config

DATA = {
    "Beauty": (22_363, 198_502, 12_101),
    "Toys_and_Games": (19_412, 167_597, 11_924),
    "Sports_and_Outdoors": (35_598, 296_337, 18_357),
    "Yelp": (30_431, 316_354, 20_033),
}
"""The data sets by the names of their files, with their users, interactions and items for the estimates."""

SEEDS = (0, 1, 2, 3, 4)
THREE = SEEDS[:3]
TWO = ("Beauty", "Toys_and_Games")  # of what is asked on two data sets
CHOSEN_SEEDS = (5, 6, 7)  # of what was chosen on seed 0: others than those it was chosen with
LIMITS = {"sasrec": Rule(600, 80), "samrec": Rule(300, 40)}
"""Epochs and patience. An epoch of SAM is two passes, so equal limits of work are half as many epochs."""
SLOWER = {"Yelp": 2}
"""How many times as many epochs are allowed where the best epoch comes later: docs/study.md says why."""
BERT = Rule(300, 40)
AUTHORS = Rule(300, 10, "ndcg@20")
"""S3Rec's authors stop after 10 validations without a better NDCG@20, the last of the metrics they print."""
CE = Rule(90, 15)
RADII = (0.02, 0.05, 0.2, 0.5)  # beside the default, 0.1
DROPOUTS = (0.2, 0.3)  # beside the default, 0.5
SHARES = (0.2, 0.4, 0.6, 0.8)
S3REC_STEPS = 150 * 1538  # of pre-training: the authors' epochs and steps an epoch, on Beauty
S3REC_BATCH = 32  # users a step: whole histories, about as many items as in the authors' 100 prefixes


@dataclass(frozen=True)
class Training:
    """A run that the study needs.

    Attributes:
        data: the data set's name.
        settings: those that are not the default.
        rules: other rules of stopping under which it is looked at, so whose checkpoints are ranked.
        before: settings of the pre-training that it begins from.
        expected: how many epochs it is likely to take, for the estimate.
        measured: whether its minimum is measured.
    """

    data: str
    settings: Mapping[str, Any]
    rules: tuple[Rule, ...] = field(default=(), kw_only=True)
    before: Mapping[str, Any] | None = field(default=None, kw_only=True)
    expected: int = field(default=150, kw_only=True)
    measured: bool = field(default=True, kw_only=True)

    @cached_property
    def name(self) -> str:
        """A name that says how it differs from the defaults, and what it trains on."""
        own: dict[str, Any] = {"loss": "bce", "method": "sasrec", "seed": 0} | dict(self.settings)
        loss, method, seed = (own.pop(key) for key in ("loss", "method", "seed"))
        for plain in ("epochs", "patience", "eval_every", "save_every", "precision", "preset"):
            own.pop(plain, None)
        shape = str(self.settings.get("preset", "sasrec")).removeprefix("sasrec").removeprefix("-")
        varied = [
            f"{key.replace('_', '-')}-{value:g}" if isinstance(value, float) else f"{key}-{value}"
            for key, value in own.items()
        ]
        parts = [self.data.split("_")[0].lower(), loss, *([shape] if shape else []), method, *varied]
        return ".".join([*parts, f"seed-{seed}"])

    def config(self, folder: Path, pretrained: Path | None = None) -> Config:
        """Return its settings, with the data in a folder."""
        begins = {"pretrained": str(pretrained)} if pretrained else {}
        return Config(data=str(folder / f"{self.data}.txt"), **self.settings, **begins)

    @property
    def rule(self) -> Rule:
        """How it ends itself."""
        config = self.config(Path())
        return Rule(config.epochs, config.patience)

    @property
    def command(self) -> str:
        """The command that trains it, with the data in the folder one is in."""
        own = dict(self.settings)
        first = ""
        if self.before:
            first = self._line(self.before, f"{self.name}.pretraining") + " && "
            own["pretrained"] = f"runs/{self.name}.pretraining/last.pt"
        return first + self._line(own, self.name)

    def _line(self, settings: Mapping[str, Any], name: str) -> str:
        given = (f"--{key.replace('_', '-')} {value}" for key, value in settings.items())
        return " ".join(["landscape train", f"--data {self.data}.txt", *given, f"--out runs/{name}"])

    @property
    def core_seconds(self) -> float:
        """About how long it takes on one core, with validations, ranking and the minimum's measurement.

        By what `main` and `bert` took: an epoch of SASRec on Beauty 1.45 s, a ranking 1.4 s.
        """
        config = self.config(Path())
        users, interactions, items = DATA[self.data]
        epoch = 7.3e-6 * interactions * config.train_fraction
        epoch *= 1.3 if config.expansion > 1 else 1.0
        epoch *= 1 + 1.9e-4 * items if config.loss == "ce" else 1.0  # in bfloat16
        passes = {"sasrec": 1.0, "samrec": 1.9, "cl4srec": 2.2, "s3rec": 1.0}[config.method]
        ranking = 5.3e-9 * users * items
        ranked = 1 + 5 * (1 + len(self.rules)) + self.expected / config.eval_every
        before = 0.0
        if self.before:  # small batches are slower: by how much has not been measured
            before = 2.8 * 1.3 * epoch * self.before["epochs"]
        return before + passes * epoch * self.expected + ranking * ranked + 60


def trained(
    data: str, method: str, seed: int, rule: Rule, every: int, *, rules: tuple[Rule, ...] = (), **own: Any
) -> Training:
    """Return a run of a method under a rule, validated and kept every so many epochs.

    For the estimates alone: the best epoch is about the 190th of SASRec and the 140th of SAMRec, as in
    `main`, and under cross-entropy the 30th, a guess from pilots; a share of the users has shorter epochs.
    """
    settings: dict[str, Any] = {"method": method} if method != "sasrec" else {}
    settings |= own
    settings |= {"epochs": rule.epochs, "patience": rule.patience, "eval_every": every, "save_every": every}
    best: float = 30
    if own.get("loss") != "ce":
        best = 100 if "preset" in own else {"sasrec": 190, "samrec": 140}[method] * SLOWER.get(data, 1)
    expected = round(best / own.get("train_fraction", 1.0)) + rule.patience
    return Training(data, settings | {"seed": seed}, rules=rules, expected=expected)


def limit(data: str, method: str) -> Rule:
    """Return the rule that ends a run of the default preset."""
    rule = LIMITS[method]
    return rule._replace(epochs=rule.epochs * SLOWER.get(data, 1))


def ranked(data: str, method: str, seed: int, **own: Any) -> Training:
    """Return a run of the default preset, to its best epoch and beyond. SASRec's has twice the epochs.

    So it is two runs: in full one of as much work as SAMRec's, under SAMRec's rule one of as many epochs.
    """
    rules = (limit(data, "samrec"),) if method == "sasrec" else ()
    return trained(data, method, seed, limit(data, method), 5, rules=rules, **own)


def main_runs(records: Mapping[str, Record]) -> Iterator[Training]:
    """SASRec and SAMRec, four data sets, five seeds: the primary question, and equal epochs."""
    for seed, data, method in product(SEEDS, DATA, LIMITS):
        yield ranked(data, method, seed)


def trials(data: str, method: str) -> list[Training]:
    """Return a method's seven trials: the default, and six others, of which none is trained for less.

    Dropout 0.2 and 0.3 for both. SAMRec has four other radii; SASRec has two more rates and weight decay.
    """
    own: list[dict[str, Any]] = [{}, *({"dropout": rate} for rate in DROPOUTS)]
    if method == "samrec":
        own += [{"rho": rho} for rho in RADII]
    else:
        own += [{"dropout": 0.4}, {"dropout": 0.6}, {"weight_decay": 1e-6}, {"weight_decay": 1e-5}]
    return [ranked(data, method, 0, **settings) for settings in own]


def tuning(records: Mapping[str, Record]) -> Iterator[Training]:
    """Seven trials of each method and data set to their best epochs, with one seed, of which `main` has two.

    Dropout 0.2, 0.3 and 0.5 for both; ρ 0.02, 0.05, 0.1, 0.2 and 0.5 for SAMRec; dropout 0.4 and 0.6 and
    weight decay 1e-6 and 1e-5 for SASRec.
    """
    for data in DATA:
        pairs = zip(*(trials(data, method) for method in LIMITS), strict=True)
        yield from (run for pair in pairs for run in pair)


def chosen(records: Mapping[str, Record], data: str, method: str) -> Training | None:
    """Return the trial with the best validation NDCG@10, the mean of its late checkpoints.

    None until all seven are recorded.
    """
    runs = trials(data, method)
    if not all(run.name in records for run in runs):
        return None
    return max(runs, key=lambda run: late_validation(records[run.name], run.rule))


def late_validation(record: Record, rule: Rule) -> float:
    """Return the mean of a rule's metric over the late checkpoints."""
    late = stopped(record.log, rule).late
    return sum(line[rule.metric] for line in record.log if line["epoch"] in late) / len(late)


def chosen_run(records: Mapping[str, Record], data: str, method: str, seed: int) -> Training | None:
    """Return a run with a method's chosen settings; None until they are known."""
    best = chosen(records, data, method)
    if not best:
        return None
    own = {key: value for key, value in best.settings.items() if key in ("rho", "dropout", "weight_decay")}
    return ranked(data, method, seed, **own)


def tuned(records: Mapping[str, Record]) -> Iterator[Training]:
    """Of each, the trial of the best late validation NDCG@10, with three seeds that it was not chosen by."""
    for seed, data, method in product(CHOSEN_SEEDS, DATA, LIMITS):
        if run := chosen_run(records, data, method, seed):
            yield run


def bert_run(data: str, method: str, seed: int, **own: Any) -> Training:
    """Return a run of the architecture of S3Rec's authors, whose patience of 10 is replayed."""
    return trained(data, method, seed, BERT, 1, rules=(AUTHORS,), preset="sasrec-bert", **own)


def bert(records: Mapping[str, Record]) -> Iterator[Training]:
    """The same with the architecture of S3Rec's authors, three seeds; stopped by their rule, too."""
    for seed, data, method in product(THREE, DATA, LIMITS):
        yield bert_run(data, method, seed)


def softmax_run(data: str, method: str, seed: int) -> Training:
    """Return a run by cross-entropy over all items. In bfloat16 it takes 0.6 of the time."""
    return trained(data, method, seed, CE, 3, loss="ce", precision="bf16")


def softmax(records: Mapping[str, Record]) -> Iterator[Training]:
    """Cross-entropy over all items, three seeds."""
    for seed, data, method in product(THREE, DATA, LIMITS):
        yield softmax_run(data, method, seed)


def rival(data: str, method: str, seed: int) -> Training:
    """Return a run of CL4SRec, or of S3Rec with as many steps of pre-training as its authors'."""
    if method == "cl4srec":
        return bert_run(data, method, seed, temperature=8.0)
    steps = -(-DATA[data][0] // S3REC_BATCH)
    before: dict[str, Any] = {"batch_size": S3REC_BATCH, "epochs": round(S3REC_STEPS / steps), "seed": seed}
    before |= {"method": "s3rec-pretraining", "preset": "sasrec-bert"}
    return replace(bert_run(data, method, seed), before=before)


def rivals(records: Mapping[str, Record]) -> Iterator[Training]:
    """CL4SRec, and S3Rec with as many steps as its authors', two data sets, three seeds, beside `bert`."""
    for seed, data, method in product(THREE, TWO, ("cl4srec", "s3rec")):
        yield rival(data, method, seed)


def shared(data: str, method: str, seed: int, share: float) -> Training:
    """Return a run on a share of the users, in as many steps as with all: its epochs are shorter."""
    own, short = (_stretched(limit(data, of), share) for of in (method, "samrec"))
    rules = (short,) if method == "sasrec" else ()
    return trained(data, method, seed, own, round(5 / share), rules=rules, train_fraction=share)


def _stretched(rule: Rule, share: float) -> Rule:
    return Rule(round(rule.epochs / share), round(rule.patience / share), rule.metric)


def fractions(records: Mapping[str, Record]) -> Iterator[Training]:
    """20% to 80% of the users in as many steps as with all of them, two data sets, three seeds."""
    for seed, data, share, method in product(THREE, TWO, SHARES, LIMITS):
        yield shared(data, method, seed, share)


def starts(records: Mapping[str, Record]) -> Iterator[Training]:
    """The start of the first study, Xavier's, on Beauty, two seeds. The settings have no other scales."""
    for seed, method in product(SEEDS[:2], LIMITS):
        yield ranked("Beauty", method, seed, init="xavier")


CONTROLS: Mapping[str, dict[str, Any]] = {
    "weight decay": {"weight_decay": 1e-5},
    "gBCE": {"loss": "gbce", "negatives": 1},
}
"""What else makes weights smaller, or scores less sure of themselves, without SAM.

Weight decay is of all parameters, of which the embeddings are 97%; the settings have none of embeddings
alone, and no label smoothing. gBCE with one negative is BCE with a softer target for true items.
"""


def controls(records: Mapping[str, Record]) -> Iterator[Training]:
    """Weight decay, and gBCE with one negative, in place of SAM; two data sets, three seeds."""
    for seed, data, own in product(THREE, TWO, CONTROLS.values()):
        yield ranked(data, "sasrec", seed, **own)


STAGES: Mapping[str, Callable[[Mapping[str, Record]], Iterator[Training]]] = {
    "main": main_runs,
    "bert": bert,
    "tuning": tuning,
    "tuned": tuned,
    "ce": softmax,
    "rivals": rivals,
    "controls": controls,
    "fractions": fractions,
    "init": starts,
}
"""In order of importance. A run that an earlier stage has is not trained again."""


def cut_off(record: Record, run: Training) -> bool:
    """Whether a recorded run ended by a limit of epochs, and may have more of them now."""
    shorter = record.settings["epochs"] < run.rule.epochs
    return shorter and stopped(record.log, run.rule, record.epochs).unfinished


def by_stage(records: Mapping[str, Record], stages: Iterable[str] = STAGES) -> dict[str, list[Training]]:
    """Return the runs of each stage whose settings are known, without those of a stage before it."""
    seen: set[str] = set()
    found: dict[str, list[Training]] = {}
    for stage in dict.fromkeys(stages):
        found[stage] = [run for run in STAGES[stage](records) if run.name not in seen]
        seen |= {run.name for run in found[stage]}
    return found


def trainings(stages: Iterable[str], records: Mapping[str, Record]) -> dict[str, Training]:
    """Return the runs of some stages whose settings are known, by name."""
    return {run.name: run for runs in by_stage(records, stages).values() for run in runs}

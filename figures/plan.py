"""What the study trains: every run, known by name before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from figures.records import ANY, Record, select
from samrec.config import Config

DATA = {
    "Beauty": (198_502, 12_101),
    "Toys_and_Games": (167_597, 11_924),
    "Sports_and_Outdoors": (296_337, 18_357),
    "Yelp": (316_354, 20_033),
}
"""The data sets by the names of their files, with their interactions and items, which the estimates need."""

EPOCHS = {"bce": 200, "ce": 30}
THIRD = {"bce": 67, "ce": 10}
VALIDATE = {"bce": 10, "ce": 3}  # epochs between validations
DROPOUTS = (0.5, 0.2, 0.3, 0.4, 0.6)
DECAYS = (0.0, 1e-5)
RADII = (0.1, 0.05, 0.2, 0.5, 0.01, 1.0, 0.001, 10.0)
SHARES = (0.2, 0.4, 0.6, 0.8)
NOISES = (0.1, 0.2, 0.3)
RIVAL_PRESET = "sasrec-bert"
PUBLISHED: Mapping[str, dict[str, Any]] = {
    "sasrec": {"dropout": 0.5},
    "samrec": {"method": "samrec", "rho": 0.1},
    "cl4srec": {"method": "cl4srec"},
    "s3rec": {"method": "s3rec"},
}
"""Where each method starts from: as published, and of SASRec and SAMRec with SAM alone between them."""
TUNED = ("dropout", "weight_decay", "rho", "perturb")


@dataclass(frozen=True)
class Scale:
    """How much of the study is trained.

    Attributes:
        seeds: of the main runs on the data sets that are studied, and on the others, which only rank.
        studied: on which everything is asked.
        losses: for which everything is asked; the main runs have both.
        contrastive: whether CL4SRec and S3Rec take part in all studies.
        noisy: whether runs are trained on noisy data too.
    """

    seeds: tuple[int, int]
    studied: tuple[str, ...]
    losses: tuple[str, ...]
    contrastive: bool
    noisy: bool


SCALES = {
    "cpu": Scale(seeds=(3, 1), studied=("Beauty",), losses=("bce",), contrastive=False, noisy=False),
    "cuda": Scale(
        seeds=(5, 3), studied=("Beauty", "Toys_and_Games"), losses=("bce", "ce"), contrastive=True, noisy=True
    ),
}


@dataclass(frozen=True)
class Training:
    """A run that the study needs.

    Attributes:
        data: the data set's name.
        settings: those that are not the default.
    """

    data: str
    settings: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        """A name that says how it differs from the defaults, and what it trains on."""
        own: dict[str, Any] = {"loss": "bce", "method": "sasrec", "seed": 0} | dict(self.settings)
        loss, method, seed = (own.pop(key) for key in ("loss", "method", "seed"))
        for plain in ("eval_every", "precision", "save_every", "init", "positions"):
            own.pop(plain, None)
        if own.get("epochs") == EPOCHS[loss]:
            own.pop("epochs")
        varied = [
            f"{key.replace('_', '-')}-{value:g}" if isinstance(value, float) else f"{key}-{value}"
            for key, value in own.items()
        ]
        return ".".join([self.data.split("_")[0].lower(), loss, method, *varied, f"seed-{seed}"])

    def config(self, folder: Path) -> Config:
        """Return its settings, with the data in a folder."""
        return Config(data=str(folder / f"{self.data}.txt"), **self.settings)

    @property
    def command(self) -> str:
        """The command that trains it, with the data in the folder one is in."""
        given = (f"--{key.replace('_', '-')} {value}" for key, value in self.settings.items())
        return " ".join(["landscape train", f"--data {self.data}.txt", *given, f"--out runs/{self.name}"])

    @property
    def cpu_seconds(self) -> float:
        """About how long it takes on one core: two constants, measured on an EPYC core."""
        config = self.config(Path())
        interactions, items = DATA[self.data]
        position = 1.3e-5 + (4e-9 * items if config.loss == "ce" else 0)
        times = {"sasrec": 1.0, "samrec": 1.9, "cl4srec": 2.3, "s3rec": 1.3}[config.method]
        return position * times * interactions * config.train_fraction * config.epochs


def tuning(scale: Scale) -> Iterator[Training]:
    """As many trials of SAMRec's radius and groups as of SASRec's dropout and weight decay.

    They take a third of the epochs. What is best by then need not be in the end (less dropout learns faster
    and no better), so of each method the first, which is `PUBLISHED`, and the best of the others go on to all
    epochs, as in successive halving (Jamieson & Talwalkar 2016).
    """
    for data, loss in product(scale.studied, scale.losses):
        sasrec = [
            Training(data, short(loss) | {"dropout": dropout} | ({"weight_decay": decay} if decay else {}))
            for decay, dropout in product(DECAYS, DROPOUTS)
        ]
        samrec = [Training(data, short(loss) | _sam(rho)) for rho in RADII]
        samrec += [
            Training(data, short(loss) | _sam(0.1) | {"perturb": "no-embedding"}),
            Training(data, short(loss) | _sam(0.5) | {"perturb": "norm-only"}),
        ]
        yield from (run for pair in zip(sasrec, samrec, strict=True) for run in pair)


def finalists(records: Mapping[str, Record], data: str, loss: str, method: str) -> list[Training] | None:
    """Return the runs in full of a method's first trial and of the best of the others on validation.

    None as long as not all of its trials are recorded.
    """
    studied = [t for t in tuning(SCALES["cuda"]) if _of(t, data, loss)]
    trials = [t for t in studied if t.settings.get("method", "sasrec") == method]
    if not trials or not all(t.name in records for t in trials):
        return None
    first, *others = trials
    best = max(others, key=lambda trial: records[trial.name].valid["ndcg@10"])
    return [_full(data, loss, _own(trial, method)) for trial in (first, best)]


def chosen(records: Mapping[str, Record], data: str, loss: str, method: str) -> dict[str, Any] | None:
    """Return the settings of a method's better finalist; None until both are recorded."""
    last = finalists(records, data, loss, method)
    if last is None or not all(run.name in records for run in last):
        return None
    return _own(max(last, key=lambda run: records[run.name].valid["ndcg@10"]), method)


def in_full(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """The finalists of all that is tuned."""
    for data, loss, method in product(scale.studied, scale.losses, ("sasrec", "samrec")):
        yield from finalists(records, data, loss, method) or ()


def main_runs(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """SASRec and SAMRec with SAM alone between them, under both losses, on every data set; and as tuned."""
    for data, loss in product(DATA, EPOCHS):
        for seed in range(scale.seeds[data not in scale.studied]):
            for method in _methods(scale):
                yield _full(data, loss, PUBLISHED[method], seed)
            for method in ("sasrec", "samrec"):
                if (own := chosen(records, data, loss, method)) is not None:
                    yield _full(data, loss, own, seed)


def fractions(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """A share of the users to train on, in a third of the epochs and in all: SAM takes longer to pay."""
    for epochs in (THIRD, EPOCHS):
        yield from _varied(scale, "train_fraction", SHARES, epochs)


def noises(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """A share of the training's interactions replaced by random items."""
    yield from _varied(scale, "noise", NOISES if scale.noisy else (), THIRD)


def dropouts(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """SAM where there is less dropout, and with weight decay; SASRec's own are its trials."""
    for data, loss in product(scale.studied, scale.losses):
        decays = DECAYS if scale.noisy else DECAYS[:1]
        for decay, dropout in product(decays, (0.2, 0.3)):
            given = _sam(0.1) | {"dropout": dropout} | ({"weight_decay": decay} if decay else {})
            yield Training(data, short(loss) | given)


def rivals(scale: Scale, records: Mapping[str, Record]) -> Iterator[Training]:
    """Methods with self-supervision beside SASRec and SAMRec, in the architecture of S3Rec's authors."""
    shape = {"loss": "bce", "preset": RIVAL_PRESET, "positions": "start"}
    for data in ("Beauty", "Toys_and_Games"):
        yield Training(data, shape)
        yield Training(data, shape | _sam(0.1) | {"every": 5})
        yield Training(data, shape | {"method": "cl4srec", "temperature": 8.0})
        yield Training(data, shape | {"method": "s3rec"})


STAGES = (in_full, main_runs, fractions, dropouts, noises, rivals)


def trainings(scale: Scale, records: Mapping[str, Record]) -> list[Training]:
    """Return all runs whose settings are known; those that wait for the trials come once these are done."""
    runs = [*tuning(scale), *(run for stage in STAGES for run in stage(scale, records))]
    return list({run.name: run for run in runs}.values())


def full_runs(records: Mapping[str, Record], data: str, loss: str) -> dict[str, list[Record]]:
    """Return the recorded runs in full of each method where it starts from, by seed."""
    found = {
        method: select(records, data, **base(loss), **own, temperature=ANY)
        for method, own in PUBLISHED.items()
    }
    return {method: runs for method, runs in found.items() if runs}


def tuned_runs(records: Mapping[str, Record], data: str, loss: str) -> dict[str, list[Record]]:
    """Return the recorded runs in full with the chosen settings, unless both start from those."""
    own = {method: chosen(records, data, loss, method) for method in ("sasrec", "samrec")}
    if all(settings in (None, PUBLISHED[method]) for method, settings in own.items()):
        return {}
    found = {m: select(records, data, **base(loss), **settings) for m, settings in own.items() if settings}
    return {method: runs for method, runs in found.items() if runs}


def _varied(
    scale: Scale, name: str, values: Sequence[float], epochs: Mapping[str, int]
) -> Iterator[Training]:
    for data, loss in product(scale.studied, scale.losses):
        for value, method in product(values, _methods(scale)):
            yield Training(data, base(loss, epochs) | PUBLISHED[method] | {name: value})


def short(loss: str) -> dict[str, Any]:
    """Return the settings of the runs of a third of the epochs, before what is asked of them."""
    return base(loss, THIRD)


def _methods(scale: Scale) -> tuple[str, ...]:
    return ("sasrec", "samrec", *(("cl4srec", "s3rec") if scale.contrastive else ()))


def _full(data: str, loss: str, own: Mapping[str, Any], seed: int = 0) -> Training:
    """Return a run of all epochs; the first of several seeds keeps checkpoints on its way."""
    kept = {"save_every": 20} if loss == "bce" and not seed else {}
    return Training(data, base(loss) | dict(own) | kept | {"seed": seed})


def _of(run: Training, data: str, loss: str) -> bool:
    return (run.data, run.settings["loss"]) == (data, loss)


def _own(run: Training, method: str) -> dict[str, Any]:
    """Return what was tuned of a run, as settings of a method."""
    tuned = {key: run.settings[key] for key in TUNED if key in run.settings}
    return ({"method": method} if method != "sasrec" else {}) | tuned


def base(loss: str, epochs: Mapping[str, int] = EPOCHS) -> dict[str, Any]:
    """Return the settings of every run under a loss. CE over all items is 1.6 times as fast in bf16."""
    settings = {"loss": loss, "epochs": epochs[loss], "eval_every": VALIDATE[loss], "init": "xavier"}
    return settings | ({"precision": "bf16"} if loss == "ce" else {})


def _sam(rho: float) -> dict[str, Any]:
    return {"method": "samrec", "rho": rho}

"""What is known of each training of the study: a small file a run, which the figures read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from landscape.errors import InputError
from landscape.storage.files import replacing, writable, write_text
from samrec.architecture import completed
from samrec.data.interactions import Ints

LARGEST = 20  # what stands further down counts for no metric at 20, and is kept as this
ELSEWHERE = ("data", "attributes", "pretrained")
"""Settings that say where something lies, not what is trained: the names of machines' folders."""


class Record(BaseModel):
    """One training.

    Attributes:
        name: of its file, and of its folder of checkpoints.
        command: that trains it again.
        data: the data set's name, and `digest` what identifies its content.
        settings: all that its method has, but for where its data lie.
        where: the machine, versions, commit and day.
        log: a line a validation: epoch, seconds of training up to there, mean loss of the epoch, and all
            metrics of the validation.
        valid, test: metrics of the best epoch by validation NDCG@10.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    command: str
    data: str
    digest: str
    settings: dict[str, Any]
    where: dict[str, Any]
    epochs: int
    best_epoch: int
    log: list[dict[str, float]]
    valid: dict[str, float]
    test: dict[str, float]

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def method(self) -> str:
        return str(self.settings["method"])

    @property
    def loss(self) -> str:
        return str(self.settings["loss"])


def read_records(results: Path) -> dict[str, Record]:
    """Read all records by name.

    Raises:
        InputError: a file is none, or is named as another run's.
    """
    found = {}
    for path in sorted((results / "runs").glob("*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is no record of a run: {error.errors()[0]['msg']}") from None
        if record.name != path.stem:
            raise InputError(f"{path} is the record of {record.name}: each run has one file, of its name")
        found[record.name] = record.model_copy(update={"settings": completed(record.settings)})
    return found


def write_record(record: Record, ranks: Mapping[int, Ints], results: Path) -> None:
    """Keep a record, and how its test items ranked (0 is best) at some epochs, from `LARGEST` on as that."""
    epochs = sorted(ranks)
    kept = np.minimum(np.stack([ranks[epoch] for epoch in epochs]), LARGEST).astype(np.uint8)
    with (
        replacing(writable(results / "ranks") / f"{record.name}.npz") as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(file, epochs=np.array(epochs), ranks=kept)
    write_text(writable(results / "runs") / f"{record.name}.json", _text(record))


def _text(record: Record) -> str:
    """Return JSON with a validation a line."""
    whole = record.model_dump()
    lines = ",\n  ".join(json.dumps(line) for line in whole.pop("log"))
    return json.dumps(whole, indent=1).removesuffix("\n}") + f',\n "log": [\n  {lines}\n ]\n}}\n'


def read_ranks(record: Record, results: Path, epochs: Sequence[int] = ()) -> Ints:
    """Return how a run's test items ranked at some epochs, by default its best one.

    0 is best, `LARGEST` or more as bad as any. Shape (epochs, evaluated users).

    Raises:
        InputError: the ranks of an epoch were not kept.
    """
    path = results / "ranks" / f"{record.name}.npz"
    with np.load(path, allow_pickle=False) as file:
        ranks: Ints = np.atleast_2d(file["ranks"].astype(np.int64))
        kept = file["epochs"].tolist() if "epochs" in file else [record.best_epoch]
    wanted = list(epochs) or [record.best_epoch]
    if lacking := [epoch for epoch in wanted if epoch not in kept]:
        raise InputError(f"{path} has no ranks of epoch {lacking[0]}; it has those of {kept}")
    return ranks[[kept.index(epoch) for epoch in wanted]]

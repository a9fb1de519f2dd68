"""What is known of each training of the study: a small file a run, which the figures read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from landscape.errors import InputError
from landscape.storage.files import replacing, writable
from samrec.architecture import completed
from samrec.config import Config
from samrec.data.interactions import Ints

ANY = object()
"""In `select`: whatever a setting is."""
FREE = ("data", "seed", "eval_every", "patience", "save_every", "precision", "attributes", "pretrained")
"""Settings that do not make a run another kind of run."""
LARGEST = 255  # ranks are kept in a byte each: what stands further down counts for no metric at 20


class Record(BaseModel):
    """One training.

    Attributes:
        name: of its file, and of its folder of checkpoints.
        command: that trains it again.
        data: the data set's name, and `digest` what identifies its content.
        settings: all that its method has, but for where its data lie.
        where: the machine, versions, commit and day.
        log: a line a validation: epoch, seconds of training up to there, mean loss of the epoch, and the
            validation's HR@10 and NDCG@10.
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
    def unfinished(self) -> bool:
        """Whether its best epoch is not its patience away from its last one: longer training may be better.

        That is so of a run that was stopped, and of one that reached its last epoch while it was rising.
        """
        return bool(self.epochs - self.best_epoch < self.settings["patience"])

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
        InputError: a file is none.
    """
    found = {}
    for path in sorted((results / "runs").glob("*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is no record of a run: {error.errors()[0]['msg']}") from None
        found[record.name] = record.model_copy(update={"settings": completed(record.settings)})
    return found


def write_record(record: Record, ranks: Ints, results: Path) -> None:
    """Keep a record, and how its test items ranked (0 is best), from `LARGEST` on as that."""
    kept = np.minimum(ranks, LARGEST).astype(np.uint8)
    with (
        replacing(writable(results / "ranks") / f"{record.name}.npz") as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(file, ranks=kept)
    with replacing(writable(results / "runs") / f"{record.name}.json") as temporary:
        temporary.write_text(json.dumps(record.model_dump(), indent=1) + "\n", "utf-8")


def read_ranks(name: str, results: Path) -> Ints:
    """Return how a run's test items ranked: 0 is best, `LARGEST` as bad as any. Shape (evaluated users,)."""
    with np.load(results / "ranks" / f"{name}.npz", allow_pickle=False) as file:
        ranks: Ints = file["ranks"].astype(np.int64)
    return ranks


def select(records: Mapping[str, Record], data: str, **settings: Any) -> list[Record]:
    """Return the runs on one data set with these settings, the defaults in all others; by seed."""
    wanted = Config(data=data, **{k: v for k, v in settings.items() if v is not ANY}).settings
    for name in (*FREE, *(name for name, value in settings.items() if value is ANY)):
        wanted.pop(name, None)
    return sorted(
        (
            record
            for record in records.values()
            if record.data == data and all(record.settings.get(k) == v for k, v in wanted.items())
        ),
        key=lambda record: record.seed,
    )

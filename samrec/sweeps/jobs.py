"""The runs of a sweep: every combination of some settings, each in a folder of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from landscape.errors import InputError
from landscape.storage.files import own
from samrec.concerns import applies
from samrec.config import Config, configure, read_settings
from samrec.training.log import read_log

FORBIDDEN = '\\/:*?"<>|'
"""Signs that names of files have not on every system; a value of a setting may be a path, or a pattern."""
_ALLOWED = str.maketrans(dict.fromkeys(FORBIDDEN, "_"))


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep.

    Attributes:
        varied: the settings that distinguish it, as they were given.
        out: its folder.
    """

    varied: Mapping[str, str]
    config: Config
    out: Path

    @property
    def name(self) -> str:
        return self.out.name

    def result(self) -> dict[str, Any] | None:
        """Return what came of it, from its log: epochs, best epoch, validation and test; None before that.

        Raises:
            InputError: the log is damaged.
        """
        lines = read_log(self.out / "metrics.jsonl")
        if not lines or "test" not in lines[-1]:
            return None
        *trained, last = lines
        valid = {line["epoch"]: line["valid"] for line in trained if "valid" in line}
        if last["epoch"] not in valid:
            raise InputError(f"{self.out} holds a log without the validation of its best epoch")
        return {
            "epochs": trained[-1]["epoch"],
            "best_epoch": last["epoch"],
            "seconds": sum(line.get("seconds", 0.0) for line in trained),
            "valid": valid[last["epoch"]],
            "test": lines[-1]["test"],
        }

    @property
    def row(self) -> dict[str, Any]:
        """Name, varied settings, and what came of it; `epochs` are those that were asked for if they vary.

        Raises:
            InputError: as `result`.
        """
        return {"run": self.name, **(self.result() or {"test": None}), **self.varied}


def plan(settings: Mapping[str, Any], varied: Mapping[str, Sequence[str]], out: Path) -> list[Job]:
    """Make a job of every combination of the varied settings.

    A setting that a method does not have (SAM's, where it is sasrec) is left out of its jobs, and does not
    multiply them, if another of the sweep's methods has it.

    Raises:
        InputError: a setting or a value is invalid, two values are the same, or give two runs one
            folder, `out` holds runs with other settings or links in place of folders, or the method is a
            pre-training, which ranks nothing.
    """
    methods = [str(method) for method in varied.get("method", [settings.get("method", "sasrec")])]
    if "s3rec-pretraining" in methods:
        raise InputError("a sweep compares rankings, and s3rec-pretraining ranks nothing; sweep s3rec")
    jobs: dict[str, Job] = {}
    for values in product(*varied.values()):
        given = {**settings, **dict(zip(varied, values, strict=True))}
        given = {name: value for name, value in given.items() if _concerns(name, given, methods)}
        combination = {name: given[name] for name in varied if name in given}
        name = ",".join(f"{key}={value}" for key, value in combination.items()).translate(_ALLOWED)
        job = Job(combination, configure(given), out / (name or "run"))
        if jobs.setdefault(name, job).config != job.config:
            raise InputError(
                f"two runs would be in one folder, {name}: its name has _ for each of {FORBIDDEN}"
            )
    names: dict[str, str] = {}
    for name, job in jobs.items():
        if (other := names.setdefault(repr(job.config), name)) != name:
            raise InputError(f"{other} and {name} are the same run; give each value once")
    own(out, *(job.out.name for job in jobs.values()))
    for job in jobs.values():
        path = job.out / "config.toml"
        if path.exists() and (before := configure(read_settings(path))) != job.config:
            now, then = job.config.model_dump(), before.model_dump()
            key = next(key for key in now if now[key] != then[key])
            raise InputError(
                f"{job.out} holds a run with {key} {then[key]!r}, not {now[key]!r}; choose another --out"
            )
    return list(jobs.values())


def _concerns(name: str, given: Mapping[str, Any], methods: Sequence[str]) -> bool:
    """Tell whether a job takes a setting. One that no method has is taken, and refused with its name."""
    method = str(given.get("method", "sasrec"))
    return applies(name, method) or not any(applies(name, one) for one in methods)

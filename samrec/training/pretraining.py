"""S3Rec's pre-training: its folder, and what may begin from it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landscape.errors import InputError
from samrec.architecture import NAMES
from samrec.checkpoint import Checkpoint, load
from samrec.config import Config, write_config
from samrec.data.attributes import beside
from samrec.training.run import Run, pretraining_of

SHAPE = (
    "split",
    "preset",
    *(name for name in NAMES if name != "init"),
    "dim",
    "max_length",
    "layers",
    "heads",
)
"""Settings that a fine-tuning has to share with its pre-training."""


def with_attributes(config: Config) -> Config:
    """Use the attributes file next to the data if the settings name none; warn if there is no such file."""
    if config.method != "s3rec-pretraining" or config.attributes:
        return config
    if found := beside(Path(config.data)):
        return config.model_copy(update={"attributes": str(found)})
    warnings.warn(
        f"no attributes file next to {config.data}: pre-training uses masked items and segments only "
        "(--attributes FILE names them)",
        stacklevel=2,
    )
    return config


@contextmanager
def pretraining_in(out: Path, config: Config) -> Iterator[Path]:
    """Yield the folder in which a run pre-trains first. `out` can be resumed as soon as that has begun."""
    settings, folder = out / "config.toml", pretraining_of(out)
    fresh = not settings.exists()
    if fresh:
        write_config(config, settings)
    try:
        yield folder
    except BaseException:
        if fresh and not folder.exists():
            settings.unlink()
        raise


def pretrained_for(run: Run) -> Checkpoint:
    """Read the checkpoint that a fine-tuning begins from.

    Raises:
        InputError: there is no such checkpoint, or its data or model differ.
    """
    assert run.begins_from
    found = load(run.begins_from)
    if (method := found.config.method) in ("gru4rec", "bert4rec"):
        raise InputError(f"{run.begins_from} is a {method} checkpoint; s3rec fine-tunes SASRec's Transformer")
    now, then = run.config.model_dump(include=set(SHAPE)), found.config.model_dump(include=set(SHAPE))
    if changed := [name for name in SHAPE if now[name] != then[name]]:
        name = changed[0]
        raise InputError(f"{run.begins_from} is pre-trained with {name} {then[name]!r}, not {now[name]!r}")
    found.check_data(run.split.interactions)
    _warn_of(run, found)
    return found


def _warn_of(run: Run, found: Checkpoint) -> None:
    """Warn of a pre-training that has not ended, or that saw other interactions than the run trains on."""
    now, then = run.config, found.config
    if then.method == "s3rec-pretraining" and found.epoch < then.epochs:
        warnings.warn(
            f"{run.begins_from} is of a pre-training that was stopped in epoch {found.epoch + 1} of "
            f"{then.epochs}; train it to its end with --resume",
            stacklevel=2,
        )
    names = [*(["seed"] if now.train_fraction < 1 or now.noise else []), "train_fraction", "noise"]
    changed = [
        f"{n} {getattr(then, n)}, not {getattr(now, n)}" for n in names if getattr(then, n) != getattr(now, n)
    ]
    if changed:
        warnings.warn(
            f"{run.begins_from} is pre-trained with {' and '.join(changed)}, so on other interactions than "
            "this run trains on",
            stacklevel=2,
        )

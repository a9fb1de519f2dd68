"""What is saved of a run, and how it is checked when it comes back."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from landscape.errors import InputError
from landscape.storage.checkpoints import read_checkpoint, write_checkpoint
from landscape.storage.files import replacing
from landscape.storage.safe import is_safetensors, write_safetensors
from samrec.architecture import completed
from samrec.concerns import heeded
from samrec.config import Config, configure
from samrec.data.claims import claimed_path
from samrec.data.interactions import Interactions
from samrec.data.labels import Ids, from_tensor
from samrec.data.readers import read
from samrec.features import kept_features
from samrec.methods import outline
from samrec.model import Recommender

FORMAT = "samrec checkpoint 2"
TASK = "samrec"
BEST = ("best.pt", "best.safetensors")
"""What a run keeps of its best epoch: a checkpoint, and its weights alone."""


class State(NamedTuple):
    """Where a training stands: the recommender's weights, what its method learns beside, the optimizer."""

    weights: dict[str, torch.Tensor]
    extra: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
class Checkpoint:
    """A model at the end of an epoch, or where a run was stopped inside one.

    Attributes:
        config: the settings of its run.
        digest, num_items: what identifies its data (`Interactions.digest`), and the item table's rows.
        epoch: whole epochs trained.
        valid: metrics of the latest validation.
        weights: the recommender's state dict.
        extra: what the method learned beside it (`samrec.methods.learner`), by name.
        optimizer: the optimizer's state dict; empty but in `last.pt`, as nothing continues from the others.
        best: epoch and NDCG@10 of the best validation so far.
        sums: what each step since the end of `epoch` returned (`samrec.training.engines`), by which
            the number of these steps is known too. Shape (steps, parts of the loss + 2).
        items: the ids of the item table's rows, by `samrec.data.labels`; None in files that keep none.
        seconds: how long these steps took; 0 in files that do not know.
        folder: where its file lies; None of what was not read from a file.
    """

    config: Config
    digest: str
    num_items: Annotated[int, Field(ge=1)]
    epoch: Annotated[int, Field(ge=0)]
    valid: dict[str, float]
    weights: dict[str, torch.Tensor]
    extra: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: tuple[int, float]
    sums: torch.Tensor
    items: torch.Tensor | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    folder: Path | None = None

    def model(self) -> Recommender:
        """Build the model, on the CPU.

        Raises:
            InputError: the weights are not of the model that the settings describe, or not finite.
        """
        features = kept_features(self.weights, self.num_items)
        try:
            model = outline(self.config, self.num_items, features)
        except (RuntimeError, TypeError, ValueError, OverflowError):
            raise InputError("the checkpoint's settings describe an impossibly large model") from None
        check_fit(self.weights, model.state_dict())
        model.load_state_dict({name: t.clone() for name, t in self.weights.items()}, assign=True)
        if not all(p.isfinite().all() for p in model.parameters()):
            raise InputError("the checkpoint's weights are not finite; its training diverged")
        return model

    def item_ids(self) -> Ids | None:
        """Return the id of each row of the item table, as the data write it; None where none are kept.

        Raises:
            InputError: they are not one for each row.
        """
        return None if self.items is None else from_tensor(self.items, self.num_items)

    def interactions(self, data: Path | None = None) -> Interactions:
        """Read what the model was trained on, from where it was or from `data`.

        Raises:
            InputError: it is not there, or other data.
        """
        with self.claimed(data) as path:
            found = read(path, **self.config.reading)
            self.check_data(found)
        return found

    @contextmanager
    def claimed(self, data: Path | None) -> Iterator[Path]:
        """Give the path of the model's data, to be read and checked in the block: see `data_path`.

        A path that the checkpoint alone names is a claim, and may be any of the user's files. What reading it
        says, in errors and warnings, quotes the file: it is said only of what turned out to be the data.

        Raises:
            InputError: as `data_path`, or the block fails.
        """
        path = self.data_path(data)
        if data is not None:
            yield path
            return
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                yield path
        except InputError:
            raise InputError(
                f"{path}, which the checkpoint names, is not the data of the checkpoint (SHA-256 "
                f"{self.digest[:12]}…); name the right file with --data"
            ) from None
        for warning in said:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def data_path(self, data: Path | None) -> Path:
        """Return where the model's data are: at `data`, or where they were in training.

        Raises:
            InputError: they are no longer there, what is there is not a plain file, or, links followed, it
                is neither under the checkpoint's folder nor under the current one.
        """
        return data or claimed_path(Path(self.config.data), self.folder, "the checkpoint")

    def check_data(self, data: Interactions) -> None:
        """Make sure that `data` is what the model was trained on.

        Raises:
            InputError: it is other data, in which the same row would mean another item.
        """
        if (data.digest, data.num_items) != (self.digest, self.num_items):
            raise InputError(
                f"{data.source} is not the data of the checkpoint (trained on {self.config.data}, "
                f"SHA-256 {self.digest[:12]}…); name the right file with --data"
            )


def check_fit(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Make sure that tensors have the names, shapes and types of those that they are to replace.

    Raises:
        InputError: one of them does not.
    """
    wrong = "the checkpoint's weights do not fit its settings"
    if found.keys() != expected.keys():
        raise InputError(f"{wrong}: only one of them has {min(found.keys() ^ expected.keys())}")
    for name, own in expected.items():
        t = found[name]
        if (t.shape, t.dtype) != (own.shape, own.dtype):
            shapes = f"{tuple(t.shape)} of {t.dtype}, expected {tuple(own.shape)} of {own.dtype}"
            raise InputError(f"{wrong}: {name} has the shape {shapes}")


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; `path` holds the old one or the new one at any moment."""
    with replacing(path) as temporary:
        write_checkpoint(_content(checkpoint), temporary)


def save_best(checkpoint: Checkpoint, out: Path) -> None:
    """Write the best checkpoint of a run to OUT/best.pt, and its weights alone to OUT/best.safetensors.

    The latter names the method, the data's SHA-256 and all else that `load` needs. Wherever it lies, it is of
    the best.pt beside it: both are written in full before either is replaced, and a kill leaves both or none.
    """
    whole_path, beside = (out / name for name in BEST)
    facts = {"method": checkpoint.config.method, "data_sha256": checkpoint.digest}
    with replacing(beside) as weights, replacing(whole_path) as whole:  # the last is replaced first
        known = {"task": TASK, **facts, TASK: json.dumps(_known(checkpoint))}
        write_safetensors(checkpoint.weights, known, weights)
        write_checkpoint(_content(replace(checkpoint, optimizer={})), whole)
        beside.unlink(missing_ok=True)


def _known(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return all that is not a tensor, as JSON can hold it."""
    return {
        "format": FORMAT,
        "task": TASK,
        "config": checkpoint.config.settings,
        "digest": checkpoint.digest,
        "num_items": checkpoint.num_items,
        "epoch": checkpoint.epoch,
        "valid": checkpoint.valid,
        "best": list(checkpoint.best),
    }


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    return _known(checkpoint) | {
        "weights": {name: tensor.detach().cpu() for name, tensor in checkpoint.weights.items()},
        "extra": {name: tensor.detach().cpu() for name, tensor in checkpoint.extra.items()},
        "optimizer": checkpoint.optimizer,
        "sums": checkpoint.sums,
        "seconds": checkpoint.seconds,
        "items": checkpoint.items,
    }


def of_epoch(out: Path, epoch: int, epochs: int) -> Path:
    """Return where a run of at most `epochs` keeps the checkpoint of an epoch."""
    return out / "epochs" / f"epoch-{epoch:0{max(4, len(str(epochs)))}d}.pt"


def kept(out: Path) -> dict[int, Path]:
    """Return the checkpoints in OUT/epochs by their epoch, in order; none if the run keeps none."""
    paths = (out / "epochs").glob("epoch-*.pt")
    numbered = ((path.stem.removeprefix("epoch-"), path) for path in paths)
    return dict(sorted((int(number), path) for number, path in numbered if number.isdecimal()))


def trajectory(out: Path) -> list[Path]:
    """Return the checkpoints that a run kept as it trained, in order; the first is its initial weights.

    Raises:
        InputError: there are none.
    """
    if not (paths := list(kept(out).values())):
        raise InputError(f"{out} keeps no trajectory; train with --save-every N")
    return paths


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote, or the weights that `save_best` wrote beside one.

    Raises:
        InputError: the file is missing, damaged, of another format, or its settings are not valid.
    """
    content = read_checkpoint(path)
    try:
        if is_safetensors(path):
            tensors = {"weights": content["weights"], "optimizer": {}, "sums": torch.empty(0, 1)}
            content = json.loads(content[TASK]) | tensors
    except (LookupError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path} is not a samrec checkpoint: its metadata do not describe one") from None
    if (found := content.get("format")) != FORMAT:
        named = f"format {found!r}" if isinstance(found, str) else "no format"
        raise InputError(f"{path} is not a samrec checkpoint ({named}, expected {FORMAT!r})")
    try:
        settings = heeded(completed(content["config"]))
        if settings.get("layers", 0) > len(content["weights"]):  # to be known before so many are built
            raise InputError("the checkpoint's weights do not fit its settings: fewer than its layers")
        checkpoint = Checkpoint(
            **{
                "extra": {},  # of methods that files from before them did not know
                **content,
                "config": configure(settings),
                "best": tuple(content["best"]),
                "sums": content["sums"].flatten(1),
                "folder": path.parent,
            }
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InputError(
            f"{path} is a damaged checkpoint: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    # a RuntimeError is torch's, of a tensor in place of a number
    except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is a damaged checkpoint: {error}") from error
    return checkpoint

"""A run's settings: one frozen, validated object, kept whole in its checkpoints."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from landscape.errors import InputError, encodable
from landscape.storage.files import existing, write_text
from samrec.architecture import NAMES, Architecture, decided, undecided
from samrec.choices import (
    OF_READING,
    SYNONYMS,
    Activation,
    Ascent,
    Format,
    Init,
    Loss,
    Method,
    Norm,
    Perturb,
    Positions,
    Precision,
    Preset,
    Schedule,
)
from samrec.concerns import METHODS_OF, OF_SAM, applies, without_effect
from samrec.data.holdout import LEAVE_ONE_OUT, parsed

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """How the command line shows a setting, beside its name, type, default and description.

    Attributes:
        panel: the title that it stands under.
        flags: the options that switch it on and off, separated by a slash.
        path: whether it names a file.
    """

    panel: str | None = None
    flags: str | None = None
    path: bool = False


File = Annotated[T, Shown(path=True)]
LossPart = Annotated[T, Shown("Loss")]
ModelPart = Annotated[T, Shown("Model")]
StepPart = Annotated[T, Shown("Training")]
SamPart = Annotated[T, Shown("SAM (samrec; with --rho cl4srec, s3rec, bert4rec, gru4rec)")]
ViewPart = Annotated[T, Shown("Contrastive views (cl4srec)")]
MaskPart = Annotated[T, Shown("Masked items (bert4rec)")]
PretrainPart = Annotated[T, Shown("Pre-training (s3rec, s3rec-pretraining)")]
DataPart = Annotated[T, Shown("Data")]
Finite = Annotated[T, Field(allow_inf_nan=False)]
Share = Annotated[T, Field(ge=0, le=1)]

# Far beyond what anybody trains: whether there is memory for it is `samrec.training.memory`'s to say.
WIDEST, MOST_LAYERS, MOST_NEGATIVES, MOST_USERS = 2**16, 2**10, 10**6, 2**20
MOST_EPOCHS = 10**9
Times = Annotated[T, Field(ge=1, le=MOST_EPOCHS)]


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """Declare a field by its default, its meaning, and the bounds of its value by the names of `Field`."""
    return Field(default, description=description, **bounds)


class Config(BaseModel):
    """What is trained, on what, and how: each setting once, with its type, default, bounds and meaning.

    `samrec.cli.settings` makes the options of the command line from the fields. Raises pydantic's
    `ValidationError`, a `ValueError`, for settings that are unknown, out of bounds or in conflict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: File[str] = Field(description="Sequence lines, pairs, or a table; see landscape data info")
    method: Method = setting("sasrec", "Training method, described above")
    seed: int = setting(0, "Random seed", ge=0, lt=2**63)

    loss: LossPart[Loss] = setting(
        "bce", "BCE, gBCE or sampled softmax on negatives, or CE over all items, bert4rec's default"
    )
    negatives: LossPart[int | None] = setting(
        None, "Negatives per position (default: 1 for bce, 256 for gbce and sampled)", ge=1, le=MOST_NEGATIVES
    )
    calibration: LossPart[Share[float]] = setting(0.75, "Calibration t of gbce, 0 for bce to 1")

    preset: ModelPart[Preset] = setting(
        "sasrec", "Architecture: this toolkit's, the first release's, or that of S3Rec and RecBole"
    )
    norm: ModelPart[Norm] = setting("original", "Position of LayerNorm")
    scaled: Annotated[ModelPart[bool], Shown(flags="--scaled/--unscaled")] = setting(
        True, "Multiply input embeddings by √dim"
    )
    activation: ModelPart[Activation] = setting("relu", "Activation of the feed-forward layer")
    expansion: ModelPart[int] = setting(1, "Width of the feed-forward layer, in units of dim", ge=1, le=64)
    residual_dropout: Annotated[ModelPart[bool], Shown(flags="--residual-dropout/--inner-dropout")] = setting(
        False, "Dropout on what attention adds, or inside the feed-forward layer"
    )
    init: ModelPart[Init] = setting("normal", "Initial linear weights: N(0, 0.02²) or Xavier")
    positions: ModelPart[Positions] = setting("start", "Count positions from the start or the end")
    item_features: ModelPart[File[str | None]] = setting(
        None, "JSON file of the items' attributes, whose embeddings are added to the items' own"
    )
    dim: ModelPart[int] = setting(64, "Embedding dimension", ge=1, le=WIDEST)
    max_length: ModelPart[int] = setting(50, "Maximum length of a history", ge=1, le=WIDEST)
    layers: ModelPart[int] = setting(2, "Number of layers", ge=1, le=MOST_LAYERS)
    heads: ModelPart[int] = setting(2, "Attention heads per layer", ge=1, le=WIDEST)
    dropout: ModelPart[float] = setting(0.5, "Dropout rate", ge=0, lt=1)

    epochs: StepPart[Times[int]] = setting(200, "Maximum number of epochs")
    batch_size: StepPart[int] = setting(256, "Users per batch", ge=1, le=MOST_USERS)
    micro_batches: StepPart[int] = setting(
        1, "Parts of a batch whose gradients are accumulated", ge=1, le=MOST_USERS
    )
    lr: StepPart[Finite[float]] = setting(1e-3, "Learning rate of Adam", gt=0)
    lr_schedule: StepPart[Schedule] = setting("constant", "Decay of the learning rate to 0 at the end")
    warmup: StepPart[int] = setting(0, "Epochs in which the learning rate rises from 0", ge=0, le=MOST_EPOCHS)
    weight_decay: StepPart[Finite[float]] = setting(0.0, "Weight decay of Adam", ge=0)
    clip: StepPart[Finite[float | None]] = setting(None, "Clip gradients to this norm", gt=0)
    precision: StepPart[Precision] = setting("float32", "Precision of matrix products in training")
    eval_every: StepPart[Times[int]] = setting(5, "Epochs between validations")
    patience: StepPart[Times[int]] = setting(40, "Stop after N epochs without a better validation NDCG@10")
    save_every: StepPart[Times[int | None]] = setting(None, "Epochs between checkpoints kept in OUT/epochs")
    monitor: StepPart[Times[int | None]] = setting(
        None, "Epochs between measurements of λmax (monitor.jsonl)"
    )

    rho: SamPart[Finite[float | None]] = setting(None, "Radius ρ (default: 0.1 for samrec, else 0)", ge=0)
    rho_schedule: SamPart[Schedule] = setting("constant", "Decay of ρ to 0 at the end")
    rho_warmup: SamPart[int] = setting(0, "Epochs in which ρ rises from 0", ge=0, le=MOST_EPOCHS)
    adaptive: SamPart[bool] = setting(False, "ASAM: measure ρ in units of each weight's size")
    every: SamPart[Times[int]] = setting(1, "Compute the ascent direction every N steps")
    perturb: SamPart[Perturb] = setting("all", "Parameters that are perturbed")
    ascent: SamPart[Ascent] = setting(
        "batch", "Gradient that SAM ascends: the batch's, or each micro-batch's or rank's own"
    )

    contrast: ViewPart[Finite[float]] = setting(0.02, "Weight λ of the contrastive loss", ge=0)
    temperature: ViewPart[Finite[float | None]] = setting(
        None, "Temperature of the similarities of views (default: √dim)", gt=0
    )
    crop: ViewPart[Share[float]] = setting(0.6, "Share of a history that cropping keeps")
    reorder: ViewPart[Share[float]] = setting(0.6, "Share of a history that reordering shuffles")
    mask: ViewPart[Share[float | None]] = setting(
        None, "Share of items masked (default: 0.3 in views, 0.2 in pre-training and bert4rec)"
    )
    mask_last: MaskPart[Share[float]] = setting(0.1, "Share of histories with only the last item masked")

    attributes: PretrainPart[File[str | None]] = setting(
        None, "JSON file of the items' attributes (default: DATA_item2attributes.json, if there)"
    )
    pretrain_epochs: PretrainPart[Times[int]] = setting(100, "Epochs of pre-training, in OUT/pretraining")
    pretrained: PretrainPart[File[str | None]] = setting(None, "last.pt of an s3rec-pretraining run")
    associated_attribute: PretrainPart[Finite[float]] = setting(
        0.2, "Weight of the loss on attributes of visible items", ge=0
    )
    masked_item: PretrainPart[Finite[float]] = setting(1.0, "Weight of the loss on masked items", ge=0)
    masked_attribute: PretrainPart[Finite[float]] = setting(
        1.0, "Weight of the loss on attributes of masked items", ge=0
    )
    segment: PretrainPart[Finite[float]] = setting(0.5, "Weight of the loss on masked segments", ge=0)

    format: DataPart[Format] = setting("auto", "Format of the data; auto goes by the file's ending")
    columns: DataPart[str | None] = setting(
        None, "Columns of a table: USER,ITEM[,TIME[,RATING]]; names, or numbers from 0"
    )
    separator: DataPart[str | None] = setting(
        None, "Separator of a table's fields: , ; | :: or tab (default: detected)", min_length=1
    )
    quote: DataPart[str | None] = setting(
        None, "Quote character of a table, or none (default: detected in CSV, else none)", min_length=1
    )
    encoding: DataPart[str | None] = setting(
        None, "Encoding of a table, such as latin-1 (default: UTF-8 or UTF-16)", min_length=1
    )
    time_format: DataPart[str | None] = setting(
        None, "Format of a table's times, such as %d/%m/%Y (default: detected if unambiguous)", min_length=1
    )
    min_rating: DataPart[Finite[float | None]] = setting(None, "Leave out rows with a lower rating")
    drop_missing: DataPart[bool] = setting(
        False, "Leave out rows without a user, an item or a time, which are otherwise refused"
    )
    deduplicate: DataPart[bool] = setting(False, "Keep a user's first interaction with each item only")
    core: DataPart[int] = setting(0, "Leave out users and items with fewer interactions", ge=0, lt=2**63)
    split: DataPart[str] = setting(
        LEAVE_ONE_OUT,
        "Items held out: leave-one-out, time:DATE[,DATE] for all users, or ratio:TRAIN,VALID,TEST per user",
    )
    train_fraction: DataPart[float] = setting(
        1.0, "Train on this share of the users, test on all", gt=0, le=1
    )
    noise: DataPart[Share[float]] = setting(
        0.0, "Replace this share of the training interactions by random items"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in what the preset decides, so that a stored run does not depend on what it decides later."""
        return decided(given) | given

    @field_validator("split")
    @classmethod
    def _known_split(cls, split: str) -> str:
        parsed(split)
        return split

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if applies("heads", self.method) and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.patience < self.eval_every:
            raise ValueError(f"patience {self.patience} is shorter than eval_every {self.eval_every}")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batches {self.micro_batches}"
            )
        for name, methods in METHODS_OF.items():
            if not applies(name, self.method) and self._is_set(name):
                raise ValueError(f"{name} is not a setting of {self.method}, only of {', '.join(methods)}")
        if void := [name for name in without_effect(self.model_dump()) if self._is_set(name)]:
            raise ValueError(f"{void[0]} is of a pre-training, and pretrained names one that is done")
        if not self.radius and self.rho is None and (changed := [k for k in OF_SAM if self._is_set(k)]):
            raise ValueError(f"{changed[0]} is a setting of SAM, which {self.method} has with rho; give rho")
        if self.method == "gru4rec" and self.perturb == "norm-only":
            raise ValueError("perturb is norm-only, and gru4rec has no normalization to perturb")
        if self.ascent != "batch" and self.every > 1:
            raise ValueError(f"every reuses one direction, but ascent {self.ascent} has several; use every 1")
        if self.loss == "ce" and self.negatives is not None:
            raise ValueError("ce scores all items and draws no negatives")
        if self.loss != "gbce" and self._is_set("calibration"):
            raise ValueError("calibration is for loss gbce alone")
        return self

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the method has: what is kept. A default of another's may change without harm."""
        return {name: value for name, value in self.model_dump().items() if applies(name, self.method)}

    @property
    def reading(self) -> dict[str, Any]:
        """The settings that `samrec.data.readers.read` takes beside the path."""
        return self.model_dump(include=set(OF_READING)) | {"times": parsed(self.split).kind == "time"}

    @property
    def radius(self) -> float:
        """The radius of SAM's ball; 0 where a step is the plain optimizer's."""
        if self.rho is None:
            return 0.1 if self.method == "samrec" else 0.0
        return self.rho

    @property
    def architecture(self) -> Architecture:
        """What the Transformer is like."""
        return Architecture(**{name: getattr(self, name) for name in NAMES})

    @property
    def by_rows(self) -> bool:
        """Whether a step's loss is a sum over the rows of a batch, which ranks can share.

        A contrast within the batch is not, nor are the segments and masks of pre-training.
        """
        return self.method not in ("cl4srec", "s3rec-pretraining") and not self.pretrains

    @property
    def pretrains(self) -> bool:
        """Whether it begins with a pre-training of its own."""
        return self.method == "s3rec" and not self.pretrained

    @property
    def drawn(self) -> int:
        """How many negatives are drawn for a position."""
        if self.loss == "ce":
            return 0
        return self.negatives or (1 if self.loss == "bce" else 256)

    @property
    def hidden(self) -> float:
        """The share of items that a mask token hides."""
        if self.mask is None:
            return 0.3 if self.method == "cl4srec" else 0.2
        return self.mask

    @property
    def pretraining(self) -> "Config":
        """The settings of the run that S3Rec's fine-tuning begins from: those of its own that apply."""
        method = "s3rec-pretraining"
        own = {name: value for name, value in self.settings.items() if applies(name, method)}
        return Config(**own | {"method": method, "epochs": self.pretrain_epochs})


FILES = tuple(name for name, field in Config.model_fields.items() if Shown(path=True) in field.metadata)
"""The settings that name a file."""


def configure(values: dict[str, Any]) -> Config:
    """Validate settings.

    Raises:
        InputError: one line naming the first setting that is wrong, and why.
    """
    try:
        return Config(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = _said(where, first)
        raise InputError(f"setting {where}: {what}" if where else what) from None


def _said(name: str, error: "ErrorDetails") -> str:
    """Return what is wrong with a setting, in our words."""
    if error["type"] == "extra_forbidden":
        near = SYNONYMS.get(name.lower()) or next(
            iter(get_close_matches(name, Config.model_fields, cutoff=0.75)), None
        )
        return "no such setting; " + (f"did you mean {near}?" if near else "see landscape train --help")
    if error["type"] == "missing":
        return "must be given"
    said = error["msg"].removeprefix("Value error, ")
    if not said.startswith("Input should be "):
        return said
    wanted = re.sub(", (unable|got) .*", "", said.removeprefix("Input should be "))
    return f"must be {wanted}, not {error['input']!r:.80}"


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises:
        InputError: no such file, or not TOML.
    """
    existing(path, "TOML file", 2**20)
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # of decoding, parsing, numbers of 5,000 digits
        raise InputError(f"{path} is not TOML: {error}") from None


def combined(path: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a TOML file, if there is one, with those given in place of its own.

    Raises:
        InputError: as `read_settings`, or neither names the data.
    """
    settings = (undecided(read_settings(path)) if path else {}) | dict(given)
    if "data" not in settings:
        if not settings.keys() <= Config.model_fields.keys():
            configure(settings | {"data": ""})  # the data may be under a name that is misspelled
        raise InputError("nothing to train on: give --data FILE, or --config FILE with data in it")
    return settings


def write_config(config: Config, path: Path) -> None:
    """Write settings as TOML that `read_settings` reads back: JSON's scalars, without its surrogates."""
    settings = ((name, value) for name, value in config.settings.items() if value is not None)
    lines = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings)
    write_text(path, encodable(lines.replace("\x7f", r"\u007f")))

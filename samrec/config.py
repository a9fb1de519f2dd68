"""A run's settings: one frozen, validated object, kept whole in its checkpoints."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from landscape.errors import InputError
from landscape.storage.files import existing, replacing
from samrec.architecture import NAMES, PRESETS, Architecture
from samrec.choices import (
    OF_READING,
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
SamPart = Annotated[
    T, Shown("Sharpness-Aware Minimization (samrec; with --rho also cl4srec, s3rec, gru4rec)")
]
ViewPart = Annotated[T, Shown("Contrastive views (cl4srec)")]
PretrainingPart = Annotated[T, Shown("Pre-training (s3rec, s3rec-pretraining)")]
DataPart = Annotated[T, Shown("Data")]
Finite = Annotated[T, Field(allow_inf_nan=False)]
Share = Annotated[T, Field(ge=0, le=1)]


class Config(BaseModel):
    """What is trained, on what, and how: each setting once, with its type, default, bounds and meaning.

    `samrec.cli.settings` makes the options of the command line from the fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: File[str] = Field(
        description="File of interactions: sequence lines, pairs, or a table; see landscape data info --help"
    )
    format: DataPart[Format] = Field("auto", description="Format of the data; auto goes by the file's ending")
    columns: DataPart[str | None] = Field(
        None, description="Columns of a table: USER,ITEM[,TIME[,RATING]], by name or by number from 0"
    )
    separator: DataPart[str | None] = Field(
        None, min_length=1, description="Separator of a table's fields: , ; | :: or tab (default: detected)"
    )
    quote: DataPart[str | None] = Field(
        None,
        min_length=1,
        description="Character that quotes a table's fields, or none (default: detected in CSV, else none)",
    )
    encoding: DataPart[str | None] = Field(
        None, min_length=1, description="Encoding of a table's text, such as latin-1 (default: UTF-8, UTF-16)"
    )
    time_format: DataPart[str | None] = Field(
        None,
        min_length=1,
        description="Format of a table's times, such as %d/%m/%Y %H:%M (default: detected if unambiguous)",
    )
    min_rating: DataPart[Finite[float | None]] = Field(None, description="Leave out rows with a lower rating")
    drop_missing: DataPart[bool] = Field(
        False, description="Leave out rows without a user, an item or a time, which are otherwise refused"
    )
    deduplicate: DataPart[bool] = Field(
        False, description="Keep only a user's first interaction with each item"
    )
    core: DataPart[int] = Field(0, ge=0, description="Leave out users and items with fewer interactions")
    train_fraction: DataPart[float] = Field(
        1.0, gt=0, le=1, description="Train on this share of the users, drawn by --seed, and test on all"
    )
    noise: DataPart[Share[float]] = Field(
        0.0, description="Replace this share of the training interactions by random items, drawn by --seed"
    )

    method: Method = Field("sasrec", description="Training method, described above")
    rho: SamPart[Finite[float | None]] = Field(
        None, ge=0, description="Radius ρ (default: 0.1 for samrec, else 0)"
    )
    rho_schedule: SamPart[Schedule] = Field(
        "constant", description="How ρ falls to 0 at the last epoch, unless constant"
    )
    rho_warmup: SamPart[int] = Field(0, ge=0, description="Number of epochs in which ρ rises from 0")
    adaptive: SamPart[bool] = Field(False, description="ASAM: measure ρ in units of each weight's size")
    every: SamPart[int] = Field(1, ge=1, description="Compute the ascent direction every N steps")
    perturb: SamPart[Perturb] = Field("all", description="Parameters that are perturbed")
    ascent: SamPart[Ascent] = Field(
        "batch", description="Ascend by the gradient of the batch, or of each micro-batch or rank by its own"
    )

    contrast: ViewPart[Finite[float]] = Field(0.02, ge=0, description="Weight λ of the contrastive loss")
    temperature: ViewPart[Finite[float | None]] = Field(
        None, gt=0, description="Temperature that similarities of views are divided by (default: √dim)"
    )
    crop: ViewPart[Share[float]] = Field(0.6, description="Share of a history that a cropped view keeps")
    reorder: ViewPart[Share[float]] = Field(
        0.6, description="Share of a history that a reordered view shuffles"
    )
    mask: ViewPart[Share[float | None]] = Field(
        None, description="Share of the items that are masked (default: 0.3 in views, 0.2 in pre-training)"
    )

    attributes: PretrainingPart[File[str | None]] = Field(
        None,
        description="JSON file of the items' attributes (default: DATA_item2attributes.json, if it exists)",
    )
    pretrain_epochs: PretrainingPart[int] = Field(
        100, ge=1, description="Number of pre-training epochs, in OUT/pretraining"
    )
    pretrained: PretrainingPart[File[str | None]] = Field(
        None, description="last.pt of a run of s3rec-pretraining to start from, instead of pre-training"
    )
    associated_attribute: PretrainingPart[Finite[float]] = Field(
        0.2, ge=0, description="Weight of predicting the attributes of visible items"
    )
    masked_item: PretrainingPart[Finite[float]] = Field(
        1.0, ge=0, description="Weight of predicting masked items"
    )
    masked_attribute: PretrainingPart[Finite[float]] = Field(
        1.0, ge=0, description="Weight of predicting the attributes of masked items"
    )
    segment: PretrainingPart[Finite[float]] = Field(
        0.5, ge=0, description="Weight of predicting masked segments"
    )

    loss: LossPart[Loss] = Field(
        "bce", description="BCE, gBCE or sampled softmax with negatives, or cross-entropy over all items"
    )
    negatives: LossPart[int | None] = Field(
        None, ge=1, description="Negatives per position (default: 1 for bce, 256 for gbce and sampled)"
    )
    calibration: LossPart[Share[float]] = Field(
        0.75, description="Calibration t of gbce: 0 is bce, 1 is calibrated like softmax"
    )

    preset: ModelPart[Preset] = Field(
        "sasrec",
        description="Architecture: this toolkit's, the first release's, or that of S3Rec and RecBole",
    )
    norm: ModelPart[Norm] = Field("pre", description="Position of LayerNorm")
    scaled: Annotated[ModelPart[bool], Shown(flags="--scaled/--unscaled")] = Field(
        True, description="Whether input embeddings are multiplied by √dim"
    )
    activation: ModelPart[Activation] = Field("relu", description="Activation of the feed-forward layer")
    expansion: ModelPart[int] = Field(
        1, ge=1, description="Width of the feed-forward layer, as a multiple of dim"
    )
    residual_dropout: Annotated[ModelPart[bool], Shown(flags="--residual-dropout/--inner-dropout")] = Field(
        False, description="Apply dropout to the output of attention, or inside the feed-forward layer"
    )
    init: ModelPart[Init] = Field(
        "normal", description="Initial weights of linear layers: N(0, 0.02²) or Xavier"
    )
    positions: ModelPart[Positions] = Field(
        "start", description="End of the history that positions are counted from"
    )
    dim: ModelPart[int] = Field(64, ge=1, description="Embedding dimension")
    max_length: ModelPart[int] = Field(50, ge=1, description="Maximum length of a history")
    layers: ModelPart[int] = Field(2, ge=1, description="Number of layers")
    heads: ModelPart[int] = Field(2, ge=1, description="Attention heads per layer")
    dropout: ModelPart[float] = Field(0.5, ge=0, lt=1, description="Dropout rate")

    epochs: StepPart[int] = Field(200, ge=1, description="Maximum number of epochs")
    batch_size: StepPart[int] = Field(256, ge=1, description="Users per batch")
    micro_batches: StepPart[int] = Field(
        1, ge=1, description="Parts that a batch is split into; their gradients are accumulated"
    )
    lr: StepPart[Finite[float]] = Field(1e-3, gt=0, description="Learning rate of Adam")
    lr_schedule: StepPart[Schedule] = Field(
        "constant", description="How the learning rate falls to 0 at the last epoch, unless constant"
    )
    warmup: StepPart[int] = Field(
        0, ge=0, description="Number of epochs in which the learning rate rises from 0"
    )
    weight_decay: StepPart[Finite[float]] = Field(0.0, ge=0, description="Weight decay of Adam")
    clip: StepPart[Finite[float | None]] = Field(None, gt=0, description="Clip gradients to this norm")
    precision: StepPart[Precision] = Field("float32", description="Precision of matrix products in training")
    eval_every: StepPart[int] = Field(5, ge=1, description="Epochs between validations")
    patience: StepPart[int] = Field(
        50, ge=1, description="Stop after this number of epochs without a better validation NDCG@10"
    )
    save_every: StepPart[int | None] = Field(
        None, ge=1, description="Epochs between checkpoints kept in OUT/epochs, for drawing the trajectory"
    )
    seed: int = Field(0, ge=0, description="Random seed")

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in what the preset decides, so that a stored run does not depend on what it decides later."""
        preset = given.get("preset", "sasrec")
        if given.get("method") == "gru4rec" or preset not in tuple(PRESETS):  # refused later, by its name
            return given
        return asdict(PRESETS[preset]) | given

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.patience < self.eval_every:
            raise ValueError(f"patience {self.patience} is shorter than eval_every {self.eval_every}")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batches {self.micro_batches}"
            )
        for name, methods in METHODS_OF.items():
            if not applies(name, self.method) and self._is_set(name):
                raise ValueError(f"{name} is not of method {self.method}; it is of {', '.join(methods)}")
        if not self.radius and self.rho is None and (changed := [k for k in OF_SAM if self._is_set(k)]):
            raise ValueError(f"{changed[0]} is SAM's, which {self.method} has with a radius; give rho too")
        if self.method == "gru4rec" and self.perturb == "norm-only":
            raise ValueError("perturb is norm-only, and gru4rec has no normalization to perturb")
        if self.ascent != "batch" and self.every > 1:
            raise ValueError(f"every keeps one direction, and with ascent {self.ascent} each has its own")
        if self.loss == "ce" and self.negatives is not None:
            raise ValueError("ce scores all items and draws no negatives")
        if self.loss != "gbce" and self._is_set("calibration"):
            raise ValueError("calibration is gbce's; use loss gbce")
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
        return self.model_dump(include=set(OF_READING))

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


OF_SAM = ("rho", "rho_schedule", "rho_warmup", "adaptive", "every", "perturb", "ascent")
OF_VIEWS = ("contrast", "temperature", "crop", "reorder")
OF_FINE_TUNING = ("pretrained", "pretrain_epochs")
OF_PRETRAINING = ("attributes", "associated_attribute", "masked_item", "masked_attribute", "segment")
OF_TRANSFORMERS: tuple[Method, ...] = ("sasrec", "samrec", "cl4srec", "s3rec", "s3rec-pretraining")
METHODS_OF: Mapping[str, Sequence[Method]] = {
    **dict.fromkeys(("preset", *NAMES), OF_TRANSFORMERS),
    **dict.fromkeys(OF_SAM, ("samrec", "cl4srec", "s3rec", "gru4rec")),
    **dict.fromkeys(OF_VIEWS, ("cl4srec",)),
    **dict.fromkeys(OF_FINE_TUNING, ("s3rec",)),
    **dict.fromkeys(OF_PRETRAINING, ("s3rec", "s3rec-pretraining")),
    "mask": ("cl4srec", "s3rec", "s3rec-pretraining"),
}
"""The settings that not every method has, and the methods that have them."""


def applies(name: str, method: str) -> bool:
    """Tell whether a method has this setting."""
    return method in METHODS_OF.get(name, (method,))


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
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"setting {where}: {what}" if where else what) from None


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises:
        InputError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(existing(path, "TOML file").read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # of decoding, parsing, numbers of 5,000 digits
        raise InputError(f"{path} is not TOML: {error}") from None


def combined(path: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a TOML file, if there is one, with those given in place of its own.

    Raises:
        InputError: as `read_settings`, or neither names the data.
    """
    settings = (read_settings(path) if path else {}) | dict(given)
    if "data" not in settings:
        raise InputError("nothing to train on: give --data FILE, or --config FILE with data in it")
    return settings


def write_config(config: Config, path: Path) -> None:
    """Write settings as TOML that `read_settings` reads back. Flat scalars: JSON's are TOML's."""
    settings = ((name, value) for name, value in config.settings.items() if value is not None)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in settings), "utf-8")

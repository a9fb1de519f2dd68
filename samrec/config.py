"""A run's settings: one frozen, validated object, kept whole in its checkpoints."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from landscape.errors import InputError
from landscape.files import existing, replacing
from samrec.choices import Ascent, Format, Loss, Method, Perturb, Precision, Preset, Schedule


class Config(BaseModel):
    """What is trained, on what, and how. Units: epochs count passes over all training users."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="file of sequence lines, pairs or a table")
    format: Format = "auto"
    columns: str | None = Field(None, description="of a table: USER,ITEM[,TIME[,RATING]]")
    separator: str | None = Field(None, min_length=1, description="of a table's fields; found if not given")
    quote: str | None = Field(None, min_length=1, description="what quotes a table's fields, or none")
    encoding: str | None = Field(None, min_length=1, description="of a table's text; UTF-8 if not given")
    time_format: str | None = Field(None, min_length=1, description="of a table's times, as strptime's")
    min_rating: float | None = Field(None, allow_inf_nan=False, description="leave out rows rated lower")
    drop_missing: bool = Field(False, description="leave out rows without a user, an item or a time")
    deduplicate: bool = Field(False, description="keep a user's first interaction with each item only")
    core: int = Field(0, ge=0, description="leave out users and items with fewer interactions")
    train_fraction: float = Field(1.0, gt=0, le=1, description="train on this share of users, test on all")
    noise: float = Field(0.0, ge=0, le=1, description="train with this share of interactions replaced")

    method: Method = "sasrec"
    rho: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="SAM's radius; 0.1 for samrec, else 0, if not given"
    )
    rho_schedule: Schedule = "constant"
    rho_warmup: int = Field(0, ge=0, description="epochs in which rho rises from 0")
    adaptive: bool = Field(False, description="ASAM: the ball in units of the weights' own size")
    every: int = Field(1, ge=1, description="compute SAM's direction in one step of so many")
    perturb: Perturb = Field("all", description="which parameters SAM moves")
    ascent: Ascent = Field("batch", description="whose gradient SAM climbs")

    contrast: float = Field(0.02, ge=0, allow_inf_nan=False, description="CL4SRec's λ, of its own loss")
    temperature: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="of similarities of views; √dim if not given"
    )
    crop: float = Field(0.6, ge=0, le=1, description="share of a history that a cropped view keeps")
    reorder: float = Field(0.6, ge=0, le=1, description="share of a history that a reordered view shuffles")
    mask: float | None = Field(
        None, ge=0, le=1, description="share of items hidden: 0.3 in views, 0.2 in pre-training"
    )

    pretrained: str | None = Field(None, description="S3Rec's; pre-train first if not given")
    pretrain_epochs: int = Field(100, ge=1, description="of S3Rec's pre-training")
    attributes: str | None = Field(None, description="JSON file of the items' attributes")
    associated_attribute: float = Field(0.2, ge=0, allow_inf_nan=False, description="weight of this loss")
    masked_item: float = Field(1.0, ge=0, allow_inf_nan=False)
    masked_attribute: float = Field(1.0, ge=0, allow_inf_nan=False)
    segment: float = Field(0.5, ge=0, allow_inf_nan=False)

    loss: Loss = "bce"
    negatives: int | None = Field(None, ge=1, description="a position; 1 for bce, 256 for gbce and sampled")
    calibration: float = Field(0.75, ge=0, le=1, description="of gbce: 0 is bce, 1 calibrated as softmax")

    preset: Preset = Field("sasrec", description="architecture, see samrec.model.PRESETS")
    dim: int = Field(64, ge=1)
    max_length: int = Field(50, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)

    epochs: int = Field(400, ge=1, description="at most")
    batch_size: int = Field(256, ge=1, description="users a batch")
    micro_batches: int = Field(1, ge=1, description="parts of a batch whose gradients are accumulated")
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    lr_schedule: Schedule = "constant"
    warmup: int = Field(0, ge=0, description="epochs in which lr rises from 0")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float | None = Field(None, gt=0, allow_inf_nan=False, description="largest norm of a gradient")
    precision: Precision = Field("float32", description="of matrix products in training")
    eval_every: int = Field(5, ge=1, description="epochs between validations")
    patience: int = Field(100, ge=1, description="stop after so many epochs without a better NDCG@10")
    save_every: int | None = Field(
        None, ge=1, description="epochs between checkpoints kept in OUT/epochs, to draw the trajectory"
    )
    seed: int = Field(0, ge=0)

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
        if self.method == "gru4rec" and self._is_set("preset"):
            raise ValueError("preset is an architecture of the Transformer, and gru4rec has none")
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


OF_TABLES = ("columns", "separator", "quote", "encoding", "time_format", "min_rating", "drop_missing")
OF_READING = ("format", "deduplicate", "core", *OF_TABLES)
OF_SAM = ("rho", "rho_schedule", "rho_warmup", "adaptive", "every", "perturb", "ascent")
OF_VIEWS = ("contrast", "temperature", "crop", "reorder")
OF_FINE_TUNING = ("pretrained", "pretrain_epochs")
OF_PRETRAINING = ("attributes", "associated_attribute", "masked_item", "masked_attribute", "segment")
METHODS_OF: Mapping[str, Sequence[Method]] = {
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


def write_config(config: Config, path: Path) -> None:
    """Write settings as TOML that `read_settings` reads back. Flat scalars: JSON's are TOML's."""
    settings = ((name, value) for name, value in config.settings.items() if value is not None)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in settings), "utf-8")

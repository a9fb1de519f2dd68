"""Which architecture of SASRec is best per unit of time: one change at a time, each to its best epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from figures.plan import Training

DATA = ("Beauty", "Toys_and_Games")
TO_THE_BEST = {"loss": "bce", "epochs": 200, "eval_every": 5, "patience": 50}
BEFORE = {"norm": "pre"}
"""What the default preset had when this was run; it has `original-norm` since."""
BERT = {"preset": "sasrec-bert", "norm": "post"}
VARIANTS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "expansion-4": {"expansion": 4},
    "gelu": {"activation": "gelu"},
    "residual-dropout": {"residual_dropout": True},
    "positions-end": {"positions": "end"},
    "post-norm": {"norm": "post"},
    "unscaled": {"scaled": False},
    "post-norm-unscaled": {"norm": "post", "scaled": False},
    "original-norm": {"norm": "original"},
    "xavier": {"init": "xavier"},
    "bert": BERT,
    "bert-positions-start": BERT | {"positions": "start"},
}
"""That preset but for one setting; `sasrec-bert` differs in five, and is there to compare with."""
CONFIRMED = ("default", "original-norm", "post-norm", "post-norm-unscaled")
"""What a second seed is spent on: the default, and whose best epoch was above its on both data sets."""


@dataclass(frozen=True)
class Variant(Training):
    """A run of the ablation.

    Attributes:
        label: what it differs in from the default, one of `VARIANTS`.
    """

    label: str

    @cached_property
    def name(self) -> str:
        return f"ablation.{self.data.split('_')[0].lower()}.{self.label}.seed-{self.settings['seed']}"


def ablation() -> Iterator[Variant]:
    """Yield every run: one seed of all variants on all data sets, and another of those that led."""
    for seed, labels in enumerate((tuple(VARIANTS), CONFIRMED)):
        for data in DATA:
            for label in labels:
                own = BEFORE | VARIANTS[label] | {"seed": seed}
                yield Variant(data, TO_THE_BEST | own, label, measured=False)

"""Which settings a run has: those of its method, as far as the others leave them an effect."""

from collections.abc import Mapping, Sequence
from typing import Any

from samrec.architecture import NAMES
from samrec.choices import Method

OF_SAM = ("rho", "rho_schedule", "rho_warmup", "adaptive", "every", "perturb", "ascent")
OF_VIEWS = ("contrast", "temperature", "crop", "reorder")
OF_FINE_TUNING = ("pretrained", "pretrain_epochs")
OF_PRETRAINING = ("attributes", "associated_attribute", "masked_item", "masked_attribute", "segment")
OF_TRANSFORMERS: tuple[Method, ...] = (
    "sasrec",
    "samrec",
    "cl4srec",
    "bert4rec",
    "s3rec",
    "s3rec-pretraining",
)
METHODS_OF: Mapping[str, Sequence[Method]] = {
    **dict.fromkeys(("preset", *NAMES), OF_TRANSFORMERS),
    **dict.fromkeys(OF_SAM, ("samrec", "cl4srec", "s3rec", "gru4rec", "bert4rec")),
    **dict.fromkeys(OF_VIEWS, ("cl4srec",)),
    **dict.fromkeys(OF_FINE_TUNING, ("s3rec",)),
    **dict.fromkeys(OF_PRETRAINING, ("s3rec", "s3rec-pretraining")),
    "heads": OF_TRANSFORMERS,
    "monitor": (*OF_TRANSFORMERS[:-1], "gru4rec"),
    "mask": ("cl4srec", "s3rec", "s3rec-pretraining", "bert4rec"),
    "mask_last": ("bert4rec",),
}
"""The settings that not every method has, and the methods that have them."""


def applies(name: str, method: str) -> bool:
    """Tell whether a method has this setting."""
    return method in METHODS_OF.get(name, (method,))


def without_effect(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that another one leaves no effect: those of the pre-training that is not done."""
    return (*OF_PRETRAINING, "pretrain_epochs", "mask") if settings.get("pretrained") else ()


def heeded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stored run that have an effect: some were once accepted without one."""
    method, void = str(settings.get("method", "sasrec")), without_effect(settings)
    return {name: value for name, value in settings.items() if name not in void and applies(name, method)}

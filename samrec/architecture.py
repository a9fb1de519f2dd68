"""What the published variants of SASRec differ in. Imports nothing heavy: the command line shows it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from samrec.choices import Activation, Init, Norm, Positions, Preset


@dataclass(frozen=True)
class Architecture:
    """The choices that the variants of the Transformer make.

    Attributes:
        norm: where LayerNorm stands. `original`: LN x + f(LN x), where attention's keys and values are of
            x itself, and one at the end, as in the first release. `pre`: x + f(LN x), and one at the end.
            `post`: LN(x + f(x)), and one on the embedded input, as in BERT.
        scaled: multiply the item embeddings of the input by √d. They start small, which suits the output
            layer that shares them; unscaled, they would be drowned out by the position embeddings.
        activation, expansion: choices of the feed-forward layer, which maps d to expansion · d to d.
        residual_dropout: apply dropout to what attention adds, and none inside the feed-forward layer.
        init: start linear weights from N(0, 0.02²), like the embeddings, or from Xavier's uniform
            distribution, whose weights are about seven times as large at d = 64.
        positions: count a history's positions from its `start`, or so that its last item always has the
            last position (`end`), as left padding does.
    """

    norm: Norm = "original"
    scaled: bool = True
    activation: Activation = "relu"
    expansion: int = 1
    residual_dropout: bool = False
    init: Init = "normal"
    positions: Positions = "start"


PRESETS: Mapping[Preset, Architecture] = {
    "sasrec": Architecture(),
    # The first release (github.com/kang205/SASRec); the output projection that it lacks is kept.
    "sasrec-original": Architecture(init="xavier", positions="end"),
    # What S3Rec (arXiv 2008.07873), CL4SRec and RecBole train under the name of SASRec. S3Rec pads on the
    # left, so its positions are counted from the end.
    "sasrec-bert": Architecture(
        norm="post", scaled=False, activation="gelu", expansion=4, residual_dropout=True, positions="end"
    ),
}
NAMES = tuple(field.name for field in fields(Architecture))
"""The settings that a preset decides where they are not given."""

_EARLIER: Mapping[str, Architecture] = {
    "sasrec": Architecture("pre", True, "relu", 1, False, "xavier", "start"),
    "sasrec-original": Architecture("original", True, "relu", 1, False, "xavier", "start"),
    "sasrec-bert": Architecture("post", False, "gelu", 4, True, "normal", "start"),
}
"""What the presets stood for before runs stored the architecture: whole, so that it outlives today's."""


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a stored run's settings the architecture that its preset stood for when it was stored.

    Runs stored since then name all of it. Earlier ones name the preset alone, and presets have changed.
    """
    preset = settings.get("preset", "sasrec")
    if "init" in settings or settings.get("method") == "gru4rec" or preset not in tuple(_EARLIER):
        return dict(settings)
    return asdict(_EARLIER[preset]) | dict(settings)


def decided(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the preset and the method decide where it is not given: the architecture and the loss."""
    preset, method = settings.get("preset", "sasrec"), settings.get("method")
    if method == "gru4rec" or preset not in tuple(PRESETS):  # refused later, by its name
        return {}
    return asdict(PRESETS[preset]) | {"loss": "ce" if method == "bert4rec" else "bce"}


def undecided(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a stored run's settings what is decided, so that another preset or method decides anew.

    Stored runs name all of the architecture. A file that names a part of it is somebody's choice, and kept.
    """
    if not settings.keys() >= set(NAMES):
        return settings
    anew = decided(settings)
    return {k: v for k, v in settings.items() if k not in anew or v != anew[k]}

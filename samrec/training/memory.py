"""How much memory a training takes, known before any of it is taken; the formulas are in docs/scale.md."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch

from landscape.errors import InputError
from landscape.runtime.devices import free_memory
from samrec.chunks import chunk_rows
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.losses import ROWS
from samrec.methods import outline

GIB = 2**30
FLOAT, INTEGER = 4, 8  # bytes
SIZES: dict[str, Any] = {
    "dim": 64,
    "max_length": 50,
    "layers": 2,
    "heads": 2,
    "expansion": 1,
    "negatives": None,
}
"""The settings that make a run large, each with a value that is usual."""


def check_memory(
    configs: Sequence[Config], batches: TrainingBatches, device: torch.device, limit: float | None = None
) -> None:
    """Make sure that there is memory for training these runs together, before it is taken.

    Args:
        configs: settings of the runs, which are of one shape.
        batches: what the first of them trains on.
        device: where they train.
        limit: how much memory there is, in GiB; by default what is free on the device.

    Raises:
        InputError: there is less than they need; it names the setting that makes it so.
    """
    config = max(configs, key=lambda config: config.radius)  # one that climbs lets all keep two weights
    room = free_memory(device) if limit is None else limit * GIB
    if (need := len(configs) * _need(config, batches, device)) <= room:
        return
    usual = SIZES | {"batch_size": 256 * config.micro_batches}
    without = {
        name: _need(config.model_copy(update={name: value}), batches, device) for name, value in usual.items()
    }
    name = min(without, key=lambda name: without[name])
    value = config.drawn if name == "negatives" else getattr(config, name)
    large = without[name] < 0.9 * need / len(configs)
    cause = f"{name} {value:,}" if large else f"{batches.split.num_items:,} items"
    raise InputError(
        f"training needs about {need / GIB:.1f} GiB of memory, mostly because of {cause}, and there are "
        f"{room / GIB:.1f} GiB; choose smaller settings, or say how much there is with --max-memory GIB"
    )


def _need(config: Config, batches: TrainingBatches, device: torch.device) -> int:
    """Return how many bytes the weights, what is kept for each of them, and one micro-batch take."""
    if config.method == "s3rec-pretraining":  # draws one negative, whatever the loss is that ranks later
        config = config.model_copy(update={"loss": "bce", "negatives": None})
    items, batches = batches.split.num_items, copy(batches)
    batches.max_length = config.max_length
    one, two = (_weights(config.model_copy(update={"layers": layers}), items) for layers in (1, 2))
    weights = one + (config.layers - 1) * (two - one)
    # the weight, its gradient and two moments; the weight before SAM's climb, and a direction that is kept
    copies = 4 + bool(config.radius) + (config.every > 1)
    kept = FLOAT * weights * copies
    users = min(config.batch_size // config.micro_batches, len(batches.split.trained))
    rows = batches.rows(users)
    return kept + rows * _of_row(config) + _of_loss(config, rows * config.max_length, items, device)


def _weights(config: Config, items: int) -> int:
    return sum(p.numel() for p in outline(config, items).parameters())


def _of_row(config: Config) -> int:
    """Return the bytes that one row's activations take until the backward pass has used them."""
    width, dim, layers = config.max_length, config.dim, config.layers
    if config.method == "gru4rec":
        return FLOAT * width * dim * (3 + 16 * layers)
    scores = config.heads * width**2  # of attention: raw, their softmax, and what dropout left of it
    slots = width * dim * (18 + 4 * config.expansion)
    passes = {"cl4srec": 3, "s3rec-pretraining": 3}.get(config.method, 1)  # of views, of pieces
    return passes * FLOAT * (layers * (3 * scores + slots) + 3 * width * dim + width**2)


def _of_loss(config: Config, slots: int, items: int, device: torch.device) -> int:
    """Return the bytes that comparing each slot's output with items takes."""
    if config.loss == "ce":  # two chunks of scores; the table's gradient, and the same scaled
        chunk = min(slots, max(ROWS, chunk_rows(items, device)))
        tables = 5 if config.item_features else 2  # with features also the sums, one more in the making
        return FLOAT * (2 * chunk * items + tables * items * config.dim)
    # each candidate: its number, twice; its embedding, the product with the output, and both gradients
    return (config.drawn + 2) * slots * (2 * INTEGER + 4 * FLOAT * config.dim)

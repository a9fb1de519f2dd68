"""The same model as most ports train it: a user a row of 50, and torch's own dropout and optimizer."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from samrec.config import Config
from samrec.data.packing import Batch, Packed, TrainingBatches
from samrec.data.split import Split
from samrec.losses import bce
from samrec.methods import initial_model
from samrec.model import Draws, Dropout


class Padded:
    """SASRec with BCE on padded batches.

    What it shares with the packed trainer: the model (with its bias towards this one: written-out
    attention, positions and negatives drawn at once, no loader process), and the loss, computed at all
    positions and weighted. What it lacks: packing, cheap random bits, one fused optimizer step.
    """

    def __init__(self, config: Config, split: Split) -> None:
        self.width = config.max_length
        self.batches = TrainingBatches(split, self.width, torch.device("cpu"))
        self.model = initial_model(config, split.num_items)
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.forward = _torch_dropout(module.threshold / 2**16)  # type: ignore[method-assign, assignment] # what ours is timed against
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr)

    def epoch(self, batch_size: int, seed: int, steps: int | None = None) -> int:
        """Train an epoch, or its first steps; return how many there were."""
        order = np.random.default_rng(seed).permutation(self.batches.split.trained)
        generator = torch.Generator().manual_seed(seed)
        firsts = range(0, len(order), batch_size)[:steps]
        for first in firsts:
            batch = self.batch(order[first : first + batch_size], generator)
            self.optimizer.zero_grad()
            total, weight = bce(self.model, batch)
            (total / weight).backward()  # type: ignore[no-untyped-call] # torch's
            self.optimizer.step()
        return len(firsts)

    def batch(self, users: np.ndarray, generator: torch.Generator) -> Batch:
        split = self.batches.split
        end = split.interactions.offsets[users] + split.train_lengths[users]
        lengths = np.minimum(split.train_lengths[users] - 1, self.width)
        column = np.arange(self.width)
        used = torch.from_numpy(column >= self.width - lengths[:, None])  # padded on the left
        source = torch.from_numpy(np.maximum(end[:, None] - 1 - self.width + column, 0))
        items, owner = self.batches.items, torch.from_numpy(users)[:, None].expand(used.shape)
        positions = torch.from_numpy(np.maximum(column - (self.width - lengths[:, None]), 0))
        bits = torch.empty(len(users), 0, dtype=torch.int16)  # says that dropout is on; torch draws its own
        inputs = Packed(items[source] * used, positions, used.long(), torch.empty(0), bits)
        negatives = self.batches.negatives.draw(owner[None], generator)
        return Batch(inputs, items[source + 1] * used, negatives, used.float())


def padded(batch: Batch) -> Batch:
    """Lay each history of a packed batch into a row of its own, at the right end."""
    packed, width = batch.inputs, batch.targets.shape[1]
    slots = packed.segments > 0
    row = packed.segments[slots] - 1
    lengths = torch.bincount(row)
    column = width - lengths[row] + packed.positions[slots]

    def laid(values: Tensor) -> Tensor:
        rows = values.new_zeros(*values.shape[:-2], len(lengths), width)
        rows[..., row, column] = values[..., slots]
        return rows

    inputs = Packed(laid(packed.items), laid(packed.positions), laid(slots.long()), torch.empty(0))
    return Batch(inputs, laid(batch.targets), laid(batch.negatives), laid(batch.used))


def _torch_dropout(p: float) -> Callable[[torch.Tensor, Draws | None], torch.Tensor]:
    def forward(x: torch.Tensor, draws: Draws | None) -> torch.Tensor:
        return x if draws is None else F.dropout(x, p)

    return forward

"""What a run trains: a recommender, and the parameters that its method adds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from samrec.data.packing import Batch
from samrec.losses import Loss
from samrec.model import Recommender


class Learner(nn.Module, ABC):
    """A recommender with the loss that trains it.

    Parameters that a method adds (a mask token, heads) belong to the learner: ranking does not need them, and
    landscapes do not include them.

    Attributes:
        parts: names of what the training loss is the sum of.
        model: the recommender.
    """

    parts: tuple[str, ...]

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Return the sum of each of `parts` over a batch, shape (parts,).

        A step minimizes their sum, divided by the weight of the batch, `batch.used.sum()`.
        """


class NextItem(Learner):
    """SASRec and SAMRec, which differ only in the optimizer: the recommendation loss and nothing else."""

    def __init__(self, model: Recommender, criterion: Loss) -> None:
        super().__init__(model)
        self.parts = ("recommendation",)
        self.criterion = criterion

    def forward(self, batch: Batch) -> Tensor:
        total, _ = self.criterion(self.model, batch)
        return total[None]


MODEL = "model."


def apart(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a learner's tensors into the model's, by their names there, and the method's own."""
    weights = {name.removeprefix(MODEL): t for name, t in state.items() if name.startswith(MODEL)}
    return weights, {name: t for name, t in state.items() if not name.startswith(MODEL)}


def joined(weights: Mapping[str, Tensor], extra: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `apart`."""
    return {f"{MODEL}{name}": t for name, t in weights.items()} | dict(extra)

"""A model as a landscape holds it: a copy in eval mode, which is given its weights from outside."""

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.errors import InputError
from landscape.objective.batches import HALF

Loss = Callable[[Any, Any], tuple[Tensor, float | Tensor]]
Forward = Callable[[Any, Any], Tensor]
Part = Literal["loss", "per_example", "outputs"]


class LossModule(nn.Module):
    """The loss as a module around the model, so that swapped weights reach any method the loss calls."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        per_example: Loss | None,
        forward: Forward | None,
        criterion: Loss | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.per_example = per_example
        self.outputs = forward
        self.criterion = criterion

    def forward(self, batch: Any, part: Part = "loss") -> Any:
        if part == "outputs":
            assert self.outputs is not None
            return self.outputs(self.model, batch)
        return (self.per_example if part == "per_example" and self.per_example else self.loss)(
            self.model, batch
        )

    def holding(self, weights: Mapping[str, Tensor]) -> "LossModule":
        """Return a copy that holds these weights itself, as parameters."""
        with torch.no_grad():  # a copied TorchScript parameter is else none
            other = copy.deepcopy(self)
        own = dict(other.named_parameters())
        for name, tensor in weights.items():
            own[name].data.copy_(tensor)
        return other

    def takes(self, weights: Mapping[str, Tensor], batch: Any) -> bool:
        """Tell whether weights that are swapped in give the loss that they give as the model's own.

        Not where the model keeps its weights in a second place, such as a list.
        """
        try:
            expected = self.holding(weights)(batch)[0]
        except Exception:  # the loss is not defined there, and nothing can be told
            return True
        try:
            found = functional_call(self, dict(weights), (batch,))[0]
        except Exception:  # whatever a module does that is not written in Python
            return False
        return bool(torch.allclose(found, expected, rtol=1e-4, equal_nan=True))

    def recomputed(self, weights: dict[str, Tensor], batches: Sequence[Any]) -> dict[str, Tensor]:
        """Return the statistics that BatchNorm finds in the batches, at these weights, by their names.

        Of every layer the mean over batches of its inputs' means and variances, those of the layers before
        it being a batch's own, as in training.
        """
        norms = {name: module for name, module in self.named_modules() if _keeps_statistics(module)}
        found = {
            f"{name}.{key}": torch.zeros_like(buffer)
            for name, module in norms.items()
            for key, buffer in module.named_buffers(recurse=False)
        }
        with _training(norms.values()):
            for batch in batches:
                functional_call(self, weights | found, (batch,))
        return found


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def has_statistics(model: nn.Module) -> bool:
    """Tell whether a model has a BatchNorm that keeps statistics."""
    return any(map(_keeps_statistics, model.modules()))


@contextmanager
def _training(norms: Collection[Any]) -> Iterator[None]:
    """Let BatchNorm average what it sees, all batches alike."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode of which no gradient is hidden, and whose weights are of float32 at least.

    Raises:
        InputError: the model cannot be copied, or has an embedding with `max_norm`.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose code has one derivative
    try:
        with torch.no_grad():
            frozen = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise InputError(f"the model cannot be copied: {str(error).partition('. ')[0]}") from error
    if any(p.dtype in HALF for p in frozen.parameters()):
        warnings.warn(
            "weights in half precision are measured in float32, where a small step is one", stacklevel=3
        )
        frozen = frozen.float()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    for module in frozen.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            if module.max_norm is not None:
                raise InputError("an embedding has max_norm, which rewrites its weights when it is read")
            module.padding_idx = None
    return frozen


def held_still(model: nn.Module) -> list[str]:
    """Return the names of the parameters that were not trained: frozen ones, unless all are frozen."""
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    return frozen if len(frozen) < len(list(model.parameters())) else []
